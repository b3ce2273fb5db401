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

run "the_runtime_has_these_roles_in_the_project_and_no_others" {
  command = plan

  assert {
    condition     = toset([for binding in google_project_iam_member.runtime : binding.role]) == toset(["roles/batch.agentReporter", "roles/logging.logWriter"])
    error_message = "In the project, what trains may report to Batch and write logs; everything else is given lower down."
  }
}

run "the_submitter_has_these_roles_in_the_project_and_no_others" {
  command = plan

  assert {
    condition     = toset([for binding in google_project_iam_member.submitter : binding.role]) == toset(["roles/batch.jobsEditor", "roles/compute.viewer", "roles/logging.viewer"])
    error_message = "In the project, people may submit jobs and see machines and logs; no secret can be read, nothing else made."
  }
}

run "every_role_in_the_project_is_of_this_project" {
  command = plan

  assert {
    condition = alltrue([
      for binding in concat(values(google_project_iam_member.runtime), values(google_project_iam_member.submitter), values(google_project_iam_member.resize_group)) :
      binding.project == "demo-project"
    ])
    error_message = "No identity is given anything in another project."
  }
}

run "nobody_is_owner_editor_or_admin" {
  command = plan

  assert {
    condition = !anytrue([
      for role in concat(
        [for binding in google_project_iam_member.runtime : binding.role],
        [for binding in google_project_iam_member.submitter : binding.role],
        [google_storage_bucket_iam_member.submitter.role, google_storage_bucket_iam_member.runtime_reads.role, google_storage_bucket_iam_member.runtime_writes.role],
        [for binding in google_storage_bucket_iam_member.archive : binding.role],
        [for binding in google_artifact_registry_repository_iam_member.images : binding.role],
        [google_secret_manager_secret_iam_member.runtime.role],
      ) : can(regex("(?i)admin|^roles/(owner|editor|viewer)$", role))
    ])
    error_message = "No identity has one of the roles that allow nearly everything."
  }
}

run "objects_are_given_by_the_bucket" {
  command = plan

  assert {
    condition = alltrue([
      for binding in [
        google_storage_bucket_iam_member.submitter, google_storage_bucket_iam_member.runtime_reads,
        google_storage_bucket_iam_member.runtime_writes,
      ] : binding.bucket == google_storage_bucket.runs.name
    ])
    error_message = "Objects of this one bucket can be used, and of no other in the project."
  }

  assert {
    condition     = google_storage_bucket_iam_member.submitter.role == "roles/storage.objectUser" && google_storage_bucket_iam_member.submitter.member == "serviceAccount:submitter"
    error_message = "The submitter uses objects, and cannot change the bucket itself."
  }
}

run "what_trains_reads_every_object_and_writes_none_that_is_obeyed" {
  command = plan

  assert {
    condition = (
      google_storage_bucket_iam_member.runtime_reads.role == "roles/storage.objectViewer"
      && google_storage_bucket_iam_member.runtime_reads.member == "serviceAccount:runtime"
      && length(google_storage_bucket_iam_member.runtime_reads.condition) == 0
    )
    error_message = "What trains reads and lists every object."
  }

  assert {
    condition = (
      google_storage_bucket_iam_member.runtime_writes.role == "roles/storage.objectUser"
      && google_storage_bucket_iam_member.runtime_writes.member == "serviceAccount:runtime"
      && [for condition in google_storage_bucket_iam_member.runtime_writes.condition : condition.expression] == ["resource.name.extract(\"/runs/{run}/segments/\") == \"\" && resource.name.extract(\"/campaigns/{campaign}/\") == \"\""]
    )
    error_message = "What trains writes no command, setting or limit that a person's machine obeys: no submission and no campaign."
  }
}

run "what_trains_pulls_images_and_pushes_none" {
  command = plan

  assert {
    condition = { for binding in google_artifact_registry_repository_iam_member.images : binding.member => binding.role... } == {
      "serviceAccount:runtime"   = ["roles/artifactregistry.reader"]
      "serviceAccount:submitter" = ["roles/artifactregistry.writer"]
    }
    error_message = "What trains reads images, and the submitter writes them."
  }
}

run "the_key_can_be_read_by_what_trains_alone" {
  command = plan

  assert {
    condition     = google_secret_manager_secret_iam_member.runtime.role == "roles/secretmanager.secretAccessor" && google_secret_manager_secret_iam_member.runtime.member == "serviceAccount:runtime"
    error_message = "The key is given by the secret, to what trains."
  }
}

run "a_machine_can_resize_a_group_and_nothing_else" {
  command = plan

  assert {
    condition     = toset(google_project_iam_custom_role.resize_group.permissions) == toset(["compute.instanceGroupManagers.get", "compute.instanceGroupManagers.update"])
    error_message = "The role of a finished machine holds what resizing takes, and no more."
  }
}

run "a_machine_resizes_its_own_group_and_no_other" {
  command = plan

  variables {
    name   = "zebras"
    region = "europe-west4"
  }

  assert {
    condition     = [for condition in google_project_iam_member.resize_group["runtime"].condition : condition.expression] == ["resource.name.extract(\"/instanceGroupManagers/{group}\") == \"\" || resource.name.endsWith(\"/regions/europe-west4/instanceGroupManagers/zebras-vm\")"]
    error_message = "The right of what trains ends at the group of the VM, where the name of a group is known."
  }

  assert {
    condition     = length(google_project_iam_member.resize_group["submitter"].condition) == 0
    error_message = "A person can stop the machine whatever becomes of the condition."
  }
}

run "people_act_as_the_submitter_and_not_as_what_trains" {
  command = plan

  variables {
    submitters = ["user:ann@example.com", "group:ml@example.com"]
  }

  assert {
    condition = toset([
      for binding in google_service_account_iam_member.people_act_as_the_submitter :
      "${binding.member} ${binding.role} ${binding.service_account_id}"
      ]) == toset([
      "group:ml@example.com roles/iam.serviceAccountTokenCreator projects/demo-project/serviceAccounts/submitter",
      "user:ann@example.com roles/iam.serviceAccountTokenCreator projects/demo-project/serviceAccounts/submitter",
    ])
    error_message = "Each of those named can act as the submitter."
  }

  assert {
    condition = (
      google_service_account_iam_member.submitter_gives_jobs_the_runtime.service_account_id == "projects/demo-project/serviceAccounts/runtime"
      && google_service_account_iam_member.submitter_gives_jobs_the_runtime.member == "serviceAccount:submitter"
    )
    error_message = "The submitter may start jobs as what trains, and as nothing else in the project."
  }
}
