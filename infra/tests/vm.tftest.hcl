mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "an_apply_starts_no_machine" {
  command = plan

  assert {
    condition     = google_compute_region_instance_group_manager.trainer.target_size == 0
    error_message = "The group begins empty; make vm-up fills it."
  }
}

run "a_machine_that_was_preempted_is_stopped_and_comes_back" {
  command = plan

  assert {
    condition = (
      google_compute_instance_template.trainer.scheduling[0].provisioning_model == "SPOT"
      && google_compute_instance_template.trainer.scheduling[0].preemptible
      && google_compute_instance_template.trainer.scheduling[0].automatic_restart == false
      && google_compute_instance_template.trainer.scheduling[0].on_host_maintenance == "TERMINATE"
    )
    error_message = "The machine is Spot, with what Compute Engine demands of one."
  }

  assert {
    condition     = google_compute_instance_template.trainer.scheduling[0].instance_termination_action == "STOP"
    error_message = "Groups refuse DELETE for Spot."
  }

  assert {
    condition     = length(google_compute_instance_template.trainer.scheduling[0].max_run_duration) == 0
    error_message = "Compute Engine takes a longest duration with DELETE only."
  }

  assert {
    condition     = google_compute_region_instance_group_manager.trainer.instance_lifecycle_policy[0].default_action_on_failure == "REPAIR"
    error_message = "The group brings the machine back."
  }
}

run "an_apply_does_not_change_what_a_machine_trains" {
  command = plan

  assert {
    condition     = google_compute_region_instance_group_manager.trainer.update_policy[0].type == "OPPORTUNISTIC"
    error_message = "A new template waits for the next machine."
  }

  assert {
    condition     = !contains(keys(google_compute_instance_template.trainer.metadata), "trainer-command")
    error_message = "No template says what to train, as a machine that was preempted comes back by the newest one."
  }
}

run "a_machine_that_was_preempted_may_come_back_in_another_zone" {
  command = plan

  assert {
    condition     = google_compute_region_instance_group_manager.trainer.instance_lifecycle_policy[0].force_update_on_repair == "YES"
    error_message = "A group changes no zone on repair unless it updates on repair."
  }

  assert {
    condition     = contains(["ANY", "BALANCED"], google_compute_region_instance_group_manager.trainer.distribution_policy_target_shape)
    error_message = "A group of another shape keeps its zones."
  }

  assert {
    condition = (
      length(google_compute_region_instance_group_manager.trainer.stateful_disk) == 0
      && length(google_compute_region_instance_group_manager.trainer.stateful_internal_ip) == 0
      && length(google_compute_region_instance_group_manager.trainer.stateful_external_ip) == 0
    )
    error_message = "A group with state changes no zone."
  }
}

run "the_machine_goes_where_there_is_capacity" {
  command = plan

  variables {
    vm_zones = ["us-central1-a", "us-central1-c"]
  }

  assert {
    condition     = google_compute_region_instance_group_manager.trainer.distribution_policy_target_shape == "ANY" && google_compute_region_instance_group_manager.trainer.update_policy[0].instance_redistribution_type == "NONE"
    error_message = "Any of the zones will do, and a machine that runs is not moved."
  }

  assert {
    condition     = google_compute_region_instance_group_manager.trainer.distribution_policy_zones == toset(["us-central1-a", "us-central1-c"])
    error_message = "Only the zones that were named are used."
  }
}

run "the_machine_runs_as_what_trains" {
  command = plan

  override_resource {
    target          = google_service_account.runtime
    override_during = plan
    values          = { email = "runtime@demo-project.iam.gserviceaccount.com" }
  }

  assert {
    condition     = google_compute_instance_template.trainer.service_account[0].email == "runtime@demo-project.iam.gserviceaccount.com"
    error_message = "The machine has the runtime's identity and not the project's default one."
  }
}

