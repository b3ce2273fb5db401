# Supervision without a laptop: who looks at a run for `make supervise-up`, which makes the job and its schedule, and the
# address of the webhook that is told. The address goes where the key of Weights & Biases goes, in the same way.

locals {
  # What the supervisor does in the project besides jobs of Batch: be started, and end its own schedule.
  supervisor_permissions = ["run.jobs.run", "cloudscheduler.jobs.pause"]

  schedule_permissions = [
    "cloudscheduler.jobs.create",
    "cloudscheduler.jobs.delete",
    "cloudscheduler.jobs.get",
    "cloudscheduler.jobs.list",
  ]

  notify_secret_version = join("", google_secret_manager_secret_version.notify[*].name)
}

resource "google_service_account" "supervisor" {
  account_id   = "${var.name}-supervise"
  display_name = "Supervises runs"
  depends_on   = [google_project_service.api]
}

resource "google_project_iam_custom_role" "supervisor" {
  role_id     = "${replace(var.name, "-", "_")}_supervisor"
  title       = "Look at a run until it ends"
  permissions = local.supervisor_permissions
  depends_on  = [google_project_service.api]
}

resource "google_project_iam_custom_role" "schedules" {
  role_id     = "${replace(var.name, "-", "_")}_schedules"
  title       = "Make and end schedules"
  permissions = local.schedule_permissions
  depends_on  = [google_project_service.api]
}

resource "google_project_iam_member" "supervisor" {
  for_each = {
    batch = "roles/batch.jobsEditor"
    self  = google_project_iam_custom_role.supervisor.id
  }
  project = var.project
  role    = each.value
  member  = google_service_account.supervisor.member
}

resource "google_project_iam_member" "submitter_starts_supervision" {
  for_each = {
    jobs      = "roles/run.developer"
    schedules = google_project_iam_custom_role.schedules.id
  }
  project = var.project
  role    = each.value
  member  = google_service_account.submitter.member
}

resource "google_service_account_iam_member" "supervisor_gives_jobs_the_runtime" {
  service_account_id = google_service_account.runtime.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.supervisor.member
}

resource "google_service_account_iam_member" "submitter_gives_jobs_the_supervisor" {
  service_account_id = google_service_account.supervisor.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.submitter.member
}

resource "google_storage_bucket_iam_member" "supervisor" {
  bucket = google_storage_bucket.runs.name
  role   = "roles/storage.objectUser" # records are read, and submissions written
  member = google_service_account.supervisor.member
}

resource "google_secret_manager_secret" "notify" {
  secret_id = "${var.name}-notify-url"

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_version" "notify" {
  count = var.notify_version > 0 ? 1 : 0

  secret                 = google_secret_manager_secret.notify.id
  secret_data_wo         = var.notify_url
  secret_data_wo_version = var.notify_version
}

resource "google_secret_manager_secret_iam_member" "supervisor" {
  secret_id = google_secret_manager_secret.notify.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.supervisor.member
}

output "supervisor" {
  description = "The name of the Cloud Run job of make supervise-up, and of its schedule."
  value       = "${var.name}-supervisor"
}

output "supervisor_service_account" {
  description = "The service account of that job."
  value       = google_service_account.supervisor.email
}

output "notify_secret" {
  description = "SECRET:VERSION of the webhook's address, or null as long as there is none."
  value       = local.notify_secret_version == "" ? null : "${google_secret_manager_secret.notify.secret_id}:${basename(local.notify_secret_version)}"
}
