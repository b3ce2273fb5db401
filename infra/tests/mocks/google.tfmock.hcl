# What the cloud would decide, so that a plan can be asked about it.

mock_resource "google_service_account" {
  defaults = {
    name   = "projects/demo-project/serviceAccounts/mock@demo-project.iam.gserviceaccount.com"
    email  = "mock@demo-project.iam.gserviceaccount.com"
    member = "serviceAccount:mock@demo-project.iam.gserviceaccount.com"
  }
}

mock_resource "google_secret_manager_secret_version" {
  defaults = {
    name = "projects/123/secrets/yolo-train-wandb-api-key/versions/7"
  }
}

mock_resource "google_project_iam_custom_role" {
  defaults = {
    id = "projects/demo-project/roles/yolo_train_resize_group"
  }
}

mock_resource "google_compute_instance_template" {
  defaults = {
    self_link_unique = "projects/demo-project/global/instanceTemplates/yolo-train-1?uniqueId=1"
  }
}

mock_resource "google_monitoring_notification_channel" {
  defaults = {
    name = "projects/demo-project/notificationChannels/1"
  }
}

mock_data "google_project" {
  defaults = {
    number = "123"
  }
}
