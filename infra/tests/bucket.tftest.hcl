mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "nobody_can_be_given_the_bucket_but_by_iam" {
  command = plan

  assert {
    condition     = google_storage_bucket.runs.uniform_bucket_level_access && google_storage_bucket.runs.public_access_prevention == "enforced"
    error_message = "Access to the bucket is decided by IAM alone, and the public is refused whatever IAM says."
  }
}

run "destroying_never_empties_the_bucket" {
  command = plan

  assert {
    condition     = google_storage_bucket.runs.force_destroy == false
    error_message = "Terraform must not be able to delete trained weights."
  }
}

run "a_deleted_checkpoint_is_not_billed_for_another_week" {
  command = plan

  assert {
    condition     = google_storage_bucket.runs.soft_delete_policy[0].retention_duration_seconds == 0
    error_message = "Soft delete must be off: retention deletes checkpoints all the time."
  }
}

run "what_a_killed_upload_left_behind_is_cleared_away_and_nothing_else_is" {
  command = plan

  assert {
    condition     = flatten([for rule in google_storage_bucket.runs.lifecycle_rule : [for action in rule.action : action.type]]) == ["AbortIncompleteMultipartUpload"]
    error_message = "The only lifecycle rule aborts incomplete uploads; no rule deletes an object by its age."
  }
}

run "an_upload_is_given_a_week_and_no_longer" {
  command = plan

  assert {
    condition     = [for rule in google_storage_bucket.runs.lifecycle_rule : [for condition in rule.condition : condition.age]] == [[7]]
    error_message = "An upload that was not finished within 7 days is aborted: its machine is gone, and it is paid for; one that is under way is left alone."
  }
}

run "the_bucket_is_where_the_machines_are" {
  command = plan

  variables {
    region = "europe-west4"
  }

  assert {
    condition = alltrue([for place in [
      google_storage_bucket.runs.location,
      google_artifact_registry_repository.images.location,
      google_compute_subnetwork.private.region,
      google_compute_region_instance_group_manager.trainer.region,
    ] : lower(place) == "europe-west4"])
    error_message = "Data, images and machines are in one region, so that no traffic between regions is paid for."
  }
}

run "a_bucket_of_ones_own_name_is_taken" {
  command = plan

  variables {
    bucket = "my-weights"
  }

  assert {
    condition     = google_storage_bucket.runs.name == "my-weights" && output.bucket == "gs://my-weights"
    error_message = "The bucket has the name that was chosen."
  }
}

run "there_is_no_archive_unless_it_is_named" {
  command = plan

  assert {
    condition     = length(google_storage_bucket.archive) == 0 && length(google_storage_bucket_iam_member.archive) == 0 && output.archive == null
    error_message = "The second bucket is optional, with its rights."
  }
}

run "what_trains_can_add_to_the_archive_and_change_nothing_in_it" {
  command = plan

  variables {
    archive = "my-archive"
  }

  override_resource {
    target          = google_service_account.runtime
    override_during = plan
    values          = { member = "serviceAccount:runtime" }
  }

  override_resource {
    target          = google_service_account.submitter
    override_during = plan
    values          = { member = "serviceAccount:submitter" }
  }

  assert {
    condition = { for binding in google_storage_bucket_iam_member.archive : binding.member => "${binding.role} ${binding.bucket}"... } == {
      "serviceAccount:runtime"   = ["roles/storage.objectCreator my-archive"]
      "serviceAccount:submitter" = ["roles/storage.objectViewer my-archive"]
    }
    error_message = "What trains creates objects there, and neither reads, overwrites nor deletes them; people read them."
  }
}

run "the_archive_is_as_closed_as_the_bucket_and_what_is_deleted_there_comes_back" {
  command = plan

  variables {
    archive = "my-archive"
    region  = "europe-west4"
  }

  assert {
    condition     = google_storage_bucket.archive[0].uniform_bucket_level_access && google_storage_bucket.archive[0].public_access_prevention == "enforced"
    error_message = "Access to the archive is decided by IAM alone, and the public is refused whatever IAM says."
  }

  assert {
    condition     = google_storage_bucket.archive[0].force_destroy == false && google_storage_bucket.archive[0].soft_delete_policy[0].retention_duration_seconds == 2592000
    error_message = "Terraform cannot empty the archive, and an object that an owner deleted can be restored for 30 days."
  }

  assert {
    condition     = flatten([for rule in google_storage_bucket.archive[0].lifecycle_rule : [for action in rule.action : action.type]]) == ["AbortIncompleteMultipartUpload"]
    error_message = "No rule deletes an object of the archive by its age."
  }

  assert {
    condition     = lower(google_storage_bucket.archive[0].location) == "europe-west4" && output.archive == "gs://my-archive"
    error_message = "The archive is in the region of the bucket, and job is told where."
  }
}
