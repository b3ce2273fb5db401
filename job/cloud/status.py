"""Status of a run in the cloud: its submissions, their Batch jobs, its attempts and its progress.

Guarantees one `History` for the policy and the status: ends and progress from the bucket, machine states from Batch.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Literal

from job.cloud.allowance import Allowance
from job.cloud.budget import Limit, Prices, worst_s
from job.cloud.machine_types import Provisioning
from job.cloud.submission import Submission, Submissions
from job.errors import FIRST_OF_BATCH, KILLED, LOST_MACHINE, PREEMPTED, EndReason, ExitCode, RunConflictError
from job.runs import checkpoint
from job.runs.cost import cost_of, usd_of
from job.runs.listing import RunListing
from job.runs.records import AttemptRecord, CheckpointId, FinalRecord
from job.runs.run import Run
from job.text import HOUR
from job.training.position import Position

CANCELLING_S = 600
"""Longest duration of a cancellation, during which a machine is still billed."""

EXPIRY_S = 47 * HOUR
"""Batch gives up what has been queued for two days; what it refuses ends within minutes."""

OVER = {"SUCCEEDED", "FAILED", "CANCELLED"}
BEING_ENDED = {"CANCELLATION_IN_PROGRESS", "DELETION_IN_PROGRESS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """State of a Batch job."""

    uid: str
    state: str
    created_at: datetime
    scheduled_at: datetime | None
    """First request for a machine; None while the job is queued, and if it ended in its queue."""

    waiting_since: datetime | None
    """Start of the wait for a machine; None while there is one, or none is needed any more."""

    ended_at: datetime | None
    exit_codes: tuple[int, ...]
    """Exit codes of its attempts as far as Batch shows them, oldest first; after a success the last may be shown."""

    last_event: str
    """Batch's newest event that gives a reason, else its newest change of a state."""

    @property
    def over(self) -> bool:
        """Whether it is in a final state."""
        return self.state in OVER

    @property
    def exit_code(self) -> int | None:
        """The newest exit code that Batch shows."""
        return self.exit_codes[-1] if self.exit_codes else None

    @property
    def expired_in_queue(self) -> bool:
        """Whether Batch gave it up after its longest time in the queue."""
        if self.state != "FAILED" or self.scheduled_at is not None or self.ended_at is None:
            return False
        return (self.ended_at - self.created_at).total_seconds() >= EXPIRY_S


