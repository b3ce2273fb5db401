"""Cloud Batch on this machine: the real gRPC API, real processes or containers, and real kills.

Speaks the service's own messages, so that Google's client talks to it. A job's attempts run one after the other, each
in an empty folder as on a new machine, and are tried again as Batch does: by the lifecycle policy and the retry count,
all causes together. What a job looks like (states, events, exit codes 50001 and 50005, a success that leaves the last
failure's code behind) follows what is known of the real service.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from google.cloud import batch_v1
from google.longrunning import operations_pb2

from tests.support.cli_process import wait_until
from tests.support.fake_vm import HELD, Machine, start_container, start_process

PREEMPTED, TOO_LONG, CANCELLED = 50001, 50005, -1
QUEUE = timedelta(days=2)
"""Longest time of a job in the queue."""

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
State = batch_v1.JobStatus.State
TaskState = batch_v1.TaskStatus.State


@dataclass(eq=False)
class FakeJob:
    """A job, what Batch says of it, and the machine that it is on."""

    job: batch_v1.Job
    task: batch_v1.Task
    request_id: str
    machine: Machine | None = None
    num_attempts: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)


class FakeBatch:
    """The service.

    Args:
        folder: For the disks of machines, and what the attempts say: ``JOB-ATTEMPT.log``.
        program: What stands for the image's entry point when there is no engine.
        environment: What every machine has besides the job's own variables.
        engine: ``docker`` or ``podman``, to run the job's image in.
        image: An image on this machine in place of the job's.
        metadata: Makes the metadata server of a new machine: its variables, and what gives it the notice.
    """

    def __init__(
        self,
        folder: Path,
        program: Sequence[str] = (sys.executable, "-m", "job"),
        environment: Mapping[str, str] = {},
        engine: str | None = None,
        image: str | None = None,
        metadata: Callable[[], tuple[dict[str, str], Callable[[], None]]] = lambda: ({}, lambda: None),
    ) -> None:
        self.folder, self.program, self.environment = folder, program, environment
        self.engine, self.image, self.metadata = engine, image, metadata
        self.host = ""
        self.jobs: dict[str, FakeJob] = {}
        self.without_capacity: set[str] = set()
        """Regions that give no machine."""

        self.refusals: list[grpc.StatusCode] = []
        """Refusals of the next calls."""

        self.broken: str | None = None
        """Why jobs fail before their first machine, in the service's words."""

        self.num_to_expire = 0
        """Number of next jobs that are given up after two days in the queue."""

        self.delay: str | None = None
        """Why jobs wait where there is no machine, in the service's words."""

        self.most_retries = 10
        """The most retries, for any job."""

        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    # The API

    def create_job(self, request: batch_v1.CreateJobRequest, context: grpc.ServicerContext) -> batch_v1.Job:
        name = f"{request.parent}/jobs/{request.job_id}"
        problem = problem_with(request)
        if problem:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        with self._changed:
            known = self.jobs.get(name)
            if known is not None:
                if known.request_id == request.request_id:
                    return known.job
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Resource '{name}' already exists")
            job = batch_v1.Job(request.job)
            job.name, job.uid, job.create_time = name, f"{request.job_id}-{uuid.uuid4().hex[:8]}", datetime.now(UTC)
            job.update_time = job.create_time
            job.status.state = State.QUEUED
            task = batch_v1.Task(name=f"{name}/taskGroups/group0/tasks/0")
            task.status.state = TaskState.PENDING
            fake = self.jobs[name] = FakeJob(job, task, request.request_id)
        thread = threading.Thread(target=self._run, args=[fake], daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def get_job(self, request: batch_v1.GetJobRequest, context: grpc.ServicerContext) -> batch_v1.Job:
        return self._find(request.name, context).job

    def get_task(self, request: batch_v1.GetTaskRequest, context: grpc.ServicerContext) -> batch_v1.Task:
        fake = self._find(request.name.partition("/taskGroups/")[0], context)
        if fake.job.status.state in {State.QUEUED, State.SCHEDULED}:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Resource '{request.name}' was not found")
        return fake.task

    def cancel_job(self, request: batch_v1.CancelJobRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        fake = self._find(request.name, context)
        with self._changed:
            if fake.ended.is_set():
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the job is in a final state")
            self._set(fake, State.CANCELLATION_IN_PROGRESS)
            fake.cancelled.set()
            self._changed.notify_all()
        if fake.machine is not None:
            fake.machine.end(CANCELLED)
        return operations_pb2.Operation(name=f"{request.name}/operations/cancel")

    def delete_job(self, request: batch_v1.DeleteJobRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        fake = self._find(request.name, context)
        if not fake.ended.is_set():
            self.cancel_job(batch_v1.CancelJobRequest(name=request.name), context)
            fake.ended.wait()
        del self.jobs[request.name]
        return operations_pb2.Operation(name=f"{request.name}/operations/delete")

    # What a test or the drill does to it

    def preempt(
        self,
        name: str,
        *,
        notice_s: float | None = None,
        enough: Callable[[], bool] = lambda: False,
        code: int | None = PREEMPTED,
    ) -> bool:
        """Take a job's machine away; false if it has none.

        Args:
            name: The job.
            notice_s: Seconds between notice and kill; without them there is no notice.
            enough: Ends the notice early, for tests that need not wait for what comes after.
            code: What Batch says of the attempt; nothing if the container's own end wins the race.
        """
        fake = self.jobs[name]
        machine = fake.machine
        if machine is None:
            return False
        machine.end(code, notice_s, enough)
        wait_until(lambda: fake.machine is not machine)
        return True

    def give_capacity(self, region: str) -> None:
        """Give machines again in a region."""
        with self._changed:
            self.without_capacity.discard(region)
            self._changed.notify_all()

    def stop(self) -> None:
        """Take every machine away and wait for every job's end."""
        for fake in list(self.jobs.values()):
            with self._changed:  # or a machine could be started and never ended
                fake.cancelled.set()
                self._changed.notify_all()
            if fake.machine is not None:
                fake.machine.end(CANCELLED)
        for thread in self._threads:
            thread.join()

    # The life of a job

    def _run(self, fake: FakeJob) -> None:
        spec = fake.job.task_groups[0].task_spec
        region = fake.job.name.split("/")[3]
        if self.num_to_expire:
            self.num_to_expire -= 1
            fake.job.create_time = datetime.now(UTC) - QUEUE
            self._set(fake, State.FAILED, final=True)
            return
        self._set(fake, State.SCHEDULED)
        if self.broken is not None:
            self._say(fake, self.broken)
            self._set(fake, State.FAILED, final=True)
            return
        num_retries = min(spec.max_retry_count, self.most_retries)
        for attempt in range(num_retries + 1):
            if self.delay is not None and region in self.without_capacity:
                self._say(fake, self.delay)
            with self._changed:
                self._changed.wait_for(lambda: region not in self.without_capacity or fake.cancelled.is_set())
            if fake.cancelled.is_set():
                break
            if attempt == 0:
                self._set(fake, State.RUNNING)
            code = self._attempt(fake, attempt)
            if fake.cancelled.is_set():
                break
            if code == 0:
                self._set_task(fake, TaskState.SUCCEEDED)
                self._set(fake, State.SUCCEEDED, final=True)
                return
            policy = spec.lifecycle_policies[0]
            fatal = code in policy.action_condition.exit_codes  # FAIL_TASK: everything else is tried again
            if fatal or attempt == num_retries:
                self._set_task(fake, TaskState.FAILED, code)
                self._set(fake, State.FAILED, final=True)
                return
            self._set_task(fake, TaskState.PENDING, code)
        self._set(fake, State.CANCELLED, final=True)

    def _attempt(self, fake: FakeJob, attempt: int) -> int:
        spec = fake.job.task_groups[0].task_spec
        disk = Path(tempfile.mkdtemp(dir=self.folder))
        variables, notify = self.metadata()
        variables = {
            **self.environment,
            **dict(spec.environment.variables),
            "BATCH_TASK_COUNT": "1",
            "BATCH_TASK_INDEX": "0",
            "BATCH_TASK_RETRY_ATTEMPT": str(attempt),
            **variables,
        }
        container = spec.runnables[0].container
        job_id = fake.job.name.rpartition("/")[2]
        with (self.folder / f"{job_id}-{attempt}.log").open("wb") as said:
            with self._changed:
                if fake.cancelled.is_set():
                    return CANCELLED
                if self.engine:
                    words = [*container.options.split(), self.image or container.image_uri, *container.commands]
                    machine = start_container(self.engine, words, variables, said, notify)
                else:
                    machine = start_process([*self.program, *container.commands], variables, disk, said, notify)
                fake.machine, fake.num_attempts = machine, attempt + 1
            self._set_task(fake, TaskState.RUNNING)
            # A time limit counts only what holds, so that no slow machine reaches it.
            wait_until(lambda: machine.process.poll() is not None or (disk / HELD).exists())
            try:
                code = machine.process.wait(spec.max_run_duration.total_seconds())
            except subprocess.TimeoutExpired:
                machine.end(TOO_LONG)
                code = TOO_LONG
        fake.machine = None
        shutil.rmtree(disk, ignore_errors=True)
        if machine.verdict is not None:
            return machine.verdict
        return code if code >= 0 else 128 - code

    def _find(self, name: str, context: grpc.ServicerContext) -> FakeJob:
        if name not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Resource '{name}' was not found")
        return self.jobs[name]

    def _set(self, fake: FakeJob, state: State, *, final: bool = False) -> None:
        with self._changed:
            if fake.job.status.state == State.CANCELLATION_IN_PROGRESS and not final:
                return
            fake.job.status.status_events.append(
                batch_v1.StatusEvent(
                    type_="STATUS_CHANGED",
                    description=f"Job state is set from {fake.job.status.state.name} to {state.name} for job "
                    f"{fake.job.name}.",
                    event_time=datetime.now(UTC),
                )
            )
            fake.job.status.state = state
            fake.job.update_time = datetime.now(UTC)
            if final:
                fake.ended.set()

    def _say(self, fake: FakeJob, description: str) -> None:
        """Note something that changes no state."""
        with self._changed:
            fake.job.status.status_events.append(
                batch_v1.StatusEvent(type_="OPERATIONAL_INFO", description=description, event_time=datetime.now(UTC))
            )

    def _set_task(self, fake: FakeJob, state: TaskState, exit_code: int = 0) -> None:
        """Note the task's state; only a failure has an exit code, and it stays when the task succeeds later."""
        event = batch_v1.StatusEvent(
            type_="STATUS_CHANGED",
            description=f"Task state is updated from {fake.task.status.state.name} to {state.name}"
            + (f" with exit code {exit_code}" if exit_code else ""),
            event_time=datetime.now(UTC),
            task_state=state,
        )
        if exit_code:
            event.task_execution = batch_v1.TaskExecution(exit_code=exit_code)
        with self._changed:
            fake.task.status.status_events.append(event)
            fake.task.status.state = state


def problem_with(request: batch_v1.CreateJobRequest) -> str | None:
    """Return what the service would refuse about a job, or nothing."""
    region = request.parent.rpartition("/")[2]
    if not NAME.fullmatch(request.job_id):
        return f"job_id {request.job_id!r} is invalid"
    uuid.UUID(request.request_id)
    if len(request.job.task_groups) != 1:
        return "exactly one task group is required"
    spec = request.job.task_groups[0].task_spec
    if not 0 <= spec.max_retry_count <= 10:
        return "max_retry_count must be in [0, 10]"
    if len(spec.lifecycle_policies) > 1:
        return "only one lifecycle policy is supported"
    outside = [
        place
        for place in request.job.allocation_policy.location.allowed_locations
        if not re.fullmatch(rf"regions/{region}|zones/{region}-[a-z]", place)
    ]
    return f"allowed locations {outside} are not in {region}" if outside else None


@contextmanager
def running_batch(fake: FakeBatch) -> Iterator[FakeBatch]:
    """Serve the API on a free port of this machine until the end of the block."""

    def method(call, request, response):
        def answer(message, context):
            if fake.refusals:
                context.abort(fake.refusals.pop(0), "as the test wants it")
            return call(message, context)

        return grpc.unary_unary_rpc_method_handler(answer, request.deserialize, response)

    def operation(message: operations_pb2.Operation) -> bytes:
        return message.SerializeToString()

    methods = {
        "CreateJob": method(fake.create_job, batch_v1.CreateJobRequest, batch_v1.Job.serialize),
        "GetJob": method(fake.get_job, batch_v1.GetJobRequest, batch_v1.Job.serialize),
        "GetTask": method(fake.get_task, batch_v1.GetTaskRequest, batch_v1.Task.serialize),
        "CancelJob": method(fake.cancel_job, batch_v1.CancelJobRequest, operation),
        "DeleteJob": method(fake.delete_job, batch_v1.DeleteJobRequest, operation),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handler = grpc.method_handlers_generic_handler("google.cloud.batch.v1.BatchService", methods)
    server.add_generic_rpc_handlers([handler])
    fake.host = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield fake
    finally:
        fake.stop()
        server.stop(None).wait()
