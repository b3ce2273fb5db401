mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "without_a_key_there_is_none_and_no_reference_to_one" {
  command = plan

  assert {
    condition     = length(google_secret_manager_secret_version.wandb) == 0 && output.wandb_secret == null
    error_message = "Tracking is optional: without a key nothing refers to a version that does not exist."
  }
}

run "the_key_is_write_only" {
  command = plan

  variables {
    wandb_key_version = 3
    wandb_api_key     = "0123456789012345678901234567890123456789"
  }

  assert {
    condition     = google_secret_manager_secret_version.wandb[0].secret_data == null && google_secret_manager_secret_version.wandb[0].secret_data_wo == null
    error_message = "The key must be in neither plan nor state."
  }

  assert {
    condition     = tonumber(google_secret_manager_secret_version.wandb[0].secret_data_wo_version) == 3
    error_message = "Raising the version stores the key anew."
  }

  assert {
    condition     = output.wandb_secret == "projects/123/secrets/yolo-train-wandb-api-key/versions/7"
    error_message = "Jobs refer to the key by its version, so that all attempts of a run use one."
  }
}
