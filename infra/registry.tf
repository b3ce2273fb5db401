# Where the images are. A job names its image by digest, and pulls it again after each preemption: a digest must not
# vanish while a run lasts.

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:Google's own keys encrypt at rest; a key of one's own would be one more thing whose loss loses the runs
  repository_id = var.name
  description   = "Images of the trainer"
  location      = var.region
  format        = "DOCKER"

  # A tag that cannot move cannot leave its digest without a tag, so what was pushed with one is never cleaned up.
  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "keep-what-has-a-tag"
    action = "KEEP"
    condition {
      tag_state = "TAGGED"
    }
  }

  cleanup_policies {
    id     = "delete-without-a-tag-after-the-longest-run"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "${var.longest_run_days * 24 * 3600}s"
    }
  }

  depends_on = [google_project_service.api]
}
