"""``job supervise``, ``job status``, ``job logs`` and ``job cancel``: supervision of a submitted run."""

import logging
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from job.cli.command import command
from job.cli.options import Deadline, Dollars, LimitOptions, SubmittedRunOptions
from job.cloud.allowance import load_allowance
from job.cloud.budget import Limit
from job.cloud.policy import decide
from job.cloud.settings import imported_settings
from job.cloud.status import Attempt, History, SubmissionStatus
from job.cloud.submission import Submissions
from job.errors import (
    JobError,
    RunConflictError,
    RunFailedError,
    RunStoppedError,
    TransientCloudError,
    TransientStoreError,
    UsageError,
)
from job.runs.flags import Count, Problem, Seconds, reads
from job.runs.notification import NotifyOption, Webhook
from job.runs.run import Run
from job.text import counted, duration, table

if TYPE_CHECKING:
    from job.cloud.supervisor import Supervisor

log = logging.getLogger(__name__)

POLL_S = 60.0
"""Default seconds between two polls of a run."""

SCHEDULE = r"^projects/[^/]+/locations/[^/]+/jobs/[\w-]+$"


class SuperviseOptions(LimitOptions, NotifyOption, SubmittedRunOptions):
    """Flags of ``job supervise``."""

    max_usd: Dollars | None = Field(
        None,
        description="Replaces the limit of its submission, which may be no higher than that of the settings.",
    )
    resume: bool = Field(default=False, description="Resume a run that was cancelled or given up.")
    deadline: Deadline | None = Field(None, description="Replaces the deadline of its submission.")
    poll_s: Seconds = Field(POLL_S, alias="poll", description="Seconds between two looks at the run.")
    once: bool = Field(default=False, description="Take one look, act on it, and exit.")
    given: Annotated[dict[str, object], reads(imported_settings)] | None = Field(
        None,
        alias="settings",
        description="The settings of another machine, as `job settings` prints them there; win over files.",
    )
    schedule: Annotated[str, Field(pattern=SCHEDULE, description="projects/P/locations/R/jobs/NAME")] | None = Field(
        None, description="With --once: the Cloud Scheduler job that starts it, to be paused once the run has ended."
    )

    @property
    def settings(self) -> dict[str, object]:
        """The settings that were given as one or as flags, by name."""
        return (self.given or {}) | super().settings

    @model_validator(mode="after")
    def _require_once(self) -> Self:
        if self.schedule is not None and not self.once:
            raise Problem(UsageError("--schedule: starts one look after the other; pass --once too"))
        return self


class LogsOptions(SubmittedRunOptions):
    """Flags of ``job logs``."""

    submission: Count | None = Field(
        None, description="The number of one Batch job of the run; all of them if left out."
    )


@command(SuperviseOptions, "job supervise zebra --bucket gs://my-bucket")
def supervise(options: SuperviseOptions) -> None:
    """Keep a run going until it is finished, failed for good, or at its limit.

    A record of the bucket is obeyed only as far as the settings of this machine allow it.
    """
    supervisor = _supervisor(
        options, options.limit, poll_s=options.poll_s, deadline=options.deadline, webhook=options.notify
    )
    if options.resume:
        supervisor.resume()
    print(describe(_look_once(supervisor, options.schedule) if options.once else supervisor.watch()))


def _look_once(supervisor: "Supervisor", schedule: str | None) -> History:
    """Look and act once; pause the schedule, if there is one, at the run's end and at an error that will not pass."""
    from job.cloud.schedule import pause

    try:
        history, decision = supervisor.step()
    except (TransientCloudError, TransientStoreError):
        raise
    except JobError as error:
        if not isinstance(error, RunFailedError | RunStoppedError):
            supervisor.announce_error(error)
        pause(schedule)
        raise
    if decision.do == "finish":
        pause(schedule)
    return history


@command(SubmittedRunOptions, "job status zebra --bucket gs://my-bucket")
def status(options: SubmittedRunOptions) -> None:
    """Print a run's state, its submissions and attempts, its cost, and the next step."""
    print(describe(_supervisor(options).history()))


