"""What to do next for a run in the cloud: a pure function of what is known.

Guarantees that a run is given up only for a reason that trying again does not remove, that its dollar limit is never
passed, and that success is judged by the bucket, never by an exit code. The rules are asked in the order of `RULES`,
and the first with an answer is followed. Knows nothing of clients and clocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from job.cloud.cost import START_UP_S, durations_within, require_price
from job.cloud.history import BEING_ENDED, History
from job.cloud.machines import find_machine
from job.cloud.segment import Placement
from job.errors import FATAL, LOST_MACHINE, TIME_LIMIT, ExitCode, RunStoppedError, UsageError

PATIENCE_S = 1200
"""How long to wait for a machine before another place is tried."""

DEADLINE_RESERVE_S = 1800
"""On demand is chosen while there is still this much to spare."""

STUCK_ATTEMPTS = 5
"""So many attempts that neither a preemption explains nor a checkpoint came of are a loop."""

CANCELLING_S = 600
"""What cancelling may take, during which a machine still costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, and why, for the log and the record."""

    do: Literal["wait", "create", "cancel", "submit", "finish", "fail", "stop"]
    """``create`` makes the newest segment's job; ``cancel`` ends the job of the one before it; ``submit`` records the
    next segment; ``finish`` is the good end; ``fail`` gives the run up; ``stop`` leaves it to be continued."""

    reason: str
    placement: Placement | None = None
    """Where the next segment goes."""


Rule = Callable[[History], Decision | None]


def decide(history: History) -> Decision:
    """Say what to do next; the history has at least one segment."""
    for rule in RULES:
        decision = rule(history)
        if decision is not None:
            return decision
    return _go_on(history)


def _finished(history: History) -> Decision | None:
    """The final record is in the bucket."""
    if history.final is None:
        return None
    return Decision(do="finish", reason=f"finished after {history.final['num_epochs']} epochs")


def _recorded_only(history: History) -> Decision | None:
    """The newest segment has no job yet: it is made as soon as the one before has ended."""
    if history.newest.made:
        return None
    before = history.segments[-2].job if len(history.segments) > 1 else None
    if before is None or before.over:
        return Decision(do="create", reason=history.newest.segment.reason)
    if before.state in BEING_ENDED:
        return Decision(do="wait", reason="the segment before is being cancelled")
    return Decision(do="cancel", reason=history.newest.segment.reason)


def _fenced(history: History) -> Decision | None:
    """A later attempt from elsewhere has claimed the run: two would take it from each other forever."""
    last = history.attempts[-1] if history.attempts else None
    if last is None or last.reason != "running" or last.job in {seen.segment.job_id for seen in history.segments}:
        return None
    if last.claimed_at <= history.by_hand_at:
        return None  # it was there before, and this segment is to take over
    return Decision(
        do="stop",
        reason=f"attempt {last.number} on {last.host} has claimed the run, and is not of this job; it goes on there",
    )


def _paused(history: History) -> Decision | None:
    """A person asked for a pause, and the newest attempt has ended by it."""
    last = history.of_this_try[-1] if history.of_this_try else None
    if last is None or last.reason != "paused":
        return None
    return Decision(do="wait" if history.newest.live else "stop", reason=f"attempt {last.number} was paused, as asked")


def _failed(history: History) -> Decision | None:
    """An attempt ended with a code that trying again does not change."""
    job, segment = history.newest.job, history.newest.segment
    last = next((attempt for attempt in reversed(history.attempts) if attempt.job == segment.job_id), None)
    if last is not None and last.reason == "failed" and last.exit_code in {*FATAL, ExitCode.ELSEWHERE}:
        reason = f"attempt {last.number} ended with exit {last.exit_code}, {last.message}"
        return Decision(do="wait" if history.newest.live else "fail", reason=reason)  # Batch fails the job by itself
    unrecorded = last is None or last.reason in {"running", "vanished"}
    if (
        job
        and job.state == "FAILED"
        and unrecorded
        and job.exit_codes
        and job.exit_codes[-1] in {*FATAL, ExitCode.ELSEWHERE}
    ):
        return Decision(do="fail", reason=f"exit {job.exit_codes[-1]} before anything was recorded; see its log")
    if job and job.state == "SUCCEEDED":
        return Decision(do="fail", reason="the job succeeded, and the bucket has no final.json; see its log")
    return None


def _crash_loop(history: History) -> Decision | None:
    """The same error came at the same position twice."""
    crashes = [attempt for attempt in history.of_this_try if attempt.reason == "failed"]
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
    """Attempts end without a checkpoint, and preemptions do not explain it."""
    job = history.newest.job
    newest = history.committed.attempt if history.committed else 0
    here = [attempt.number for attempt in history.attempts if attempt.job == history.newest.segment.job_id]
    if (
        job
        and job.state == "FAILED"
        and job.exit_codes[-1:] == (TIME_LIMIT,)
        and newest < min(here, default=newest + 1)
    ):
        return Decision(do="fail", reason="the time limit of an attempt passed without a checkpoint; it hangs")
    since = [attempt for attempt in history.of_this_try if attempt.number > newest]
    vanished = sum(attempt.reason == "vanished" for attempt in since)
    explained = sum(code in LOST_MACHINE for seen in history.segments if seen.job for code in seen.job.exit_codes)
    unexplained = sum(attempt.kind == "crashed" for attempt in since) + max(vanished - explained, 0)
    if job and not here:  # an image that does not start claims nothing
        unexplained += sum(code not in LOST_MACHINE for code in job.exit_codes)
    if unexplained < STUCK_ATTEMPTS:
        return None
    last = f", the last with exit {job.exit_codes[-1]}" if job and job.exit_codes else ""
    return Decision(
        do="fail",
        reason=f"{unexplained} attempts since the last checkpoint ended early, and not by preemption"
        f"{last}; see its log",
    )


def _cancelled(history: History) -> Decision | None:
    """Somebody cancelled or deleted the job, and no next segment says that it was the supervisor."""
    job = history.newest.job
    if job is not None and job.state not in {*BEING_ENDED, "CANCELLED"}:
        return None
    return Decision(do="stop", reason="its job was cancelled or deleted by hand")


def _overdrawn(history: History) -> Decision | None:
    """The limit is used up; it was lowered, since no segment is made that could pass it."""
    limit, usd = history.max_usd, history.usd
    if limit is None or usd is None or not history.newest.live or usd + _cancelling_usd(history) < limit:
        return None
    return Decision(do="stop", reason=f"{usd:.2f} of {limit:.2f} USD are used up")


def _late(history: History) -> Decision | None:
    """On Spot the deadline would be missed, and on demand may still keep it."""
    segment = history.newest.segment
    if history.deadline is None or not segment.placement.spot:
        return None
    left_s = (history.deadline - history.now).total_seconds()
    needed_s = history.remaining_s
    if needed_s is None:  # nothing was learnt yet: half of the time may go into waiting for Spot
        needed_s = (history.deadline - history.by_hand_at).total_seconds() / 2
    if left_s > needed_s + START_UP_S + DEADLINE_RESERVE_S:
        return None
    machine = next((name for name in segment.machines if find_machine(name).on_demand), None)
    if machine is None:
        return None
    placement = Placement(region=segment.placement.region, machine=machine, spot=False)
    try:
        retries, run_s = budget(history, placement)
    except (RunStoppedError, UsageError):
        return None  # what cannot be paid for goes on as it is
    if history.max_usd is not None and history.remaining_s is not None and (retries + 1) * run_s < history.remaining_s:
        return None
    reason = f"the deadline is {left_s / 3600:.1f} h away, too near for Spot"
    return Decision(do="submit", reason=reason, placement=placement)


def _no_capacity(history: History) -> Decision | None:
    """No machine was given for a while, and there is another place to ask."""
    seen = history.newest
    if seen.job is None or not seen.live or seen.job.waiting_since is None:
        return None
    waited = history.now - seen.job.waiting_since
    elsewhere = _elsewhere(history)
    if waited < timedelta(seconds=PATIENCE_S) or elsewhere is None:
        return None
    decision = _submit(
        history, elsewhere, f"{seen.segment.placement} gave no machine for {waited.total_seconds() / 60:.0f} min"
    )
    return decision if decision.do == "submit" else None


def _running(history: History) -> Decision | None:
    """The job is at work, or Batch looks for a machine."""
    job = history.newest.job
    if job is None or job.over:
        return None
    return Decision(do="wait", reason=f"{job.state.lower()}" + (", no machine yet" if job.waiting_since else ""))


RULES: tuple[Rule, ...] = (
    *(_finished, _recorded_only, _fenced, _paused, _crash_loop, _failed, _stuck, _cancelled, _overdrawn, _late),
    _no_capacity,
    _running,
)


def _go_on(history: History) -> Decision:
    """The job is over and the run is not."""
    job = history.newest.job
    here = history.newest.segment.placement
    if job is not None and job.exit_codes[-1:] and job.exit_codes[-1] in LOST_MACHINE:
        return _submit(history, _elsewhere(history) or here, "the retries are used up by preemptions")
    return _submit(history, here, f"the job ended as {job.state.lower() if job else 'deleted'} before the run did")


def _elsewhere(history: History) -> Placement | None:
    """Return the next place to try, in turn; nothing if there is only one."""
    segment = history.newest.segment
    places = segment.placements
    if len(places) == 1:
        return None
    here = places.index(segment.placement) if segment.placement in places else -1
    return places[(here + 1) % len(places)]


def _submit(history: History, placement: Placement, reason: str) -> Decision:
    """Submit the next segment if what is left of the limit pays for it."""
    try:
        budget(history, placement)
    except (RunStoppedError, UsageError) as error:
        return Decision(do="stop", reason=str(error))
    return Decision(do="submit", reason=reason, placement=placement)


def budget(history: History, placement: Placement) -> tuple[int, int]:
    """Return the retries, and the seconds of one attempt, that what is left of the limit pays for.

    Raises:
        RunStoppedError: If that is too little.
        UsageError: If a price is not known.
    """
    if history.max_usd is None:
        return durations_within(None, None)
    price = require_price(history.newest.segment.settings, placement.machine, spot=placement.spot)
    if history.usd is None:
        raise UsageError("--max-usd: what the run has cost so far is not known, its machine had no price; leave it out")
    return durations_within(history.max_usd - history.usd - _cancelling_usd(history), price)


def _cancelling_usd(history: History) -> float:
    """Return what the newest job may still cost once it is cancelled."""
    price = history.newest.segment.usd_per_hour
    return price * CANCELLING_S / 3600 if history.newest.live and price is not None else 0.0
