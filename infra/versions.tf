# secret_data_wo needs Terraform 1.11. Of the provider, 6.50 is what the rules are tested against, and the last version 6:
# a newer one is taken when its schema can be tested. .terraform.lock.hcl has its checksums for every platform.
terraform {
  required_version = ">= 1.11, < 2.0"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
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
