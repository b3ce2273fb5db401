mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "no_machine_has_an_address_that_the_internet_could_reach" {
  command = plan

  assert {
    condition     = alltrue([for nic in google_compute_instance_template.trainer.network_interface : length(nic.access_config) == 0])
    error_message = "The VM has no address of its own."
  }

  assert {
    condition     = google_compute_network.private.auto_create_subnetworks == false
    error_message = "There are no subnetworks but the one that is described here."
  }
}

run "machines_reach_google_without_nat_and_the_rest_through_it" {
  command = plan

  assert {
    condition     = google_compute_subnetwork.private.private_ip_google_access
    error_message = "Without private access a machine that has no address reaches neither bucket nor registry."
  }

  assert {
    condition     = google_compute_router_nat.out.source_subnetwork_ip_ranges_to_nat == "ALL_SUBNETWORKS_ALL_IP_RANGES" && google_compute_router_nat.out.nat_ip_allocate_option == "AUTO_ONLY"
    error_message = "The GPU driver and Weights & Biases are reached through NAT, and no address is kept reserved for it."
  }
}
