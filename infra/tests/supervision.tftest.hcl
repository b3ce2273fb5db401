mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

override_resource {
  target          = google_service_account.runtime
  override_during = plan
  values          = { name = "projects/demo-project/serviceAccounts/runtime", member = "serviceAccount:runtime" }
}

override_resource {
  target          = google_service_account.submitter
  override_during = plan
  values          = { name = "projects/demo-project/serviceAccounts/submitter", member = "serviceAccount:submitter" }
}

override_resource {
  target          = google_service_account.supervisor
  override_during = plan
  values          = { name = "projects/demo-project/serviceAccounts/supervisor", member = "serviceAccount:supervisor" }
}

override_resource {
  target          = google_project_iam_custom_role.supervisor
  override_during = plan
  values          = { id = "projects/demo-project/roles/supervisor" }
}

override_resource {
  target          = google_project_iam_custom_role.schedules
  override_during = plan
  values          = { id = "projects/demo-project/roles/schedules" }
}

run "the_supervisor_submits_jobs_and_pauses_its_schedule_and_nothing_else" {
  command = plan

  assert {
    condition     = toset([for binding in google_project_iam_member.supervisor : binding.role]) == toset(["roles/batch.jobsEditor", "projects/demo-project/roles/supervisor"])
    error_message = "In the project, the supervisor has jobs of Batch and its own role."
  }

  assert {
    condition     = toset(google_project_iam_custom_role.supervisor.permissions) == toset(["run.jobs.run", "cloudscheduler.jobs.pause"])
    error_message = "Its own role lets its schedule start it, and lets it end that schedule."
  }

  assert {
    condition     = alltrue([for binding in google_project_iam_member.supervisor : binding.member == "serviceAccount:supervisor" && binding.project == "demo-project"])
    error_message = "No other identity gets these rights, and no other project gives them."
  }
}

run "the_supervisor_uses_objects_and_starts_jobs_as_what_trains" {
  command = plan

  assert {
    condition     = google_storage_bucket_iam_member.supervisor.role == "roles/storage.objectUser" && google_storage_bucket_iam_member.supervisor.member == "serviceAccount:supervisor"
    error_message = "Records are read and submissions written; the bucket itself is not changed."
  }

  assert {
    condition = (
      google_service_account_iam_member.supervisor_gives_jobs_the_runtime.service_account_id == "projects/demo-project/serviceAccounts/runtime"
      && google_service_account_iam_member.supervisor_gives_jobs_the_runtime.member == "serviceAccount:supervisor"
      && google_service_account_iam_member.supervisor_gives_jobs_the_runtime.role == "roles/iam.serviceAccountUser"
    )
    error_message = "The supervisor may start jobs as what trains, and as nothing else."
  }
}

run "people_start_and_end_supervision" {
  command = plan

  assert {
    condition     = toset([for binding in google_project_iam_member.submitter_starts_supervision : "${binding.member} ${binding.role}"]) == toset(["serviceAccount:submitter roles/run.developer", "serviceAccount:submitter projects/demo-project/roles/schedules"])
    error_message = "The submitter makes the job and its schedule."
  }

  assert {
    condition     = toset([for permission in google_project_iam_custom_role.schedules.permissions : permission if !startswith(permission, "cloudscheduler.jobs.")]) == toset([])
    error_message = "The role for schedules holds nothing but schedules."
  }

  assert {
    condition = (
      google_service_account_iam_member.submitter_gives_jobs_the_supervisor.service_account_id == "projects/demo-project/serviceAccounts/supervisor"
      && google_service_account_iam_member.submitter_gives_jobs_the_supervisor.member == "serviceAccount:submitter"
    )
    error_message = "The submitter may start the supervisor."
  }
}

run "without_a_webhook_nothing_refers_to_one" {
  command = plan

  assert {
    condition     = length(google_secret_manager_secret_version.notify) == 0 && output.notify_secret == null
    error_message = "Without an address nothing refers to a version that does not exist."
  }
}

run "the_address_of_the_webhook_is_write_only_and_for_the_supervisor_alone" {
  command = plan

  variables {
    notify_version = 2
    notify_url     = "https://hooks.example.com/services/secret"
  }

  assert {
    condition     = google_secret_manager_secret_version.notify[0].secret_data == null && google_secret_manager_secret_version.notify[0].secret_data_wo == null
    error_message = "The address must be in neither plan nor state."
  }

  assert {
    condition     = google_secret_manager_secret_iam_member.supervisor.role == "roles/secretmanager.secretAccessor" && google_secret_manager_secret_iam_member.supervisor.member == "serviceAccount:supervisor"
    error_message = "The address is given by the secret, to the supervisor."
  }

  assert {
    condition     = output.notify_secret == "yolo-train-notify-url:7"
    error_message = "The job refers to the address by its version."
  }
}
