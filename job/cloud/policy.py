"""Retry policy of a run in the cloud: the next action as a pure function of its history.

Guarantees that a run is given up only for a reason that no retry removes, that retries are bounded and back off, that
the limit is never exceeded, and that success is judged by the bucket, never by an exit code. The first of `RULES` with
an answer decides. Knows nothing of clients and clocks.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from job.cloud.batch_events import in_words
from job.cloud.budget import START_UP_S, Limit, durations_within, require_price
from job.cloud.machine_types import Provisioning, find_machine
from job.cloud.status import BEING_ENDED, History, SubmissionStatus
from job.cloud.submission import Placement
from job.errors import FATAL, KILLED, LOST_MACHINE, TIME_LIMIT, ExitCode, RunStoppedError, UsageError
from job.text import counted

PATIENCE_S = 1200
"""Wait for a machine before another region or machine type is tried."""

RESERVE_S = {Provisioning.ON_DEMAND: 1800, Provisioning.FLEX_START: 10800}
"""Ladder above Spot, dearest first: reserve before the deadline at which a kind of provisioning is taken.

That of flex-start has to hold the wait for a machine; if it is over without one, on demand is taken.
"""

STUCK_ATTEMPTS = 5
"""Attempts without a checkpoint, and not preempted, that count as a loop."""

BETWEEN_PATHS = re.compile(r"[\s'\"`<>()\[\],:;=]+")

SCRATCH = re.compile(r"(.*[-.]|tmp)?[a-z0-9_]{8}")
"""Name of a scratch folder or file; chance may have put no digit in it."""

JOBS_WITHOUT_ATTEMPT = 3
"""Jobs in a row that failed before an attempt claimed the run, after which the run is given up."""

MACHINES_TAKEN_EARLY = 30
"""Machines in a row that were preempted before an attempt claimed the run, after which it is stopped."""

MOVES = 3
"""Moves to another machine after unfit ones in a row; one more unfit machine ends the run."""

PAUSE_S, LONGEST_PAUSE_S = 60, 3600
"""Back-off before the job that follows one without a checkpoint; doubles with each."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next action and its reason, for the log and the record."""

    do: Literal["wait", "create", "cancel", "submit", "finish", "fail", "stop"]
    """``create`` makes the newest submission's job; ``cancel`` ends the job of the one before; ``submit`` records the
    next submission; ``finish`` is the good end; ``fail`` gives the run up; ``stop`` leaves it to be continued."""

    reason: str
    placement: Placement | None = None
    """Placement of the next submission."""


def decide(history: History) -> Decision:
    """Return the next action; the history has at least one submission."""
    return next((decision for rule in RULES if (decision := rule(history))), None) or _go_on(history)


def _finished(history: History) -> Decision | None:
    """The final record is in the bucket."""
    if history.final is None:
        return None
    return Decision("finish", f"finished after {counted(history.final.num_epochs, 'epoch')}")


def _recorded_only(history: History) -> Decision | None:
    """The newest submission has no job yet: its job is created once the one before has ended."""
    if history.newest.made:
        return None
    before = history.submissions[-2].job if len(history.submissions) > 1 else None
    if before is None or before.over:
        if too_much := _beyond_limit(history, going_on=True):
            return Decision("stop", f"submission {history.newest.submission.number} {too_much}")
        return Decision("create", history.newest.submission.reason)
    if before.state in BEING_ENDED:
        return Decision("wait", "the submission before is being cancelled")
    return Decision("cancel", history.newest.submission.reason)


def _fenced(history: History) -> Decision | None:
    """An attempt outside of these jobs holds the claim: two would supersede each other forever."""
    last = history.attempts[-1] if history.attempts else None
    if last is None or last.reason != "running" or last.job in {seen.submission.job_id for seen in history.submissions}:
        return None
    if last.claimed_at <= history.by_hand_at:
        return None  # an earlier attempt, from which this submission takes over
    return Decision(
        "stop", f"attempt {last.number} on {last.host} has claimed the run, not one of this job; it continues there"
    )


def _paused(history: History) -> Decision | None:
    """A person paused the run, and the newest attempt has ended."""
    last = history.of_this_try[-1] if history.of_this_try else None
    if last is None or last.reason != "paused":
        return None
    return Decision("wait" if history.newest.live else "stop", f"attempt {last.number} was paused, as asked")


