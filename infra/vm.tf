# Alternative to Batch: a group of one Spot machine that comes back by itself after a preemption, resumes its run, and
# resizes its group to zero when the run is over. `make vm-up` sets its training, in the group's
# all-instances configuration; so no `terraform apply` starts a machine, stops one, or changes what it trains.

locals {
  vm_environment = join("\n", [
    "BUCKET=gs://${google_storage_bucket.runs.name}",
    "ARCHIVE=${local.archive}",
    "WANDB_SECRET=${local.wandb_secret_version}",
    "",
  ])

  vm_user_data = templatefile("${path.module}/vm/cloud-init.yaml", {
    environment = local.vm_environment
    script      = file("${path.module}/vm/trainer.sh")
    unit        = file("${path.module}/vm/trainer.service")
  })
}

resource "google_compute_instance_template" "trainer" {
  name_prefix  = "${var.name}-"
  machine_type = var.vm_machine_type # its GPU comes with it

  disk {
    boot         = true
    auto_delete  = true
    source_image = coalesce(var.boot_image, var.vm_source_image)
    disk_type    = var.vm_disk_type
    disk_size_gb = var.vm_disk_gb
  }

  network_interface {
    subnetwork = google_compute_subnetwork.private.id # without access_config: no address of its own
  }

  scheduling {
    provisioning_model          = "SPOT"
    preemptible                 = true
    automatic_restart           = false
    on_host_maintenance         = "TERMINATE"
    instance_termination_action = "STOP" # a group refuses DELETE for Spot, and recreates what was stopped
    # preemption_notice_duration, two minutes of notice, is in google-beta alone as of 7.45.
  }

  service_account {
    email  = google_service_account.runtime.email
    scopes = ["cloud-platform"] # what it may do is decided by its roles
  }

  # Container-Optimized OS has signed drivers, so secure boot stays on.
  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  metadata = {
    user-data                  = local.vm_user_data
    block-project-ssh-keys     = "true"
    google-logging-enabled     = "true"
    google-monitoring-enabled  = "false"
    enable-oslogin             = "true"
    serial-port-logging-enable = "true"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_region_instance_group_manager" "trainer" {
  name               = "${var.name}-vm"
  region             = var.region
  base_instance_name = "${var.name}-vm"
  target_size        = 0
  wait_for_instances = false

  version {
    instance_template = google_compute_instance_template.trainer.self_link_unique
  }

  # Whichever zone has capacity.
  distribution_policy_zones        = length(var.vm_zones) == 0 ? null : var.vm_zones
  distribution_policy_target_shape = "ANY"

  update_policy {
    type                         = "OPPORTUNISTIC"
    minimal_action               = "REPLACE"
    instance_redistribution_type = "NONE"
  }

  # A machine that was preempted comes back by the newest template, since only so may it come back in another zone
  # (docs.cloud.google.com/compute/docs/instance-groups/repair-vm-in-alternate-zone). The permission itself,
  # on_repair.allow_changing_zone, is not in version 6 of the provider: `make vm-up` gives it.
  instance_lifecycle_policy {
    default_action_on_failure = "REPAIR"
    force_update_on_repair    = "YES"
  }

  lifecycle {
    # Of `make vm-up` and of the machine itself; an apply that reset them would start a finished run again.
    ignore_changes = [target_size, all_instances_config]
  }
}
