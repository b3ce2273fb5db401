"""Client of Cloud Batch: create, read and cancel jobs.

Guarantees that creating a job twice creates one, and that every error is a `JobError` with its remedy, a missing
library or missing credentials included. Knows nothing of runs. ``BATCH_EMULATOR_HOST`` names another server, as the
variables of that kind do for Google's other clients.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from job.cloud.status import OVER, BatchJob
from job.errors import CloudError, MachineError, RunConflictError, TransientCloudError

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # it writes to stderr by itself
try:
    import grpc
    from google.api_core import exceptions
    from google.api_core.retry import Retry, if_exception_type
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud import batch_v1
    from google.cloud.batch_v1.services.batch_service.transports import BatchServiceGrpcTransport
except ImportError as error:
    raise MachineError(
        f"Cloud Batch: the package {error.name} is missing; install the extra `cloud`, which `make submit` does by "
        "itself"
    ) from error

NO_MACHINE_YET = {"QUEUED", "SCHEDULED"}
"""States of a job before its first machine."""

STATUS_CHANGED = "STATUS_CHANGED"

ENDED_IN_QUEUE = re.compile(r"from QUEUED to (FAILED|CANCEL|DELETION)")

WAITING_TASK = "PENDING"
"""State of the task while its job has no machine for it, also after a preemption."""


class Batch:
    """The jobs of Cloud Batch, by their full names; every method raises `CloudError` if Batch refuses."""

    def __init__(self, client: batch_v1.BatchServiceClient) -> None:
        self._client = client

    @classmethod
    def connect(cls) -> "Batch":
        """Return a client with this machine's credentials; raises `MachineError` if they are missing."""
        if host := os.environ.get("BATCH_EMULATOR_HOST"):
            channel = grpc.insecure_channel(host)
            return cls(batch_v1.BatchServiceClient(transport=BatchServiceGrpcTransport(channel=channel)))
        try:
            return cls(batch_v1.BatchServiceClient())
        except DefaultCredentialsError as error:
            raise MachineError(
                "Cloud Batch: there are no credentials on this machine; run `gcloud auth application-default login`"
            ) from error

    def make(self, name: str, spec: Mapping[str, object], request_id: str) -> BatchJob:
        """Make a job, whose specification has the label ``digest``, or return that of an equal request, by its UUID.

        Raises:
            RunConflictError: If a job of that name exists and is another one.
        """
        parent, _, job_id = name.rpartition("/jobs/")
        job = batch_v1.Job.from_json(json.dumps(spec))
        request = batch_v1.CreateJobRequest(parent=parent, job_id=job_id, job=job, request_id=request_id)
        # The client has no retry of its own for this call; name and request id make it safe.
        transient = if_exception_type(exceptions.ServiceUnavailable, exceptions.DeadlineExceeded)
        with _explained(name):
            try:
                return self._read(self._client.create_job(request, retry=Retry(predicate=transient, timeout=120)))
            except exceptions.AlreadyExists:
                existing = self._client.get_job(name=name)
        if existing.labels.get("digest") != job.labels["digest"]:
            raise RunConflictError(f"{name}: exists and is another job; cancel that, or choose another --run")
        return self._read(existing)

    def look(self, name: str) -> BatchJob | None:
        """Return a job, or None if there is none."""
        with _explained(name):
            try:
                return self._read(self._client.get_job(name=name))
            except exceptions.NotFound:
                return None

    def cancel(self, name: str) -> None:
        """Ask for a job to be cancelled; no error if it has ended or does not exist."""
        with _explained(name), contextlib.suppress(exceptions.NotFound, exceptions.FailedPrecondition):
            self._client.cancel_job(name=name)

    def _read(self, job: batch_v1.Job) -> BatchJob:
        """Return the state of a job and of its one task."""
        state = job.status.state.name
        events = sorted(job.status.status_events, key=lambda event: event.event_time)
        task_events, task_state = [], ""
        if state not in NO_MACHINE_YET:
            with contextlib.suppress(exceptions.NotFound):  # there is no task before the first machine
                task = self._client.get_task(name=f"{job.name}/taskGroups/group0/tasks/0")
                task_events = sorted(task.status.status_events, key=lambda event: event.event_time)
                task_state = task.status.state.name
        waiting = None
        if state in NO_MACHINE_YET:
            waiting = _last_change(events) or job.create_time
        elif state == "RUNNING" and task_state == WAITING_TASK:
            waiting = _last_change(task_events) or job.create_time
        ended = job.update_time if state in OVER else None
        return BatchJob(
            uid=job.uid,
            state=state,
            created_at=datetime.fromtimestamp(job.create_time.timestamp(), UTC),
            scheduled_at=_time(_scheduled_at(job, events)),
            waiting_since=_time(waiting),
            ended_at=_time(ended),
            exit_codes=tuple(event.task_execution.exit_code for event in task_events if event.task_execution.exit_code),
            last_event=_newest_reason(events, task_events),
        )


def _scheduled_at(job: batch_v1.Job, events: Sequence[batch_v1.StatusEvent]) -> datetime | None:
    """Return the first request for a machine; None if the job waits in its queue, or ended there.

    Without an event of either it is the earliest possible time.
    """
    scheduled = next((event.event_time for event in events if "SCHEDULED" in event.description), None)
    in_queue = job.status.state.name == "QUEUED" or any(ENDED_IN_QUEUE.search(event.description) for event in events)
    return None if scheduled is None and in_queue else scheduled or job.create_time


def _last_change(events: Sequence[batch_v1.StatusEvent]) -> datetime | None:
    """Return when the state changed last; events that repeat a reason are no change."""
    return next((event.event_time for event in reversed(events) if event.type_ == STATUS_CHANGED), None)


def _newest_reason(events: Sequence[batch_v1.StatusEvent], task_events: Sequence[batch_v1.StatusEvent]) -> str:
    """Return the newest event that gives a reason; without one the newest change of a state, of the task if it has one.

    Events that change a state are of the type ``STATUS_CHANGED``; others give the reason for waiting.
    """
    reasons = [event for event in (*events, *task_events) if event.type_ != STATUS_CHANGED]
    found = sorted(reasons, key=lambda event: event.event_time) or list(task_events or events)
    return " ".join(found[-1].description.split()) if found else ""


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Raise the client's errors as `JobError`."""
    try:
        yield
    except exceptions.PermissionDenied as error:
        raise CloudError(
            f"{name}: Batch refuses, {error.message}; this account needs roles/batch.jobsEditor on the project and "
            "roles/iam.serviceAccountUser on the job's service account"
        ) from error
    except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError) as error:
        raise TransientCloudError(f"{name}: Batch did not answer, {error}; try again later") from error
    except exceptions.GoogleAPICallError as error:
        raise CloudError(f"{name}: Batch refuses, {error.message}; correct what it names") from error
    except GoogleAuthError as error:
        raise MachineError(
            f"Cloud Batch: the credentials are not accepted, {error}; run `gcloud auth application-default login`"
        ) from error


def _time(stamp: datetime | None) -> datetime | None:
    """Return a time of the client as the standard library's type."""
    return datetime.fromtimestamp(stamp.timestamp(), tz=stamp.tzinfo) if stamp else None
