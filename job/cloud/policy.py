"""Retry policy of a run in the cloud: the next action as a pure function of its history.

Guarantees that a run is given up only for a reason that no retry removes, that retries are bounded and back off, that
the limit is never exceeded, and that success is judged by the bucket, never by an exit code. The first of `RULES` with
an answer decides. Knows nothing of clients and clocks.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from job.cloud.budget import START_UP_S, Limit, durations_within, require_price
from job.cloud.machine_types import find_machine
from job.cloud.status import BEING_ENDED, History, SubmissionStatus
from job.cloud.submission import Placement
from job.errors import FATAL, KILLED, LOST_MACHINE, TIME_LIMIT, ExitCode, RunStoppedError, UsageError

PATIENCE_S = 1200
"""Wait for a machine before another region or machine type is tried."""

DEADLINE_RESERVE_S = 1800
"""Reserve before the deadline at which on demand replaces Spot."""

STUCK_ATTEMPTS = 5
"""Attempts without a checkpoint, and not preempted, that count as a loop."""

JOBS_WITHOUT_ATTEMPT = 3
"""Jobs in a row that failed before an attempt claimed the run, after which the run is given up."""

MOVES = 3
"""Moves to another machine after unfit ones in a row; one more unfit machine ends the run."""

PAUSE_S, LONGEST_PAUSE_S = 60, 3600
"""Back-off before the job that follows one without a checkpoint; doubles with each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The next action and its reason, for the log and the record."""

    do: Literal["wait", "create", "cancel", "submit", "finish", "fail", "stop"]
    """``create`` makes the newest submission's job; ``cancel`` ends the job of the one before; ``submit`` records the
    next submission; ``finish`` is the good end; ``fail`` gives the run up; ``stop`` leaves it to be continued."""

    reason: str
    placement: Placement | None = None
    """Placement of the next submission."""


Rule = Callable[[History], Decision | None]


def decide(history: History) -> Decision:
    """Return the next action; the history has at least one submission."""
    for rule in RULES:
        decision = rule(history)
        if decision is not None:
            return decision
    return _go_on(history)


def _finished(history: History) -> Decision | None:
    """The final record is in the bucket."""
    if history.final is None:
        return None
    return Decision(do="finish", reason=f"finished after {history.final.num_epochs} epochs")


def _recorded_only(history: History) -> Decision | None:
    """The newest submission has no job yet: its job is created once the one before has ended."""
    if history.newest.made:
        return None
    before = history.submissions[-2].job if len(history.submissions) > 1 else None
    if before is None or before.over:
        if too_much := _beyond_limit(history, going_on=True):
            return Decision(do="stop", reason=f"submission {history.newest.submission.number} {too_much}")
        return Decision(do="create", reason=history.newest.submission.reason)
    if before.state in BEING_ENDED:
        return Decision(do="wait", reason="the submission before is being cancelled")
    return Decision(do="cancel", reason=history.newest.submission.reason)


def _fenced(history: History) -> Decision | None:
    """An attempt outside of these jobs holds the claim: two would supersede each other forever."""
    last = history.attempts[-1] if history.attempts else None
    if last is None or last.reason != "running" or last.job in {seen.submission.job_id for seen in history.submissions}:
        return None
    if last.claimed_at <= history.by_hand_at:
        return None  # an earlier attempt, from which this submission takes over
    return Decision(
        do="stop",
        reason=f"attempt {last.number} on {last.host} has claimed the run, not one of this job; it continues there",
    )


def _paused(history: History) -> Decision | None:
    """A person paused the run, and the newest attempt has ended."""
    last = history.of_this_try[-1] if history.of_this_try else None
    if last is None or last.reason != "paused":
        return None
    return Decision(do="wait" if history.newest.live else "stop", reason=f"attempt {last.number} was paused, as asked")


def _failed(history: History) -> Decision | None:
    """An attempt ended with a fatal exit code."""
    job, submission = history.newest.job, history.newest.submission
    last = next((attempt for attempt in reversed(history.attempts) if attempt.job == submission.job_id), None)
    if last is not None and last.reason == "failed" and last.exit_code in FATAL:
        reason = f"attempt {last.number} ended with exit {last.exit_code}, {last.message}"
        return Decision(do="wait" if history.newest.live else "fail", reason=reason)  # Batch fails the job by itself
    unrecorded = last is None or last.reason in {"running", "vanished"}
    if job and job.state == "FAILED" and unrecorded and job.exit_codes and job.exit_codes[-1] in FATAL:
        return Decision(do="fail", reason=f"exit {job.exit_codes[-1]} before anything was recorded; see its log")
    if job and job.state == "SUCCEEDED":
        return Decision(do="fail", reason="the job succeeded, and the bucket has no final.json; see its log")
    return None


def _in_vain(history: History) -> Decision | None:
    """Jobs in a row failed before an attempt claimed the run, or each on a machine that was unfit."""
    newest, num_jobs = history.newest, history.num_in_vain
    if newest.job is None or num_jobs == 0:
        return None
    if history.was_unfit(newest):
        if num_jobs <= MOVES:
            return None
        cause = next((attempt.message for attempt in history.attempts_in(newest)[-1:]), "") or newest.job.last_event
        return Decision(
            do="fail",
            reason=f"{num_jobs} machines in a row were unfit, the last with exit {ExitCode.ELSEWHERE:d}, {cause}",
        )
    if num_jobs < JOBS_WITHOUT_ATTEMPT:
        return None
    code = f" and exit {newest.job.exit_codes[-1]}" if newest.job.exit_codes else ""
    return Decision(
        do="fail",
        reason=f"{num_jobs} jobs in a row failed without an attempt{code}; Batch says of the last: "
        f"{newest.job.last_event or 'nothing'}",
    )


def _crash_loop(history: History) -> Decision | None:
    """Two attempts failed with the same error at the same position."""
    crashes = [
        attempt
        for attempt in history.of_this_try
        if attempt.reason == "failed" and attempt.exit_code != ExitCode.ELSEWHERE  # that asks for another machine
    ]
    seen: dict[tuple[str, tuple[int, int] | None], int] = {}
    for crash in crashes:
        key = (crash.message, crash.position)
        if key in seen:
            at = f"epoch {crash.position[0]}, batch {crash.position[1]}" if crash.position else "the start"
            return Decision(
                do="fail",
                reason=f"crash loop: attempts {seen[key]} and {crash.number} ended at {at} with the same error, "
                f"{crash.message}",
            )
        seen[key] = crash.number
    return None


def _stuck(history: History) -> Decision | None:
    """Attempts end without a checkpoint and without a preemption."""
    job = history.newest.job
    newest = history.committed.attempt if history.committed else 0
    here = [attempt.number for attempt in history.attempts if attempt.job == history.newest.submission.job_id]
    if (
        job
        and job.state == "FAILED"
        and job.exit_codes[-1:] == (TIME_LIMIT,)
        and newest < min(here, default=newest + 1)
    ):
        return Decision(do="fail", reason="the time limit of an attempt passed without a checkpoint; it hangs")
    unexplained = sum(_num_unexplained(history, seen, newest) for seen in history.since_the_commit)
    if unexplained < STUCK_ATTEMPTS:
        return None
    last = f", the last with exit {job.exit_codes[-1]}" if job and job.exit_codes else ""
    return Decision(
        do="fail",
        reason=f"{unexplained} attempts since the last checkpoint ended early, and not by preemption"
        f"{last}; see its log",
    )


def _num_unexplained(history: History, seen: SubmissionStatus, committed: int) -> int:
    """Return how many attempts of a submission ended after the newest checkpoint, and not by preemption.

    Batch may show one exit code a job or all of them, and an attempt may have recorded its end or not: an end that both
    show counts once.

    Args:
        history: Of the run.
        seen: One of its submissions.
        committed: The attempt that made the newest checkpoint.
    """
    attempts = history.attempts_in(seen)
    codes = list(seen.job.exit_codes) if seen.job else []
    since = [attempt for attempt in attempts if attempt.number > committed]
    crashed = sum(attempt.kind == "crashed" for attempt in since)
    vanished = sum(attempt.reason == "vanished" for attempt in since)
    lost = sum(code in LOST_MACHINE for code in codes)
    recorded: Counter[int] = Counter(attempt.exit_code for attempt in attempts if attempt.exit_code)
    others = Counter(code for code in codes if code not in LOST_MACHINE)
    unrecorded, unseen = others - recorded, (recorded - others).total()
    # A machine that is taken may end a container that has recorded its own end.
    killed = min(sum(unrecorded[code] for code in KILLED), unseen)
    before = sum(attempt.number <= committed and attempt.ended_at is None for attempt in attempts)
    return crashed + max(unrecorded.total() - killed - before, vanished - lost, 0)


def _cancelled(history: History) -> Decision | None:
    """A person cancelled or deleted the job: no next submission shows that the supervisor did."""
    job = history.newest.job
    if job is not None and job.state not in {*BEING_ENDED, "CANCELLED"}:
        return None
    return Decision(do="stop", reason="its job was cancelled or deleted by hand")


def _overdrawn(history: History) -> Decision | None:
    """The live job can exceed the limit, which was lowered: no submission is made that could exceed its own."""
    too_much = _beyond_limit(history, going_on=False) if history.newest.live else None
    return Decision(do="stop", reason=f"the job {too_much}") if too_much else None


def _beyond_limit(history: History, *, going_on: bool) -> str | None:
    """Return by how much the limit can be exceeded; None if it cannot."""
    limit, usd, hours = history.limit, history.worst_usd(going_on=going_on), history.worst_hours(going_on=going_on)
    if limit.usd is not None and usd is None:
        return f"could pass {limit}: a machine of the run has no price; write it to cloud.yaml, or pass --no-limit"
    if limit.usd is not None and usd is not None and round(usd, 6) > limit.usd:
        return f"could take the cost to {usd:.2f} of {limit}"
    if limit.hours is not None and round(hours, 6) > limit.hours:
        return f"could take the time to {hours:.1f} of {limit}"
    return None


def _late(history: History) -> Decision | None:
    """Spot would miss the deadline that on demand can still keep."""
    submission = history.newest.submission
    if history.deadline is None or not submission.placement.spot:
        return None
    left_s = (history.deadline - history.now).total_seconds()
    needed_s = history.remaining_s
    if needed_s is None:  # without a measured pace, half of the time may be spent waiting for Spot
        needed_s = (history.deadline - history.by_hand_at).total_seconds() / 2
    if left_s > needed_s + START_UP_S + DEADLINE_RESERVE_S:
        return None
    machine = next((name for name in submission.machines if find_machine(name).on_demand), None)
    if machine is None:
        return None
    placement = Placement(region=submission.placement.region, machine=machine, spot=False)
    try:
        retries, run_s = budget(history, placement)
    except (RunStoppedError, UsageError):
        return None  # no budget for another placement: the job stays
    limited, needed = history.limit != Limit(), history.remaining_s
    if limited and needed is not None and (retries + 1) * run_s < needed:
        return None
    reason = f"the deadline is {left_s / 3600:.1f} h away, too near for Spot"
    return Decision(do="submit", reason=reason, placement=placement)


def _no_capacity(history: History) -> Decision | None:
    """No capacity for `PATIENCE_S`, and another region or machine type is left."""
    seen = history.newest
    if seen.job is None or not seen.live or seen.job.waiting_since is None:
        return None
    waited = history.now - seen.job.waiting_since
    elsewhere = _elsewhere(history)
    if waited < timedelta(seconds=PATIENCE_S) or elsewhere is None:
        return None
    decision = _submit(
        history, elsewhere, f"{seen.submission.placement} gave no machine for {waited.total_seconds() / 60:.0f} min"
    )
    return decision if decision.do == "submit" else None


def _running(history: History) -> Decision | None:
    """The job runs, or Batch looks for a machine."""
    job = history.newest.job
    if job is None or job.over:
        return None
    if job.waiting_since is None:
        return Decision(do="wait", reason=job.state.lower())
    return Decision(do="wait", reason=f"{job.state.lower()}, no machine yet; Batch says: {job.last_event}")


RULES: tuple[Rule, ...] = (
    *(_finished, _recorded_only, _fenced, _paused, _crash_loop, _failed, _in_vain, _stuck, _cancelled, _overdrawn),
    *(_late, _no_capacity),
    _running,
)


def _go_on(history: History) -> Decision:
    """The job is over and the run is not: submit again, after a back-off if this job committed nothing."""
    job, here = history.newest.job, history.newest.submission.placement
    if history.was_unfit(history.newest):
        placement, reason = _elsewhere(history) or here, "the machine was unfit; another one may do"
    elif job is not None and job.exit_codes[-1:] and job.exit_codes[-1] in LOST_MACHINE:
        placement, reason = _elsewhere(history) or here, "the retries are used up by preemptions"
    else:
        placement, reason = here, f"the job ended as {job.state.lower() if job else 'deleted'} before the run did"
    decision = _submit(history, placement, reason)
    if job is None or job.ended_at is None or decision.do != "submit":
        return decision
    due = job.ended_at + timedelta(seconds=_pause_s(history))
    return (
        decision if history.now >= due else Decision(do="wait", reason=f"{reason}; the next is made at {due:%H:%M} UTC")
    )


def _pause_s(history: History) -> float:
    """Return the back-off after the newest job: none if it has committed, doubled with each that has not."""
    newest = history.committed.attempt if history.committed else None
    num_idle = sum(
        seen.job is not None
        and seen.job.state == "FAILED"
        and all(attempt.number != newest for attempt in history.attempts_in(seen))
        for seen in history.since_the_commit
    )
    return min(PAUSE_S * 2 ** (num_idle - 1), LONGEST_PAUSE_S) if num_idle else 0.0


def _elsewhere(history: History) -> Placement | None:
    """Return the next region or machine type in turn; None if there is only one."""
    submission = history.newest.submission
    places = submission.placements
    if len(places) == 1:
        return None
    here = places.index(submission.placement) if submission.placement in places else -1
    return places[(here + 1) % len(places)]


def _submit(history: History, placement: Placement, reason: str) -> Decision:
    """Submit again if the rest of the limit pays for it."""
    try:
        budget(history, placement)
    except (RunStoppedError, UsageError) as error:
        return Decision(do="stop", reason=str(error))
    return Decision(do="submit", reason=reason, placement=placement)


def budget(history: History, placement: Placement) -> tuple[int, int]:
    """Return the retries and the seconds of one attempt that the rest of the limit pays for.

    Raises:
        RunStoppedError: If that is too little.
        UsageError: If a price is not known.
    """
    limit = history.limit
    if limit.usd is None and limit.hours is None:
        return durations_within(limit, None)
    if limit.usd is None:
        left = Limit(hours=(limit.hours or 0.0) - history.worst_hours(going_on=False))
        return durations_within(left, None)
    price = require_price(history.prices, placement.machine, spot=placement.spot)
    worst = history.worst_usd(going_on=False)
    if worst is None:
        raise UsageError(
            "--max-usd: the cost of the run so far is not known, its machine had no price; leave the limit out"
        )
    return durations_within(Limit(usd=limit.usd - worst), price)
