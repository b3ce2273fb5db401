# The key of Weights & Biases. It goes from the shell into Secret Manager and from there into the training; it is in no
# state, no plan, no metadata and no image.

resource "google_secret_manager_secret" "wandb" {
  secret_id = "${var.name}-wandb-api-key"

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_version" "wandb" {
  count = var.wandb_key_version > 0 ? 1 : 0

  secret                 = google_secret_manager_secret.wandb.id
  secret_data_wo         = var.wandb_api_key
  secret_data_wo_version = var.wandb_key_version
}