def _failed(history: History) -> Decision | None:
    """An attempt ended with a fatal exit code."""
    job = history.newest.job
    last = next(reversed(history.attempts_in(history.newest)), None)
    if last is not None and last.reason == "failed" and last.exit_code in FATAL:
        reason = f"attempt {last.number} ended with exit {last.exit_code}, {last.message}"
        return Decision("wait" if history.newest.live else "fail", reason)  # Batch fails the job by itself
    if job and job.state == "FAILED" and job.exit_code in FATAL:  # Batch retries none of these: it was the last
        nothing = last is None or last.reason in {"running", "vanished"}
        where = " before anything was recorded" if nothing else ", which no attempt has recorded"
        return Decision("fail", f"exit {job.exit_code}{where}; see its log")
    if job and job.state == "SUCCEEDED":
        return Decision("fail", "the job succeeded, and the bucket has no final.json; see its log")
    return None


def _in_vain(history: History) -> Decision | None:
    """Jobs in a row failed before an attempt claimed the run, or each on a machine that was unfit."""
    newest, num_jobs = history.newest, history.num_in_vain
    if newest.job is None or num_jobs == 0 or history.had_no_chance(newest):
        return None
    if history.was_unfit(newest):
        if num_jobs <= MOVES:
            return None
        ends = history.attempts_in(newest)
        messages = [attempt.message for attempt in ends if attempt.exit_code == ExitCode.ELSEWHERE]
        cause = (messages and messages[-1]) or newest.job.last_event
        return Decision(
            "fail", f"{num_jobs} machines in a row were unfit, the last with exit {ExitCode.ELSEWHERE:d}, {cause}"
        )
    if num_jobs < JOBS_WITHOUT_ATTEMPT:
        return None
    code = "" if newest.job.exit_code is None else f" and exit {newest.job.exit_code}"
    return Decision(
        "fail",
        f"{num_jobs} jobs in a row failed without an attempt{code}; Batch says of the last: "
        f"{newest.job.last_event or 'nothing'}",
    )


def _taken_early(history: History) -> Decision | None:
    """Machines in a row were preempted before an attempt claimed the run, more than chance explains."""
    job, num_machines = history.newest.job, history.num_taken_early
    if job is None or not job.over or num_machines < MACHINES_TAKEN_EARLY:
        return None
    kept = "a machine is kept by --on-demand, or later"
    return Decision(
        "stop", f"{num_machines} machines in a row were preempted before an attempt claimed the run; {kept}"
    )


def _crash_loop(history: History) -> Decision | None:
    """Two attempts failed with the same error at the same position."""
    seen: dict[tuple[tuple[str, ...], object], int] = {}
    for attempt in history.of_this_try:
        if attempt.reason != "failed" or attempt.exit_code == ExitCode.ELSEWHERE:  # that asks for another machine
            continue
        first = seen.setdefault((_lasting_words(attempt.message), attempt.position), attempt.number)
        if first != attempt.number:
            at = "epoch {}, batch {}".format(*attempt.position) if attempt.position else "the start"
            reason = f"crash loop: attempts {first} and {attempt.number} ended at {at} with the same error"
            return Decision("fail", f"{reason}, {attempt.message}")
    return None


def _lasting_words(message: str) -> tuple[str, ...]:
    """Return the words of a message that are equal each time.

    Not so are words with a digit (the number of a process, an address), the folders of a path, and scratch names.
    """
    return tuple(map(_lasting_part, BETWEEN_PATHS.split(message)))


def _lasting_part(path: str) -> str:
    _, slash, name = path.rpartition("/")
    if slash and SCRATCH.fullmatch(name):
        return ""
    return re.sub(r"\w+", lambda word: "" if any(map(str.isdigit, word[0])) else word[0], name)


def _stuck(history: History) -> Decision | None:
    """Attempts end without a checkpoint and without a preemption."""
    job = history.newest.job
    committed = history.committed_attempt
    here = [attempt.number for attempt in history.attempts_in(history.newest)]
    code = job.exit_code if job else None
    if job and job.state == "FAILED" and code == TIME_LIMIT and committed < min(here, default=committed + 1):
        return Decision("fail", "the time limit of an attempt passed without a checkpoint; it hangs")
    unexplained = sum(_num_unexplained(history, seen) for seen in history.since_the_commit)
    if unexplained < STUCK_ATTEMPTS:
        return None
    last = "" if code is None else f", the last with exit {code}"
    ended = f"{counted(unexplained, 'attempt')} since the last checkpoint ended early, and not by preemption{last}"
    return Decision("fail", f"{ended}; see its log")