@dataclass(frozen=True, kw_only=True)
class SubmissionStatus:
    """A submission and the state of its job."""

    submission: Submission
    made: bool
    """Whether its job was created; a created job that does not exist now was deleted."""

    job: BatchJob | None
    usd_per_hour: float | None = None
    """Price for limits and costs; None if none is known."""

    @property
    def live(self) -> bool:
        """Whether its job exists and is not over."""
        return self.job is not None and not self.job.over

    def worst_s(self, now: datetime, *, going_on: bool) -> float:
        """Return the longest possible machine time in seconds, from the first request to the last end.

        If `going_on` it runs up to each of its limits; else it is cancelled now, or never created.
        """
        worst = worst_s(self.submission.max_retries, self.submission.max_run_s)
        if self.job is None:
            return worst if self.made or going_on else 0.0  # unknown for a deleted job
        if self.live and going_on:
            return worst
        if self.job.scheduled_at is None:
            return 0.0
        so_far = ((self.job.ended_at or now) - self.job.scheduled_at).total_seconds()
        return min(max(so_far, 0.0), worst) + (CANCELLING_S if self.live else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """State of an attempt, by its records."""

    number: int
    job: str | None
    """The id of its Batch job; None for an attempt elsewhere."""

    host: str
    claimed_at: datetime
    ended_at: datetime | None
    reason: EndReason
    """Why it ended; ``running`` if it is the newest and has no end record: Batch knows whether it does."""

    exit_code: int | None
    message: str
    position: Position | None

    @property
    def kind(self) -> Literal["preempted", "crashed", "other"]:
        """Whether it was preempted or failed by itself."""
        if self.reason in {EndReason.PREEMPTED, EndReason.INTERRUPTED, EndReason.VANISHED}:
            return "preempted"
        return "crashed" if self.reason in {EndReason.FAILED, EndReason.TRANSIENT} else "other"


@dataclass(frozen=True, kw_only=True)
class History:
    """Input of the retry policy."""

    run: str
    now: datetime
    submissions: tuple[SubmissionStatus, ...]
    attempts: tuple[Attempt, ...] = ()
    committed: CheckpointId | None = None
    committed_at: datetime | None = None
    num_epochs: int | None = None
    expected_s: float | None = None
    """The recipe's expected duration of the whole run."""

    final: FinalRecord | None = None
    used_usd: float | None = None
    """Dollars used by the attempts' records; None, which means unknown, if one has no price."""

    limit: Limit = field(default_factory=Limit)
    """Limit of all machines of the run together."""

    prices: Prices = field(default_factory=dict)
    """The user's own prices, which win over those on record."""

    deadline: datetime | None = None

    @property
    def newest(self) -> SubmissionStatus:
        """The current submission."""
        return self.submissions[-1]

    @property
    def by_hand_at(self) -> datetime:
        """Time of the last submission by hand; the first always is."""
        return time_of(self.submissions_of_this_try[0].submission.created_at)

    @cached_property
    def submissions_of_this_try(self) -> tuple[SubmissionStatus, ...]:
        """The submissions since the last one by hand, which answers earlier failures."""
        by_hand = [index for index, seen in enumerate(self.submissions) if seen.submission.by == "hand"]
        return self.submissions[max(by_hand, default=0) :]

    @property
    def of_this_try(self) -> tuple[Attempt, ...]:
        """The attempts since the last submission by hand."""
        jobs = {seen.submission.job_id for seen in self.submissions_of_this_try}
        return tuple(attempt for attempt in self.attempts if attempt.job in jobs)

    @property
    def committed_attempt(self) -> int:
        """The attempt that made the newest checkpoint; 0 if none made one."""
        return self.committed.attempt if self.committed else 0

    def attempts_in(self, seen: SubmissionStatus) -> tuple[Attempt, ...]:
        """Return the attempts that were part of a submission's job."""
        return self._attempts_by_job.get(seen.submission.job_id, ())

    @cached_property
    def _attempts_by_job(self) -> dict[str | None, tuple[Attempt, ...]]:
        """The attempts of each Batch job."""
        found: dict[str | None, list[Attempt]] = {}
        for attempt in self.attempts:
            found.setdefault(attempt.job, []).append(attempt)
        return {job: tuple(attempts) for job, attempts in found.items()}

    @cached_property
    def since_the_commit(self) -> tuple[SubmissionStatus, ...]:
        """The submissions of this try from the one that made the newest checkpoint on; all of them if none made one."""
        submissions = self.submissions_of_this_try
        return submissions[next((index for index, seen in enumerate(submissions) if self.has_committed(seen)), 0) :]

    def has_committed(self, seen: SubmissionStatus) -> bool:
        """Whether a submission made the newest checkpoint."""
        return any(attempt.number == self.committed_attempt for attempt in self.attempts_in(seen))

    def was_unfit(self, seen: SubmissionStatus) -> bool:
        """Whether a submission's job ended because its machine could not do the work.

        The last attempt may be one before that end, which came before a claim, or in another process than the first.
        """
        if seen.job is None or seen.job.state != "FAILED":
            return False
        recorded = [attempt.exit_code for attempt in self.attempts_in(seen)[-1:] if attempt.ended_at is not None]
        return ExitCode.ELSEWHERE in {*recorded, seen.job.exit_code}

    def had_no_chance(self, seen: SubmissionStatus) -> bool:
        """Whether a submission's job ended without a machine that was left to it long enough to claim the run.

        It was cancelled before, or the queue of flex-start gave none, or each was preempted.
        """
        if seen.job is None or self.attempts_in(seen):
            return False
        if seen.submission.placement.provisioning is Provisioning.FLEX_START and seen.job.expired_in_queue:
            return True
        codes = set(seen.job.exit_codes)
        return seen.job.state == "CANCELLED" or (PREEMPTED in codes and codes <= {PREEMPTED} | KILLED)

    @property
    def num_in_vain(self) -> int:
        """How many jobs in a row, up to the newest, failed before an attempt claimed the run or on an unfit machine.

        Those that had no machine show nothing of the run: they neither count nor end the row.
        """
        count = 0
        for seen in reversed(self.since_the_commit):
            if self.had_no_chance(seen):
                continue
            state, begun = seen.job.state if seen.job else "", bool(self.attempts_in(seen))
            if state != "FAILED" or (begun and not self.was_unfit(seen)):
                break
            count += 1
        return count

    @property
    def num_taken_early(self) -> int:
        """How many machines in a row, up to the newest job's, were preempted before an attempt claimed the run."""
        count = 0
        for seen in reversed(self.since_the_commit):
            if self.attempts_in(seen):
                break
            count += seen.job.exit_codes.count(PREEMPTED) if seen.job else 0
        return count

    def worst_hours(self, *, going_on: bool) -> float:
        """Return the longest possible machine hours of the run; `going_on` is that of `SubmissionStatus.worst_s`."""
        return sum(seen.worst_s(self.now, going_on=going_on) for seen in self.submissions) / HOUR

    def worst_usd(self, *, going_on: bool) -> float | None:
        """Return the cost of `worst_hours` in dollars; None, which means unknown, if one price is not known."""
        return usd_of((seen.worst_s(self.now, going_on=going_on), seen.usd_per_hour) for seen in self.submissions)

    @property
    def num_preemptions(self) -> int:
        """Number of preempted attempts, with notice or without; a cancelled job does not count."""
        cancelled = {seen.submission.job_id for seen in self.submissions if seen.job and seen.job.state == "CANCELLED"}
        newest = {attempt.job: attempt.number for attempt in self.attempts}
        taken: Counter[str | None] = Counter(
            attempt.job
            for attempt in self.attempts
            if attempt.kind == "preempted" and not (attempt.job in cancelled and newest[attempt.job] == attempt.number)
        )
        # A preemption before the claim is known to Batch alone, a recorded one to the bucket alone.
        lost: Counter[str | None] = Counter(job for job, code in self._exit_codes if code in LOST_MACHINE | KILLED)
        return max((taken | lost).total() - self._num_unrecorded_crashes, 0)

    @property
    def num_crashes(self) -> int:
        """Number of attempts that failed by themselves, unrecorded ones included."""
        return sum(attempt.kind == "crashed" for attempt in self.attempts) + self._num_unrecorded_crashes

    @property
    def _exit_codes(self) -> list[tuple[str, int]]:
        """The exit codes that Batch shows, each with its job's id."""
        jobs = [(seen.submission.job_id, seen.job) for seen in self.submissions if seen.job]
        return [(job_id, code) for job_id, job in jobs for code in job.exit_codes]

    @property
    def _num_unrecorded_crashes(self) -> int:
        """Return the number of exit codes without a preemption or end record, such as 139 for a crashed interpreter."""
        codes = Counter(code for _, code in self._exit_codes if code < FIRST_OF_BATCH and code not in KILLED)
        recorded = Counter(attempt.exit_code for attempt in self.attempts if attempt.exit_code is not None)
        return (codes - recorded).total()

    @property
    def remaining_s(self) -> float | None:
        """Seconds for the rest at the pace so far, lost work and starts included; None without a pace."""
        if self.num_epochs is None:
            return None
        if self.committed is None or self.committed_at is None or self.committed.epoch == 0:
            return self.expected_s
        counted = [attempt for attempt in self.attempts if attempt.number <= self.committed.attempt]
        ends = [attempt.ended_at or later.claimed_at for attempt, later in pairwise(counted)]
        spans = zip(counted, [*ends, self.committed_at], strict=False)
        # No span is negative, even if a clock was set back.
        spent_s = sum(max(0.0, (end - attempt.claimed_at).total_seconds()) for attempt, end in spans)
        return spent_s / self.committed.epoch * (self.num_epochs - self.committed.epoch)


def read_history(
    run: Run, look: Callable[[str], BatchJob | None], now: datetime, allowance: Allowance, deadline: str | None = None
) -> History:
    """Read the history of a run from the bucket and, by `look`, from Batch, as far as `allowance` reaches.

    Durations are counted to `now`; `deadline` replaces that of the newest submission.

    Raises:
        RunConflictError: If the run was never submitted, or not in this machine's project.
        CorruptObjectError: If one of its records has another form.
    """
    submissions = Submissions(run)
    seen = []
    for submission in submissions.list():
        allowance.require_place(submission)
        made = submissions.job_uid(submission.number) is not None
        job = look(submission.job_name) if made else None
        price = allowance.price(submission)
        seen.append(SubmissionStatus(submission=submission, made=made, job=job, usd_per_hour=price))
    if not seen:
        raise RunConflictError(f"run {run.name}: was never submitted to the cloud; `job submit --run {run.name}` does")
    newest = seen[-1].submission
    due = deadline or newest.deadline
    # In this order: a job that succeeded has its final record by then, and a final record all its attempts.
    final = run.final()
    listing = RunListing(run)
    final = final or listing.final()  # a success without it ends the run for good, so it is looked for twice
    record = listing.record()
    committed = checkpoint.committed(run)
    attempts = listing.attempts()
    hours = record.expect.get("hours") if record and record.request["profile"] == "full" else None
    return History(
        run=run.name,
        now=now,
        submissions=tuple(seen),
        attempts=tuple(_attempt(attempt, newest=attempt is attempts[-1]) for attempt in attempts),
        committed=committed[-1] if committed else None,
        committed_at=time_of(checkpoint.read_manifest(run, committed[-1]).committed_at) if committed else None,
        num_epochs=record.request["train"]["epochs"] if record else None,
        expected_s=hours[1] * HOUR if hours and hours[1] else None,
        final=final,
        used_usd=cost_of(attempts, now.isoformat()).usd,
        limit=allowance.limit_of(newest),
        prices=allowance.settings.prices,
        deadline=time_of(due) if due else None,
    )


def time_of(text: str) -> datetime:
    """Read a recorded time."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _attempt(record: AttemptRecord, *, newest: bool) -> Attempt:
    end = record.end
    return Attempt(
        number=record.number,
        job=record.claim.cloud_job,
        host=record.claim.host,
        claimed_at=time_of(record.claim.claimed_at),
        ended_at=time_of(end.ended_at) if end else None,
        reason=record.state(newest=newest),
        exit_code=end.exit_code if end else None,
        message=end.message if end else "",
        position=record.position if end else None,
    )
