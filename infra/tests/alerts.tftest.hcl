mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "a_failure_for_good_is_told_by_its_exit_code" {
  command = plan

  assert {
    condition = alltrue([
      for code in [2, 65, 70, 74, 78] :
      can(regex("\\b${code}\\b", google_monitoring_alert_policy.failed.conditions[0].condition_matched_log[0].filter))
    ])
    error_message = "Each exit code that trying again does not change raises the alert."
  }

  assert {
    condition     = !can(regex("\\b75\\b", google_monitoring_alert_policy.failed.conditions[0].condition_matched_log[0].filter))
    error_message = "A preemption is no failure."
  }

  assert {
    condition     = google_monitoring_alert_policy.failed.alert_strategy[0].notification_rate_limit[0].period == "300s"
    error_message = "Cloud Monitoring takes a condition on logs only with a limit to how often it tells."
  }
}

run "no_progress_is_a_machine_that_runs_and_commits_nothing" {
  command = plan

  variables {
    no_progress_minutes = 45
  }

  assert {
    condition = alltrue([
      for resource in ["batch.googleapis.com/Job", "gce_instance"] :
      strcontains(
        google_monitoring_alert_policy.no_progress.conditions[0].condition_prometheus_query_language[0].query,
        "unless (sum(increase(logging_googleapis_com:user_${google_logging_metric.commits.name}{monitored_resource=\"${resource}\"}[5m])) > 0)"
      )
    ])
    error_message = "A commit, on Batch's machines or on the VM, is progress."
  }

  assert {
    condition     = strcontains(google_monitoring_alert_policy.no_progress.conditions[0].condition_prometheus_query_language[0].query, "compute_googleapis_com:instance_uptime_total")
    error_message = "Without a machine there is nothing to wait for, so a finished run raises no alert."
  }

  assert {
    condition     = google_monitoring_alert_policy.no_progress.conditions[0].condition_prometheus_query_language[0].duration == "2700s"
    error_message = "It must have gone on for as long as was chosen; so a machine has had that long to start."
  }
}

run "a_machine_is_given_an_hour_to_commit" {
  command = plan

  assert {
    condition     = google_monitoring_alert_policy.no_progress.conditions[0].condition_prometheus_query_language[0].duration == "3600s"
    error_message = "Unless chosen otherwise a machine that commits nothing is told of after 60 minutes: pulling the image and the data takes some of them."
  }
}

run "a_storm_is_more_preemptions_than_chosen_within_an_hour" {
  command = plan

  variables {
    preemptions_per_hour = 7
  }

  assert {
    condition = (
      google_monitoring_alert_policy.preemption_storm.conditions[0].condition_threshold[0].threshold_value == 7
      && google_monitoring_alert_policy.preemption_storm.conditions[0].condition_threshold[0].comparison == "COMPARISON_GT"
      && google_monitoring_alert_policy.preemption_storm.conditions[0].condition_threshold[0].aggregations[0].alignment_period == "3600s"
    )
    error_message = "The preemptions of an hour are counted."
  }

  assert {
    condition     = strcontains(google_monitoring_alert_policy.preemption_storm.conditions[0].condition_threshold[0].filter, "user/${google_logging_metric.preemptions.name}\"")
    error_message = "What is counted is preemptions."
  }
}

run "nobody_is_told_unless_somebody_is_named" {
  command = plan

  assert {
    condition     = length(google_monitoring_notification_channel.email) == 0
    error_message = "Without an address there is no channel."
  }
}

run "all_alerts_go_to_who_is_named" {
  command = plan

  variables {
    alert_email = "ann@example.com"
  }

  assert {
    condition     = google_monitoring_notification_channel.email[0].labels.email_address == "ann@example.com"
    error_message = "The channel leads to the address."
  }

  assert {
    condition = alltrue([
      for policy in [
        google_monitoring_alert_policy.failed, google_monitoring_alert_policy.no_progress, google_monitoring_alert_policy.preemption_storm
      ] : policy.notification_channels == tolist(["projects/demo-project/notificationChannels/1"])
    ])
    error_message = "Every alert uses the channel."
  }
}
