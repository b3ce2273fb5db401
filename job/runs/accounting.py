"""Accounting: cost of a run from its attempts' records, each second under one phase.

The rules:

- An attempt's wall time runs from the start of its process to its last record: its end, or else its last sign of life.
- Its seconds are those of that record. If it was cut off (vanished, superseded or failed), all seconds after the
  snapshot of its last commit are `Phase.LOST`; start-up is never lost.
- Time from an attempt's last record to the start of the next process is counted apart, neither in goodput nor in cost:
  only the cloud's bill has it.
"""

import contextlib
from collections.abc import Mapping, Sequence

from job.errors import CorruptObjectError, EndReason, ObjectNotFoundError
from job.goodput import Phase
from job.runs import checkpoint
from job.runs.cost import GETTING_READY, AttemptCost, RunCost, sum_by_label
from job.runs.records import AttemptRecord, CheckpointId, ResumeReceipt, Seconds, now
from job.runs.run import Run
from job.text import seconds_between

COMMITTED_ALL = {EndReason.FINISHED, EndReason.PREEMPTED, EndReason.INTERRUPTED, EndReason.PAUSED}
"""End reasons after which everything is committed, unless the record names uncommitted steps."""


def read_cost(run: Run, at: str | None = None) -> RunCost:
    """Read the records of a run's attempts and account for them.

    Args:
        run: The run.
        at: The time that decides whether an attempt without an end runs or has vanished; now, if left out.
    """
    committed: dict[int, tuple[CheckpointId, Seconds]] = {}
    attempts = run.attempt_records()
    for identity in checkpoint.committed(run):
        with contextlib.suppress(ObjectNotFoundError, CorruptObjectError):  # deleted by retention, or damaged
            committed[identity.attempt] = identity, checkpoint.read_manifest(run, identity).metadata.seconds
    return cost_of(attempts, at or now(), committed)


def cost_of(
    attempts: Sequence[AttemptRecord], at: str, committed: Mapping[int, tuple[CheckpointId, Seconds]] | None = None
) -> RunCost:
    """Account for attempts.

    Args:
        attempts: Their records, in order.
        at: The time that decides whether an attempt without an end runs or has vanished.
        committed: By attempt, its last commit that still exists, and the attempt's seconds at its snapshot.
    """
    following = [*attempts, None][1:]
    return RunCost(
        tuple(
            _attempt_cost(attempt, later, (committed or {}).get(attempt.number), at)
            for attempt, later in zip(attempts, following, strict=True)
        )
    )


def _attempt_cost(
    attempt: AttemptRecord, later: AttemptRecord | None, committed: tuple[CheckpointId, Seconds] | None, at: str
) -> AttemptCost:
    ended = attempt.state(newest=later is None, at=at)
    seconds = sum_by_label([attempt.seconds])
    receipt = later.receipt if later else None
    if ended not in COMMITTED_ALL | {EndReason.RUNNING} or (attempt.end and attempt.end.not_committed):
        seconds = _without_lost(seconds, _committed_seconds(attempt, committed, receipt, seconds))
    return AttemptCost(
        attempt=attempt.number,
        machine=attempt.machine,
        began_at=attempt.began_at,
        ended_at=attempt.last_sign_at,
        ended=ended,
        seconds=seconds,
        steps_lost=receipt.steps_lost if receipt else 0,
        away_s=seconds_between(attempt.last_sign_at, later.began_at) if later else None,
        price=attempt.claim.price,
    )


def _committed_seconds(
    attempt: AttemptRecord,
    committed: tuple[CheckpointId, Seconds] | None,
    receipt: ResumeReceipt | None,
    seconds: Seconds,
) -> Seconds:
    """Return an attempt's seconds at the snapshot of its last commit; zero seconds if it committed nothing.

    The commit is known from the last heartbeat, from its manifest as long as that is kept, or from the receipt of the
    attempt that resumed from it. A commit known from the receipt alone came after the last heartbeat: all known seconds
    are committed.
    """
    commits = [committed] if committed else []
    if attempt.heartbeat and (last := attempt.heartbeat.last_committed):
        commits.append((last.checkpoint, last.seconds))
    if receipt and receipt.checkpoint.attempt == attempt.number:
        commits.append((receipt.checkpoint, seconds))  # of two equal ones, `max` takes the first
    return max(commits, key=lambda commit: commit[0])[1] if commits else {}


def _without_lost(seconds: Seconds, committed: Seconds) -> Seconds:
    """Move the seconds after the last commit to `Phase.LOST`."""
    lost = {
        label: max(0.0, s - committed.get(label, 0.0)) for label, s in seconds.items() if label not in GETTING_READY
    }
    return {label: s - lost.get(label, 0.0) for label, s in seconds.items()} | {
        Phase.LOST: seconds[Phase.LOST] + sum(lost.values()) - lost.get(Phase.LOST, 0.0)
    }
