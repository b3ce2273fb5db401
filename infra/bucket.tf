# The bucket of datasets, runs and weights, and the archive if one is named. They outlive everything else, `make
# infra-destroy` included.

resource "google_storage_bucket" "runs" {
  #checkov:skip=CKV_GCP_62:Access logs would cost a second bucket; who may read is decided by IAM, two identities in all
  #checkov:skip=CKV_GCP_78:No object is ever overwritten but mirrors of what a checkpoint holds, so versions would only be paid for
  name     = coalesce(var.bucket, "${var.project}-${var.name}")
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # Retention deletes a checkpoint for every one that it keeps; soft delete would bill each for 7 more days.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  # Unfinished uploads of a machine that was killed.
  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.api]
}

# Finished runs, in a bucket in which what trains can change nothing: they survive a mistake, and a theft of its identity.
resource "google_storage_bucket" "archive" {
  #checkov:skip=CKV_GCP_62:Access logs would cost a third bucket; who may read is decided by IAM, one identity in all
  #checkov:skip=CKV_GCP_78:No identity may overwrite an object, so versions would hold nothing; a deleted one stays for 30 days
  count    = var.archive == null ? 0 : 1
  name     = var.archive
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  soft_delete_policy {
    retention_duration_seconds = 2592000 # 30 days
  }

  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.api]
}
