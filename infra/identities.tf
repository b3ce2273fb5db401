# Two identities. The runtime is what trains, on Batch's machines and on the VM. The submitter is what people act as
# when they push images and data, submit jobs and start the VM. Each role is given where it is needed and no higher.

locals {
  submitter_project_roles = [
    "roles/batch.jobsEditor",
    "roles/compute.viewer", # what runs, for `make vm-status` and `make down`
    "roles/logging.viewer",
  ]

  runtime_project_roles = [
    "roles/batch.agentReporter", # or Batch never learns that its machine is there
    "roles/logging.logWriter",
  ]
}

resource "google_service_account" "runtime" {
  account_id   = "${var.name}-runtime"
  display_name = "Trains"
  depends_on   = [google_project_service.api]
}

resource "google_service_account" "submitter" {
  account_id   = "${var.name}-submit"
  display_name = "Pushes images and data, submits jobs, starts the VM"
  depends_on   = [google_project_service.api]
}

resource "google_service_account_iam_member" "people_act_as_the_submitter" {
  for_each           = var.submitters
  service_account_id = google_service_account.submitter.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.value
}

resource "google_service_account_iam_member" "submitter_gives_jobs_the_runtime" {
  service_account_id = google_service_account.runtime.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.submitter.member
}

resource "google_project_iam_member" "runtime" {
  for_each = toset(local.runtime_project_roles)
  project  = var.project
  role     = each.value
  member   = google_service_account.runtime.member
}

resource "google_project_iam_member" "submitter" {
  for_each = toset(local.submitter_project_roles)
  project  = var.project
  role     = each.value
  member   = google_service_account.submitter.member
}

resource "google_storage_bucket_iam_member" "objects" {
  for_each = {
    runtime   = google_service_account.runtime.member
    submitter = google_service_account.submitter.member
  }
  bucket = google_storage_bucket.runs.name
  role   = "roles/storage.objectUser" # objects, and not the bucket
  member = each.value
}

resource "google_artifact_registry_repository_iam_member" "images" {
  for_each = {
    "roles/artifactregistry.reader" = google_service_account.runtime.member
    "roles/artifactregistry.writer" = google_service_account.submitter.member
  }
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = each.key
  member     = each.value
}

resource "google_secret_manager_secret_iam_member" "runtime" {
  secret_id = google_secret_manager_secret.wandb.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.runtime.member
}

# To resize a group is to update it, which only admin's roles hold among Google's own. A group has no IAM policy to bind
# this to, so it is bound to the project; its holder can still start nothing as an identity that it may not act as.
resource "google_project_iam_custom_role" "resize_group" {
  role_id     = "${replace(var.name, "-", "_")}_resize_group"
  title       = "Resize an instance group"
  permissions = ["compute.instanceGroupManagers.get", "compute.instanceGroupManagers.update"]
  depends_on  = [google_project_service.api]
}

resource "google_project_iam_member" "resize_group" {
  for_each = {
    runtime   = google_service_account.runtime.member # the machine, when its run is over
    submitter = google_service_account.submitter.member
  }
  project = var.project
  role    = google_project_iam_custom_role.resize_group.id
  member  = each.value
}
