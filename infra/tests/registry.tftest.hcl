mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "no_cleanup_deletes_a_digest_that_has_a_tag" {
  command = plan

  assert {
    condition = alltrue([
      for policy in google_artifact_registry_repository.images.cleanup_policies :
      one(policy.condition).tag_state == "UNTAGGED" if policy.action == "DELETE"
    ])
    error_message = "Only what has no tag may be deleted: a running job pulls its digest again after each preemption."
  }

  assert {
    condition = contains([
      for policy in google_artifact_registry_repository.images.cleanup_policies :
      one(policy.condition).tag_state if policy.action == "KEEP"
    ], "TAGGED")
    error_message = "What has a tag is kept, whatever else is added."
  }
}

run "a_digest_cannot_lose_its_tag" {
  command = plan

  assert {
    condition     = google_artifact_registry_repository.images.docker_config[0].immutable_tags
    error_message = "A tag that moved would leave the digest of a running job without one, for the cleanup to delete."
  }
}

run "what_has_no_tag_is_kept_as_long_as_the_longest_run" {
  command = plan

  variables {
    longest_run_days = 90
  }

  assert {
    condition = alltrue([
      for policy in google_artifact_registry_repository.images.cleanup_policies :
      one(policy.condition).older_than == "7776000s" if policy.action == "DELETE"
    ])
    error_message = "An image without a tag is deleted after the longest run, not before."
  }
}
