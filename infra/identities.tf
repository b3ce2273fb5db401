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

resource "google_storage_bucket_iam_member" "submitter" {
  bucket = google_storage_bucket.runs.name
  role   = "roles/storage.objectUser" # objects, and not the bucket
  member = google_service_account.submitter.member
}

moved {
  from = google_storage_bucket_iam_member.objects["submitter"]
  to   = google_storage_bucket_iam_member.submitter
}

resource "google_storage_bucket_iam_member" "runtime_reads" {
  bucket = google_storage_bucket.runs.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.runtime.member
}

# A person's machine obeys submissions, which have a job's command, settings and limit, and campaigns, which have the next
# run and a limit. `extract` finds something in their keys alone, also below a prefix of the bucket.
resource "google_storage_bucket_iam_member" "runtime_writes" {
  bucket = google_storage_bucket.runs.name
  role   = "roles/storage.objectUser"
  member = google_service_account.runtime.member

  condition {
    title = "No submissions and no campaigns"
    expression = join(" && ", [
      for key in ["/runs/{run}/segments/", "/campaigns/{campaign}/"] : "resource.name.extract(\"${key}\") == \"\""
    ])
  }
}

# The role that creates objects neither overwrites nor deletes nor reads them.
resource "google_storage_bucket_iam_member" "archive" {
  for_each = var.archive == null ? {} : {
    "roles/storage.objectCreator" = google_service_account.runtime.member
    "roles/storage.objectViewer"  = google_service_account.submitter.member
  }
  bucket = google_storage_bucket.archive[0].name
  role   = each.key
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

# The machine resizes its own group, when its run is over, and no other. Google's list of resources whose names conditions
# know has no groups: where the name is empty, the right stays, as a machine that cannot leave costs money for ever. The
# submitter's right has no condition: a person can always stop the machine.
resource "google_project_iam_member" "resize_group" {
  for_each = {
    runtime   = google_service_account.runtime.member
    submitter = google_service_account.submitter.member
  }
  project = var.project
  role    = google_project_iam_custom_role.resize_group.id
  member  = each.value

  dynamic "condition" {
    for_each = each.key == "runtime" ? [google_compute_region_instance_group_manager.trainer.name] : []
    content {
      title = "Its own group"
      expression = join(" || ", [
        "resource.name.extract(\"/instanceGroupManagers/{group}\") == \"\"",
        "resource.name.endsWith(\"/regions/${var.region}/instanceGroupManagers/${condition.value}\")",
      ])
    }
  }
}
