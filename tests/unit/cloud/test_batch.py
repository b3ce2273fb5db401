"""A job as Batch describes it, read into the state that the policy decides on."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from google.cloud import batch_v1

from job.cloud.batch import Batch

MADE = datetime(2026, 12, 1, tzinfo=UTC)


def look(*states, description="Job state is set from {} to {} for job j.", hours=48):
    """Return what is read of a job that has gone through some states, in equal steps, and has no task."""
    step = timedelta(hours=hours) / (len(states) - 1)
    events = [
        batch_v1.StatusEvent(type_="STATUS_CHANGED", description=description.format(before, after), event_time=at)
        for before, after, at in zip(
            states, states[1:], (MADE + step * (n + 1) for n in range(len(states))), strict=False
        )
    ]
    job = batch_v1.Job(
        name="projects/p/locations/r/jobs/j", create_time=MADE, update_time=MADE + timedelta(hours=hours)
    )
    job.status.state, job.status.status_events = states[-1], events
    client = SimpleNamespace(get_job=lambda **_: job, get_task=lambda **_: batch_v1.Task())
    return Batch(client).look(job.name)


@pytest.mark.parametrize("last", ["FAILED", "CANCELLATION_IN_PROGRESS", "CANCELLED"])
def test_a_job_that_ended_in_its_queue_asked_for_no_machine(last):
    """It has no machine time, and has expired if Batch failed it after two days."""
    found = look("QUEUED", last)
    assert (found.scheduled_at, found.expired_in_queue) == (None, last == "FAILED")
    assert not look("QUEUED", last, hours=1).expired_in_queue


def test_machine_time_is_counted_from_the_first_request():
    """A job that was scheduled may have had a machine, and so may one without an event of it."""
    scheduled = look("QUEUED", "SCHEDULED", "FAILED")
    assert (scheduled.scheduled_at, scheduled.expired_in_queue) == (MADE + timedelta(hours=24), False)
    unsaid = look("QUEUED", "FAILED", description="The job has failed.")
    assert (unsaid.scheduled_at, unsaid.expired_in_queue) == (MADE, False)
