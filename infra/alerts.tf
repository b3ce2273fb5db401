# When somebody should look: a training ended for good with an error, a machine is paid for and commits nothing, or Spot
# capacity is so short that machines are taken away again and again.

locals {
  # Logs of the trainer, on Batch's machines and on the VM.
  trainer_logs = "(log_id(\"batch_task_logs\") OR log_id(\"cos_containers\"))"

  # A job's line in JSON is read as such on Batch's machines, and stands as text in `message` on the VM.
  failed_for_good = join(" OR ", [
    "jsonPayload.exit_code = (2 OR 65 OR 70 OR 74 OR 78)",
    "jsonPayload.message =~ \"\\\"exit_code\\\": (2|65|70|74|78)\\\\b\"",
  ])

  commits     = "${replace(var.name, "-", "_")}_commits"
  preemptions = "${replace(var.name, "-", "_")}_preemptions"

  channels = google_monitoring_notification_channel.email[*].name
}

resource "google_monitoring_notification_channel" "email" {
  count        = var.alert_email == null ? 0 : 1
  display_name = "Trainings"
  type         = "email"
  labels       = { email_address = var.alert_email }
  depends_on   = [google_project_service.api]
}

resource "google_logging_metric" "commits" {
  name        = local.commits
  description = "Checkpoints that were committed"
  filter      = "${local.trainer_logs} AND (\"committed epoch\" OR \"committed batch\")"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.api]
}

resource "google_logging_metric" "preemptions" {
  name        = local.preemptions
  description = "Machines that were taken away"
  filter      = "log_id(\"cloudaudit.googleapis.com/system_event\") AND protoPayload.methodName = \"compute.instances.preempted\""

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "failed" {
  display_name          = "${var.name}: a training failed for good"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "it ended with an exit code that trying again does not change"
    condition_matched_log {
      filter = "${local.trainer_logs} AND (${local.failed_for_good})"
    }
  }

  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit {
      period = "300s"
    }
  }

  documentation {
    content = "`job runs show RUN` says what ended it. Put that right and give the same command again."
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "no_progress" {
  display_name          = "${var.name}: no progress"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "a machine ran for ${var.no_progress_minutes} minutes and no checkpoint was committed"
    # A commit makes the expression false for five minutes, and the time until it counts starts anew. Every machine of the
    # project counts: those of Batch have names that are not known beforehand.
    condition_prometheus_query_language {
      query = join(" unless ", concat(
        ["(sum(count_over_time(compute_googleapis_com:instance_uptime_total{monitored_resource=\"gce_instance\"}[5m])) > 0)"],
        [
          for resource in ["batch.googleapis.com/Job", "gce_instance"] :
          "(sum(increase(logging_googleapis_com:user_${local.commits}{monitored_resource=\"${resource}\"}[5m])) > 0)"
        ],
      ))
      duration            = "${var.no_progress_minutes * 60}s"
      evaluation_interval = "60s"
    }
  }

  alert_strategy {
    auto_close = "1800s"
  }

  documentation {
    content = "`make status` and `make logs` show what it does. `make down` lists what is paid for."
  }

  depends_on = [google_logging_metric.commits]
}

resource "google_monitoring_alert_policy" "preemption_storm" {
  display_name          = "${var.name}: machines are taken away again and again"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "more than ${var.preemptions_per_hour} preemptions within an hour"
    condition_threshold {
      filter          = "metric.type = \"logging.googleapis.com/user/${local.preemptions}\" AND resource.type = \"gce_instance\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.preemptions_per_hour
      duration        = "0s"
      aggregations {
        alignment_period     = "3600s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  alert_strategy {
    auto_close = "3600s"
  }

  documentation {
    content = "The runs continue, slowly. Remedies: other zones, another machine, or `--on-demand`."
  }

  depends_on = [google_logging_metric.preemptions]
}