def _num_unexplained(history: History, seen: SubmissionStatus) -> int:
    """Return how many attempts of a submission ended after the newest checkpoint, and not by preemption.

    Batch may show one exit code a job or all of them, and an attempt may have recorded its end or not: an end that both
    show counts once.
    """
    attempts, codes = history.attempts_in(seen), seen.job.exit_codes if seen.job else ()
    since = [attempt for attempt in attempts if attempt.number > history.committed_attempt]
    crashed = sum(attempt.kind == "crashed" for attempt in since)
    vanished = sum(attempt.reason == "vanished" for attempt in since)
    lost = sum(code in LOST_MACHINE for code in codes)
    recorded: Counter[int] = Counter(attempt.exit_code for attempt in attempts if attempt.exit_code)
    others = Counter(code for code in codes if code not in LOST_MACHINE)
    unrecorded, unseen = others - recorded, (recorded - others).total()
    # A machine that is taken may end a container that has recorded its own end.
    killed = min(sum(unrecorded[code] for code in KILLED), unseen)
    before = sum(attempt not in since and attempt.ended_at is None for attempt in attempts)
    return crashed + max(unrecorded.total() - killed - before, vanished - lost, 0)


def _cancelled(history: History) -> Decision | None:
    """A person cancelled or deleted the job: no next submission shows that the supervisor did."""
    job = history.newest.job
    if job is None or job.state in {*BEING_ENDED, "CANCELLED"}:
        return Decision("stop", "its job was cancelled or deleted by hand")
    return None


def _overdrawn(history: History) -> Decision | None:
    """The live job can exceed the limit, which was lowered: no submission is made that could exceed its own."""
    too_much = _beyond_limit(history, going_on=False) if history.newest.live else None
    return Decision("stop", f"the job {too_much}") if too_much else None


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
    """The kind of provisioning would miss the deadline that a dearer one can still keep."""
    newest, here = history.newest, history.newest.submission.placement
    if history.deadline is None:
        return None
    left_s, needed_s = (history.deadline - history.now).total_seconds(), history.remaining_s
    # Without a measured pace, half of the time may be spent waiting for Spot.
    spare_s = (history.deadline - history.by_hand_at).total_seconds() / 2 if needed_s is None else needed_s
    in_vain = _waited_s(history) >= PATIENCE_S  # before that a machine may be on its way
    is_queued = newest.job is not None and newest.job.state == "QUEUED"
    for provisioning in _dearer(here.provisioning):
        if provisioning is Provisioning.FLEX_START and not in_vain:
            continue  # a machine is not given up for a queue
        if here.provisioning is Provisioning.FLEX_START and not (is_queued or in_vain):
            continue  # one that came by flex-start is not preempted
        offering = [name for name in newest.submission.machines if provisioning in find_machine(name).provisioning]
        if offering and left_s <= spare_s + START_UP_S + RESERVE_S[provisioning]:
            placement = Placement(region=here.region, machine=offering[0], provisioning=provisioning)
            reason = f"the deadline is {left_s / 3600:.1f} h away, too near for {here.provisioning.words}"
            return _in_time(history, placement, reason)
    return None


def _waited_s(history: History) -> float:
    """Return the seconds that the newest job has waited for a machine; 0 if it does not wait."""
    job = history.newest.job
    return 0.0 if job is None or job.waiting_since is None else (history.now - job.waiting_since).total_seconds()


def _dearer(provisioning: Provisioning) -> list[Provisioning]:
    """Return the dearer kinds of provisioning, the dearest first."""
    ladder = list(RESERVE_S)
    return ladder[: ladder.index(provisioning)] if provisioning in ladder else ladder


def _in_time(history: History, placement: Placement, reason: str) -> Decision | None:
    """Submit at a placement, unless the rest of the limit does not pay for the rest of the work: the job stays."""
    try:
        retries, run_s = budget(history, placement)
    except (RunStoppedError, UsageError):
        return None
    needed_s = history.remaining_s
    if history.limit != Limit() and needed_s is not None and (retries + 1) * run_s < needed_s:
        return None
    return Decision("submit", reason, placement)


