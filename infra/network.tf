# A network of its own, in which no machine has an address that the internet could reach. Outwards there is NAT, for the
# GPU driver and Weights & Biases; Google's APIs are reached without it. There is no rule that lets anything in.

resource "google_compute_network" "private" {
  #checkov:skip=CKV2_GCP_18:Without a rule nothing comes in, and nothing is to
  name                    = var.name
  auto_create_subnetworks = false
  depends_on              = [google_project_service.api]
}

resource "google_compute_subnetwork" "private" {
  #checkov:skip=CKV_GCP_26:Flow logs are billed by volume, and the machines talk to Google and to Weights & Biases only
  name                     = "${var.name}-${var.region}"
  network                  = google_compute_network.private.id
  region                   = var.region
  ip_cidr_range            = "10.10.0.0/24"
  private_ip_google_access = true
}

resource "google_compute_router" "out" {
  name    = var.name
  network = google_compute_network.private.id
  region  = var.region
}

resource "google_compute_router_nat" "out" {
  name                               = var.name
  router                             = google_compute_router.out.name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}