def describe(history: History) -> str:
    """Return the state of a run as lines."""
    decision, hours = decide(history), history.worst_hours(going_on=True)
    usd, worst_usd = history.used_usd, history.worst_usd(going_on=True)
    used = "unknown, a machine has no price," if usd is None else f"{usd:.2f} USD"
    worst = "price unknown" if worst_usd is None else f"{worst_usd:.2f} USD"
    progress = f"epoch {history.committed.epoch}" if history.committed else "nothing committed yet"
    if history.committed and history.committed.batch:
        progress += f", batch {history.committed.batch}"
    if history.num_epochs is not None:
        progress += f", of {counted(history.num_epochs, 'epoch')}"
    lines = [f"run         {history.run}", f"state       {decision.do}: {decision.reason}"]
    lines.append(f"committed   {progress}")
    if history.final is None and history.remaining_s is not None:
        lines.append(f"remaining   {duration(history.remaining_s)} at the pace so far")
    if history.deadline is not None:
        lines.append(f"deadline    {history.deadline.isoformat(timespec='minutes')}")
    lines += [
        f"used        {used} by the records of the attempts",
        f"worst       {hours:.1f} machine hours, {worst}; limit {history.limit}",
        f"ended       {counted(history.num_preemptions, 'time')} by preemption, {history.num_crashes} by a crash",
        "",
        *_submission_lines(history),
        "",
        *attempt_lines(history.attempts),
    ]
    return "\n".join(lines).rstrip()


@command(LogsOptions, "job logs zebra --bucket gs://my-bucket")
def logs(options: LogsOptions) -> None:
    """Print the lines of one submission's job, or of all, oldest first."""
    from job.cloud.logs import read_lines

    name = options.run
    run, allowance = Run(options.store(), name), load_allowance(options.settings)
    chosen = [entry for entry in Submissions(run).list() if options.submission in {None, entry.number}]
    if not chosen:
        raise RunConflictError(f"run {name}: has no such submission; `job status {name}` lists them")
    for entry in chosen:
        allowance.require_place(entry)
        uid = Submissions(run).job_uid(entry.number)
        if uid is not None:
            for line in read_lines(allowance.settings.project, uid):
                print(line)


@command(SubmittedRunOptions, "job cancel zebra --bucket gs://my-bucket")
def cancel(options: SubmittedRunOptions) -> None:
    """Cancel a run's job.

    Committed checkpoints stay, and `job supervise --resume` continues the run.
    """
    name, supervisor = options.run, _supervisor(options)
    live = [seen.submission for seen in supervisor.history().submissions if seen.live]
    if not live:
        log.info("run %s: no job of it is running", name)
    for submission in live:
        supervisor.batch.cancel(submission.job_name)
        log.info("cancelling %s; `job supervise %s --resume` resumes from the last checkpoint", submission.job_id, name)


def attempt_lines(attempts: tuple[Attempt, ...]) -> list[str]:
    """Return a table of attempts."""
    rows = [("attempt", "job", "claimed", "ended", "how", "at")]
    for attempt in attempts:
        ended = f"{attempt.ended_at:%d %b %H:%M:%S}" if attempt.ended_at else ""
        position = f"epoch {attempt.position[0]}, batch {attempt.position[1]}" if attempt.position else ""
        where, claimed = attempt.job or f"elsewhere, {attempt.host}", f"{attempt.claimed_at:%d %b %H:%M:%S}"
        rows.append((str(attempt.number), where, claimed, ended, attempt.reason, position))
    return table(rows) if attempts else ["no attempt has claimed the run yet"]


def _submission_lines(history: History) -> list[str]:
    rows = [("submission", "job", "where", "why", "state", "machine time")]
    for seen in history.submissions:
        entry, machine_time = seen.submission, ""
        if seen.job is not None and seen.job.scheduled_at is not None:
            end = seen.job.ended_at or history.now
            machine_time = duration(max(0.0, (end - seen.job.scheduled_at).total_seconds()))
        place = str(entry.placement)
        rows.append((str(entry.number), entry.job_id, place, entry.reason, _state(seen), machine_time))
    return table(rows)


def _state(seen: SubmissionStatus) -> str:
    if seen.job is None:
        return "deleted" if seen.made else "not made yet"
    return seen.job.state.lower() + (", no machine yet" if seen.job.waiting_since else "")


def _supervisor(
    options: SubmittedRunOptions,
    limit: Limit | None = None,
    *,
    poll_s: float = POLL_S,
    deadline: str | None = None,
    webhook: Webhook | None = None,
) -> "Supervisor":
    from job.cloud.batch import Batch
    from job.cloud.supervisor import Supervisor

    allowance, run = load_allowance(options.settings, limit), Run(options.store(), options.run)
    return Supervisor(
        run=run, batch=Batch.connect(), allowance=allowance, poll_s=poll_s, deadline=deadline, webhook=webhook
    )
