mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "a_projects_number_is_no_id" {
  command = plan

  variables {
    project = "123456789012"
  }

  expect_failures = [var.project]
}

run "a_projects_name_is_no_id" {
  command = plan

  variables {
    project = "My Project"
  }

  expect_failures = [var.project]
}

run "a_zone_is_no_region" {
  command = plan

  variables {
    region = "us-central1-a"
  }

  expect_failures = [var.region]
}

run "a_continent_is_no_region" {
  command = plan

  variables {
    region = "EU"
  }

  expect_failures = [var.region]
}

run "a_name_too_long_for_a_service_account_is_refused" {
  command = plan

  variables {
    name = "a-name-that-is-far-too-long"
  }

  expect_failures = [var.name]
}

run "a_name_with_capitals_is_refused" {
  command = plan

  variables {
    name = "Yolo"
  }

  expect_failures = [var.name]
}

run "an_address_is_no_name_for_a_bucket" {
  command = plan

  variables {
    bucket = "gs://my-weights"
  }

  expect_failures = [var.bucket]
}

run "a_bucket_with_capitals_is_refused" {
  command = plan

  variables {
    bucket = "My-Weights"
  }

  expect_failures = [var.bucket]
}

run "an_address_is_no_name_for_an_archive" {
  command = plan

  variables {
    archive = "gs://my-archive"
  }

  expect_failures = [var.archive]
}

run "everybody_is_no_submitter" {
  command = plan

  variables {
    submitters = ["allUsers"]
  }

  expect_failures = [var.submitters]
}

run "an_address_without_its_kind_is_no_submitter" {
  command = plan

  variables {
    submitters = ["ann@example.com"]
  }

  expect_failures = [var.submitters]
}

run "half_a_version_of_the_key_is_refused" {
  command = plan

  variables {
    wandb_key_version = 1.5
  }

  expect_failures = [var.wandb_key_version]
}

run "a_negative_version_of_the_key_is_refused" {
  command = plan

  variables {
    wandb_key_version = -1
  }

  expect_failures = [var.wandb_key_version]
}

run "what_is_too_short_for_a_key_is_refused" {
  command = plan

  variables {
    wandb_api_key = "secret"
  }

  expect_failures = [var.wandb_api_key]
}

run "a_negative_version_of_the_webhook_is_refused" {
  command = plan

  variables {
    notify_version = -1
  }

  expect_failures = [var.notify_version]
}

run "an_address_with_a_password_is_refused" {
  command = plan

  variables {
    notify_url = "https://me:secret@hooks.example.com/"
  }

  expect_failures = [var.notify_url]
}

run "a_run_shorter_than_one_job_may_take_is_refused" {
  command = plan

  variables {
    longest_run_days = 7
  }

  expect_failures = [var.longest_run_days]
}

run "a_run_of_more_than_a_year_is_refused" {
  command = plan

  variables {
    longest_run_days = 400
  }

  expect_failures = [var.longest_run_days]
}

run "a_machine_without_a_gpu_is_refused" {
  command = plan

  variables {
    vm_machine_type = "n2-standard-8"
  }

  expect_failures = [var.vm_machine_type]
}

run "a_machine_with_several_gpus_is_refused" {
  command = plan

  variables {
    vm_machine_type = "g2-standard-96"
  }

  expect_failures = [var.vm_machine_type]
}

run "a_zone_elsewhere_is_refused" {
  command = plan

  variables {
    vm_zones = ["europe-west4-a"]
  }

  expect_failures = [var.vm_zones]
}

run "a_disk_too_small_for_the_image_is_refused" {
  command = plan

  variables {
    vm_disk_gb = 20
  }

  expect_failures = [var.vm_disk_gb]
}

run "a_disk_of_many_terabytes_is_refused" {
  command = plan

  variables {
    vm_disk_gb = 64000
  }

  expect_failures = [var.vm_disk_gb]
}

run "a_system_without_cos_extensions_is_refused" {
  command = plan

  variables {
    vm_source_image = "projects/debian-cloud/global/images/family/debian-12"
  }

  expect_failures = [var.vm_source_image]
}

run "a_disk_that_spins_is_refused" {
  command = plan

  variables {
    vm_disk_type = "pd-standard"
  }

  expect_failures = [var.vm_disk_type]
}

run "a_container_is_no_boot_image" {
  command = plan

  variables {
    boot_image = "us-central1-docker.pkg.dev/demo-project/yolo-train/job"
  }

  expect_failures = [var.boot_image]
}

run "a_name_is_no_address_to_tell" {
  command = plan

  variables {
    alert_email = "ann"
  }

  expect_failures = [var.alert_email]
}

run "a_time_too_short_to_start_in_is_refused" {
  command = plan

  variables {
    no_progress_minutes = 5
  }

  expect_failures = [var.no_progress_minutes]
}

run "a_time_of_more_than_a_day_is_refused" {
  command = plan

  variables {
    no_progress_minutes = 2000
  }

  expect_failures = [var.no_progress_minutes]
}

run "a_storm_of_none_is_refused" {
  command = plan

  variables {
    preemptions_per_hour = 0
  }

  expect_failures = [var.preemptions_per_hour]
}

run "a_storm_of_hundreds_is_refused" {
  command = plan

  variables {
    preemptions_per_hour = 500
  }

  expect_failures = [var.preemptions_per_hour]
}

run "a_budget_of_a_malformed_account_is_refused" {
  command = plan

  variables {
    budget = { billing_account = "my-account", amount = 10 }
  }

  expect_failures = [var.budget]
}

run "a_budget_of_nothing_is_refused" {
  command = plan

  variables {
    budget = { billing_account = "012345-6789AB-CDEF01", amount = 0 }
  }

  expect_failures = [var.budget]
}
