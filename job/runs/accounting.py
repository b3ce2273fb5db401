"""From the records of a run's attempts to its bill: each second under one label.

The rules:

- An attempt's wall time runs from the start of its process to its last record: its end, or else its last sign of life.
- Its seconds are those that this record holds. Where it was cut off (it vanished, was superseded or failed), what it
  did after the snapshot of its last commit is `Phase.LOST`, whatever it was spent on; getting ready is never lost.
- From an attempt's last record to the start of the next process nobody is known to have worked: that time stands apart
  and is neither in the goodput nor in the bill. A machine that was billed meanwhile is billed by the cloud alone.
"""

import contextlib
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from job.errors import CorruptObjectError, ObjectNotFoundError
from job.goodput import Phase
from job.runs import checkpoint
from job.runs.checkpoint import CheckpointId
from job.runs.cost import GETTING_READY, AttemptBill, Bill, Price, sum_by_label
from job.runs.records import now
from job.runs.run import Run
from job.text import seconds_between

NOTHING_LOST = {"finished", "preempted", "interrupted", "paused"}
"""Reasons to end that come after everything was committed, unless the record says what was not."""

ALIVE_FOR_S, GETS_READY_FOR_S = 60.0, 1800.0
"""The newest attempt counts as running for so long after its last sign of life, which it gives every few seconds once
it trains, and for so long after its claim while it gets ready and gives none.
"""


def read_bill(run: Run, at: str | None = None) -> Bill:
    """Read the records of a run's attempts and account for them.

    Args:
        run: The run.
        at: The time at which an attempt without an end runs or has vanished; now, if left out.
    """
    attempts = [run.attempt(number) for number in run.attempts()]
    kept: dict[int, tuple[CheckpointId, Mapping[str, float]]] = {}
    for identity in checkpoint.committed(run):
        with contextlib.suppress(ObjectNotFoundError, CorruptObjectError):  # retention was faster, or it is damaged
            kept[identity.attempt] = identity, checkpoint.read_manifest(run, identity).about["seconds"]
    return make_bill(attempts, kept, at or now())


def make_bill(
    attempts: list[dict[str, Any]], kept: Mapping[int, tuple[CheckpointId, Mapping[str, float]]], at: str
) -> Bill:
    """Account for attempts.

    Args:
        attempts: Their records, in order, as `Run.attempt` returns them.
        kept: By attempt, its last commit that is still there, and the attempt's seconds when it was taken.
        at: The time at which this is asked.
    """
    following = [*attempts, None][1:]
    return Bill(
        tuple(
            _account(attempt, later, kept.get(attempt["attempt"]), at)
            for attempt, later in zip(attempts, following, strict=True)
        )
    )


def _account(
    attempt: dict[str, Any],
    later: dict[str, Any] | None,
    kept: tuple[CheckpointId, Mapping[str, float]] | None,
    at: str,
) -> AttemptBill:
    began_at, ended_at = _began_at(attempt), _last_heard_of(attempt)
    silent_s = seconds_between(ended_at, at)
    alive = later is None and silent_s < (ALIVE_FOR_S if attempt["pulse"] else GETS_READY_FOR_S)
    ended = attempt["end"]["reason"] if attempt["end"] else "running" if alive else "vanished"
    last = attempt["end"] or attempt["pulse"]
    seconds = (
        sum_by_label([{label: max(0.0, s) for label, s in last["seconds"].items()}])
        if last and "seconds" in last
        else sum_by_label([{Phase.START_UP: seconds_between(began_at, ended_at)}])
    )
    receipt = ((later or {}).get("start") or {}).get("receipt") or {}
    if ended not in {*NOTHING_LOST, "running"} or (attempt["end"] or {}).get("not_committed"):
        seconds = _without_lost(seconds, _kept_seconds(attempt, kept, receipt, seconds))
    price = attempt.get("price") or {}
    return AttemptBill(
        attempt=attempt["attempt"],
        machine=price.get("machine") or attempt.get("machine", ""),
        began_at=began_at,
        ended_at=ended_at,
        ended=ended,
        seconds=seconds,
        steps_lost=receipt.get("steps_lost", 0),
        away_s=seconds_between(ended_at, _began_at(later)) if later else None,
        price=_price(price),
    )


def _price(recorded: Mapping[str, Any]) -> Price:
    """Return the price of a claim; one that is no amount would make a run cheaper than it was.

    Raises:
        ValueError: If it is none.
    """
    price = Price(**{name: recorded[name] for name in Price.__slots__ if name in recorded})
    for usd in (price.usd_per_h, price.on_demand_usd_per_h):
        if usd is not None and not 0 <= usd < math.inf:
            raise ValueError(f"{usd!r} is no price")
    return price


def _kept_seconds(
    attempt: dict[str, Any],
    kept: tuple[CheckpointId, Mapping[str, float]] | None,
    receipt: dict[str, Any],
    seconds: dict[Phase, float],
) -> Mapping[Any, float]:
    """Return an attempt's seconds when its last commit was taken; none of them if it committed nothing.

    The commit is known from the last sign of life, from its manifest as long as that is kept, or from the receipt of
    the attempt that went on from it. If that names a commit that the others do not know, it came after the last sign of
    life, and all that is known was kept.
    """
    commits: list[tuple[CheckpointId, Mapping[Any, float]]] = [kept] if kept else []
    said = (attempt["pulse"] or {}).get("kept")
    if said and (identity := CheckpointId.parse(said["checkpoint"])):
        commits.append((identity, said["seconds"]))
    restored = CheckpointId.parse(receipt.get("checkpoint", ""))
    if restored and restored.attempt == attempt["attempt"]:
        commits.append((restored, seconds))  # of two equal ones, `max` takes the first
    return max(commits, key=lambda commit: commit[0])[1] if commits else {}


def _without_lost(seconds: dict[Phase, float], kept: Mapping[Any, float]) -> dict[Phase, float]:
    """Move to `Phase.LOST` what came after the last commit."""
    lost = {label: max(0.0, s - kept.get(label, 0.0)) for label, s in seconds.items() if label not in GETTING_READY}
    return {label: s - lost.get(label, 0.0) for label, s in seconds.items()} | {
        Phase.LOST: seconds[Phase.LOST] + sum(lost.values()) - lost.get(Phase.LOST, 0.0)
    }


def _began_at(attempt: dict[str, Any]) -> str:
    claimed = datetime.fromisoformat(attempt["claimed_at"])
    return (claimed - timedelta(seconds=attempt.get("process_age_s", 0.0))).isoformat(timespec="milliseconds")


def _last_heard_of(attempt: dict[str, Any]) -> str:
    """Return when an attempt ended, or when it last said something."""
    if attempt["end"]:
        return str(attempt["end"]["ended_at"])
    start = [attempt["start"]["started_at"]] if attempt["start"] else []
    pulse = [attempt["pulse"]["at"]] if attempt["pulse"] else []
    return str((pulse or start or [attempt["claimed_at"]])[0])
