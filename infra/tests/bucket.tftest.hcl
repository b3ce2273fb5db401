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
