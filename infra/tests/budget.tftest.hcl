mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project = "demo-project"
}

run "without_a_budget_no_right_on_the_billing_account_is_needed" {
  command = plan

  assert {
    condition     = length(google_billing_budget.month) == 0 && !contains(keys(google_project_service.api), "billingbudgets.googleapis.com")
    error_message = "The budget is optional, with its API."
  }
}

run "a_budget_is_that_of_this_project_for_a_month" {
  command = plan

  variables {
    alert_email = "ann@example.com"
    budget      = { billing_account = "012345-6789AB-CDEF01", amount = 200 }
  }

  assert {
    condition = (
      google_billing_budget.month[0].billing_account == "012345-6789AB-CDEF01"
      && google_billing_budget.month[0].budget_filter[0].projects == toset(["projects/123"])
      && google_billing_budget.month[0].budget_filter[0].calendar_period == "MONTH"
      && google_billing_budget.month[0].amount[0].specified_amount[0].units == "200"
    )
    error_message = "The budget counts what this project costs in a month."
  }

  assert {
    condition     = google_billing_budget.month[0].all_updates_rule[0].monitoring_notification_channels == tolist(["projects/demo-project/notificationChannels/1"])
    error_message = "Who is told of alerts is told of this too."
  }
}

run "a_budget_without_an_address_tells_the_owners_of_the_billing_account" {
  command = plan

  variables {
    budget = { billing_account = "012345-6789AB-CDEF01", amount = 200 }
  }

  assert {
    condition     = length(google_billing_budget.month[0].all_updates_rule) == 0
    error_message = "Without a channel there is no rule, and Google tells those that it tells by default."
  }
}