def _no_capacity(history: History) -> Decision | None:
    """No capacity for `PATIENCE_S`, and another region or machine type is left."""
    job, elsewhere = history.newest.job, _elsewhere(history)
    if job is None or job.over or elsewhere is None:
        return None
    if elsewhere.provisioning is Provisioning.FLEX_START:
        return None  # waiting is what it does
    waited_s = _waited_s(history)
    if waited_s < PATIENCE_S:
        return None
    reason = f"{history.newest.submission.placement} gave no machine for {waited_s / 60:.0f} min"
    decision = _submit(history, elsewhere, reason)
    return decision if decision.do == "submit" else None


def _running(history: History) -> Decision | None:
    """The job runs, or Batch looks for a machine."""
    job = history.newest.job
    if job is None or job.over:
        return None
    if job.waiting_since is None:
        return Decision("wait", job.state.lower())
    return Decision("wait", f"{job.state.lower()}, no machine yet: {in_words(job.last_event)}")


# fmt: off
RULES: tuple[Callable[[History], Decision | None], ...] = (
    _finished, _recorded_only, _fenced, _paused, _crash_loop, _failed, _in_vain, _taken_early, _stuck, _cancelled,
    _overdrawn, _late, _no_capacity, _running,
)
# fmt: on


def _go_on(history: History) -> Decision:
    """The job is over and the run is not: submit again, after a back-off if this job committed nothing."""
    job, placement = history.newest.job, history.newest.submission.placement
    if history.was_unfit(history.newest):
        placement, reason = _elsewhere(history) or placement, "the machine was unfit; another one may do"
    elif job is not None and job.expired_in_queue:
        placement, reason = _elsewhere(history) or placement, "no machine came in its longest time in the queue"
    elif job is not None and job.exit_code in LOST_MACHINE:
        placement, reason = _elsewhere(history) or placement, "the retries are used up by preemptions"
    else:
        reason = f"the job ended as {job.state.lower() if job else 'deleted'} before the run did"
    decision = _submit(history, placement, reason)
    if decision.do == "submit" and job is not None and job.ended_at is not None:
        due = job.ended_at + timedelta(seconds=_pause_s(history))
        if history.now < due:
            return Decision("wait", f"{reason}; the next is made at {due:%H:%M} UTC")
    return decision


def _pause_s(history: History) -> float:
    """Return the back-off after the newest job: none if it has committed, doubled with each that has not."""
    failed = [seen for seen in history.since_the_commit if seen.job is not None and seen.job.state == "FAILED"]
    num_idle = sum(not history.has_committed(seen) for seen in failed)
    return min(PAUSE_S * 2 ** (num_idle - 1), LONGEST_PAUSE_S) if num_idle else 0.0


def _elsewhere(history: History) -> Placement | None:
    """Return the next region or machine type in turn; None if there is only one."""
    submission = history.newest.submission
    places, here = submission.placements, submission.placement
    if len(places) <= 1:
        return None
    return places[(places.index(here) + 1) % len(places)] if here in places else places[0]


def _submit(history: History, placement: Placement, reason: str) -> Decision:
    """Submit again if the rest of the limit pays for it."""
    try:
        budget(history, placement)
    except (RunStoppedError, UsageError) as error:
        return Decision("stop", str(error))
    return Decision("submit", reason, placement)


def budget(history: History, placement: Placement) -> tuple[int, int]:
    """Return the retries and the seconds of one attempt that the rest of the limit pays for.

    Raises `RunStoppedError` if that is too little, `UsageError` if a price is not known.
    """
    limit = history.limit
    if limit.usd is None:
        hours = None if limit.hours is None else limit.hours - history.worst_hours(going_on=False)
        return durations_within(Limit(hours=hours), None)
    price = require_price(history.prices, placement.machine, placement.provisioning)
    worst = history.worst_usd(going_on=False)
    if worst is None:
        raise UsageError(
            "--max-usd: the cost of the run so far is not known, its machine had no price; leave the limit out"
        )
    return durations_within(Limit(usd=limit.usd - worst), price)
