# Outputs that `job` and the Makefile read from outputs.json, which `make infra-apply` writes.

locals {
  # Pinned to a version, so that the attempts of a run use one key; empty as long as there is none.
  wandb_secret_version = join("", google_secret_manager_secret_version.wandb[*].name)

  # Empty if there is none.
  archive = join("", [for bucket in google_storage_bucket.archive : "gs://${bucket.name}"])
}

output "project" {
  description = "The project's id."
  value       = var.project
}

output "region" {
  description = "Where the machines are."
  value       = var.region
}

output "bucket" {
  description = "Where the datasets and runs are."
  value       = "gs://${google_storage_bucket.runs.name}"
}

output "archive" {
  description = "Where finished runs are copied to, or null if there is no such bucket."
  value       = local.archive == "" ? null : local.archive
}

output "image_repository" {
  description = "Where images are pushed to; an image is this, /NAME and @sha256:DIGEST."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "runtime_service_account" {
  description = "The service account of training."
  value       = google_service_account.runtime.email
}

output "submitter_service_account" {
  description = "The service account that people impersonate: gcloud auth application-default login --impersonate-service-account=..."
  value       = google_service_account.submitter.email
}

output "network" {
  description = "projects/P/global/networks/N"
  value       = google_compute_network.private.id
}

output "subnetwork" {
  description = "projects/P/regions/R/subnetworks/N"
  value       = google_compute_subnetwork.private.id
}

output "wandb_secret" {
  description = "projects/N/secrets/S/versions/V, or null as long as there is no key."
  value       = local.wandb_secret_version == "" ? null : local.wandb_secret_version
}

output "vm_machine_type" {
  description = "Machine type of the group, for its price and its limit."
  value       = var.vm_machine_type
}

output "boot_image" {
  description = "The image that Batch's machines boot, or null for Batch's own."
  value       = var.boot_image
}

output "group" {
  description = "The managed instance group of the VM road."
  value       = google_compute_region_instance_group_manager.trainer.name
}