run "the_machine_boots_what_was_tested" {
  command = plan

  assert {
    condition = toset([for file in yamldecode(google_compute_instance_template.trainer.metadata["user-data"]).write_files : file.content]) == toset([
      "BUCKET=gs://demo-project-yolo-train\nARCHIVE=\nWANDB_SECRET=\n",
      file("vm/trainer.sh"),
      file("vm/trainer.service"),
    ])
    error_message = "The boot files reach the machine byte for byte, with the bucket and without a key."
  }

  assert {
    condition     = startswith(google_compute_instance_template.trainer.metadata["user-data"], "#cloud-config\n")
    error_message = "cloud-init takes for its own only what begins with #cloud-config."
  }
}

run "the_machine_boots_container_optimized_os_unless_there_is_a_boot_image" {
  command = plan

  assert {
    condition     = google_compute_instance_template.trainer.disk[0].source_image == "projects/cos-cloud/global/images/family/cos-125-lts" && output.boot_image == null
    error_message = "Without a boot image the VM boots the usual system, and Batch its own."
  }
}

run "the_vm_and_batch_boot_the_image_that_was_made" {
  command = plan

  variables {
    boot_image   = "projects/demo-project/global/images/yolo-train-boot-20261126-120000"
    vm_disk_type = "pd-ssd"
  }

  assert {
    condition     = google_compute_instance_template.trainer.disk[0].source_image == var.boot_image && output.boot_image == var.boot_image
    error_message = "One image is for both."
  }

  assert {
    condition     = google_compute_instance_template.trainer.disk[0].disk_type == "pd-ssd"
    error_message = "The disk is of the type that was asked for."
  }
}

run "the_machine_is_told_where_the_archive_is" {
  command = plan

  variables {
    archive = "my-archive"
  }

  assert {
    condition     = strcontains(google_compute_instance_template.trainer.metadata["user-data"], "ARCHIVE=gs://my-archive\\n")
    error_message = "A run of the VM is copied to the archive as one of Batch is."
  }
}

run "no_secret_is_in_the_metadata" {
  command = plan

  variables {
    wandb_key_version = 1
    wandb_api_key     = "0123456789012345678901234567890123456789"
  }

  assert {
    condition     = strcontains(google_compute_instance_template.trainer.metadata["user-data"], "WANDB_SECRET=projects/123/secrets/yolo-train-wandb-api-key/versions/7\\n")
    error_message = "The machine is told where the key is."
  }

  assert {
    condition     = !strcontains(jsonencode(google_compute_instance_template.trainer.metadata), "0123456789012345678901234567890123456789")
    error_message = "The key itself is not in the metadata, which everybody who may see the machine can read."
  }

  assert {
    condition     = !contains(keys(google_compute_instance_template.trainer.metadata), "gce-container-declaration")
    error_message = "The agent that read this key works no longer."
  }
}

run "the_machine_boots_nothing_that_is_not_signed" {
  command = plan

  assert {
    condition = (
      google_compute_instance_template.trainer.shielded_instance_config[0].enable_secure_boot
      && google_compute_instance_template.trainer.shielded_instance_config[0].enable_vtpm
      && google_compute_instance_template.trainer.shielded_instance_config[0].enable_integrity_monitoring
    )
    error_message = "Secure boot is on, and what was booted is measured."
  }
}

run "no_key_of_the_project_opens_the_machine" {
  command = plan

  assert {
    condition = (
      google_compute_instance_template.trainer.metadata["block-project-ssh-keys"] == "true"
      && google_compute_instance_template.trainer.metadata["enable-oslogin"] == "true"
    )
    error_message = "SSH keys of the whole project are blocked; who may log in is decided by IAM."
  }
}

run "what_knows_the_price_is_told_the_machine" {
  command = plan

  variables {
    vm_machine_type = "a2-highgpu-1g"
  }

  assert {
    condition     = output.vm_machine_type == "a2-highgpu-1g" && google_compute_instance_template.trainer.machine_type == "a2-highgpu-1g"
    error_message = "make vm-up reckons its limit with the machine that the group has."
  }
}
