# secret_data_wo needs Terraform 1.11. Of the provider, 6.50 is what this was tested against; 7 and 8 change nothing
# that is used here: secret_data_wo_version became text, and Terraform turns the one into the other.
terraform {
  required_version = ">= 1.11, < 2.0"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 9.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region

  # Only the API for budgets asks a person's own credentials for a project to bill its calls to.
  user_project_override = var.budget != null
  billing_project       = var.budget == null ? null : var.project

  default_labels = {
    app = var.name
  }
}
