"""What a run took, from the records of its attempts: each second under one label, and what the seconds cost.

The rules:

- An attempt's wall time runs from the start of its process to its last record: its end, or else its last sign of life.
- Its seconds are those that this record holds. Where it was cut off (it vanished, was superseded or failed), what it
  did after the snapshot of its last commit is `Label.LOST`, whatever it was spent on; getting ready is never lost.
- From an attempt's last record to the start of the next process nobody is known to have worked: `away`, which stands
  apart and is neither in the goodput nor in the bill. A machine that was billed meanwhile is billed by the cloud alone.
- Dollars are seconds times the hourly price that the attempt was started with. On demand, nothing would have been lost
  or recomputed, and one attempt would have got ready: those seconds are compared.

Knows nothing of where prices come from.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from job import checkpoint
from job.checkpoint import CheckpointId
from job.errors import CorruptObjectError, ObjectNotFoundError
from job.ledger import Label
from job.run import Run, now
from job.units import HOUR, dollars, duration, percent

GETTING_READY = (Label.BOOT, Label.PULL, Label.CHECK, Label.START_UP)

NOTHING_LOST = {"finished", "preempted", "interrupted", "paused"}
"""Reasons to end that come after everything was committed."""

ALIVE_FOR_S, GETS_READY_FOR_S = 60.0, 1800.0
"""The newest attempt counts as running for so long after its last sign of life, which it gives every few seconds once
it trains, and for so long after its claim while it gets ready and gives none.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an hour of an attempt's machine costs, as its claim has it under ``price``."""

    usd_per_h: float | None = None
    on_demand_usd_per_h: float | None = None
    machine: str = ""
    date: str = ""
    """When the price was looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptBill:
    """One attempt's seconds."""

    attempt: int
    machine: str
    began_at: str
    ended_at: str
    """When it was last heard of."""

    ended: str
    """The reason of its end record, or ``vanished`` or ``running``."""

    seconds: dict[Label, float]
    steps_lost: int
    away_s: float | None
    """From its last record to the start of the next attempt; nothing for the newest."""

    price: Price

    @property
    def wall_s(self) -> float:
        """From the start of its process to its last record."""
        return _seconds_between(self.began_at, self.ended_at)

    @property
    def usd(self) -> float | None:
        """What its seconds cost, if it has a price."""
        rate = self.price.usd_per_h
        return None if rate is None else sum(self.seconds.values()) * rate / HOUR


@dataclass(frozen=True)
class Bill:
    """A whole run's seconds and dollars."""

    attempts: tuple[AttemptBill, ...]

    @cached_property
    def seconds(self) -> dict[Label, float]:
        """Seconds by label over all attempts, each label in its place."""
        return _sum(attempt.seconds for attempt in self.attempts)

    @property
    def total_s(self) -> float:
        """All seconds of all attempts."""
        return sum(self.seconds.values())

    @property
    def away_s(self) -> float:
        """Seconds between attempts."""
        return sum(attempt.away_s or 0.0 for attempt in self.attempts)

    @property
    def goodput(self) -> float:
        """Useful seconds as a share of all."""
        return self.seconds[Label.USEFUL] / self.total_s if self.total_s else 0.0

    @property
    def num_cut_off(self) -> int:
        """How many attempts ended before the run did."""
        return sum(attempt.ended not in {"finished", "running"} for attempt in self.attempts)

    @cached_property
    def usd_by_label(self) -> dict[Label, float] | None:
        """Dollars by label, or nothing if no attempt has a price."""
        priced = [(attempt, attempt.price.usd_per_h) for attempt in self.attempts]
        if all(rate is None for _, rate in priced):
            return None
        return _sum(
            {label: s * rate / HOUR for label, s in attempt.seconds.items()}
            for attempt, rate in priced
            if rate is not None
        )

    @property
    def usd(self) -> float | None:
        """Dollars in all, or nothing if no attempt has a price."""
        return None if self.usd_by_label is None else sum(self.usd_by_label.values())

    @property
    def num_unpriced(self) -> int:
        """How many attempts have no price."""
        return sum(attempt.price.usd_per_h is None for attempt in self.attempts)

    @property
    def uninterrupted_s(self) -> float:
        """What one attempt that nobody cuts off would have taken, as far as the records tell."""
        again = sum(
            s for attempt in self.attempts[1:] for label, s in attempt.seconds.items() if label in GETTING_READY
        )
        return self.total_s - self.seconds[Label.LOST] - self.seconds[Label.RECOMPUTED] - again

    @property
    def on_demand_usd(self) -> float | None:
        """What `uninterrupted_s` cost on demand, by the newest price known, or nothing."""
        known = [rate for attempt in self.attempts if (rate := attempt.price.on_demand_usd_per_h) is not None]
        return self.uninterrupted_s * known[-1] / HOUR if known else None

    @property
    def cost(self) -> str:
        """The cost in a sentence, for people."""
        if self.usd is None:
            return "own machine, no price"
        said = dollars(self.usd)
        if self.num_unpriced:
            said += f", without {self.num_unpriced} attempts that have no price"
        if self.on_demand_usd is not None:
            said += f"; on demand, uninterrupted: {dollars(self.on_demand_usd)}"
        return said

    def table(self) -> str:
        """Return the ledger for a terminal of 80 columns."""
        usd = self.usd_by_label
        lines = [f"{'ledger':18}{'time':>14}{'share':>9}" + (f"{'USD':>12}" if usd else "")]
        for label, seconds in self.seconds.items():
            if seconds:
                line = f"{label:18}{duration(seconds):>14}{percent(seconds / self.total_s):>9}"
                lines.append(line + (f"{dollars(usd[label]):>12}" if usd else ""))
        total = f"{'all':18}{duration(self.total_s):>14}{'':9}"
        lines += [
            (total + (f"{dollars(self.usd or 0):>12}" if usd else "")).rstrip(),
            "",
            f"goodput     {percent(self.goodput)} of all seconds were useful steps",
            f"between     {duration(self.away_s)} without a sign of life from any attempt",
            f"cost        {self.cost}",
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "attempts": [
                {
                    "attempt": attempt.attempt,
                    "began_at": attempt.began_at,
                    "ended_at": attempt.ended_at,
                    "ended": attempt.ended,
                    "wall_s": attempt.wall_s,
                    "seconds": _rounded(attempt.seconds),
                    "steps_lost": attempt.steps_lost,
                    "away_s": attempt.away_s,
                    "usd_per_h": attempt.price.usd_per_h,
                    "usd": attempt.usd,
                }
                for attempt in self.attempts
            ],
            "seconds": _rounded(self.seconds),
            "total_s": round(self.total_s, 3),
            "away_s": round(self.away_s, 3),
            "goodput": round(self.goodput, 5),
            "usd_by_label": self.usd_by_label,
            "usd": self.usd,
            "uninterrupted_s": round(self.uninterrupted_s, 3),
            "on_demand_usd": self.on_demand_usd,
        }


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
    following = [*attempts[1:], None]
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
    silent_s = _seconds_between(ended_at, at)
    alive = later is None and silent_s < (ALIVE_FOR_S if attempt["pulse"] else GETS_READY_FOR_S)
    ended = attempt["end"]["reason"] if attempt["end"] else "running" if alive else "vanished"
    last = attempt["end"] or attempt["pulse"]
    seconds = _sum([last["seconds"]]) if last else _sum([{Label.START_UP: _seconds_between(began_at, ended_at)}])
    receipt = ((later or {}).get("start") or {}).get("receipt") or {}
    if ended not in {*NOTHING_LOST, "running"}:
        seconds = _without_lost(seconds, _kept_seconds(attempt, kept, receipt, seconds))
    price = attempt.get("price") or {}
    return AttemptBill(
        attempt=attempt["attempt"],
        machine=price.get("machine") or attempt["machine"],
        began_at=began_at,
        ended_at=ended_at,
        ended=ended,
        seconds=seconds,
        steps_lost=receipt.get("steps_lost", 0),
        away_s=max(0.0, _seconds_between(ended_at, _began_at(later))) if later else None,
        price=Price(**{name: price[name] for name in Price.__slots__ if name in price}),
    )


def _kept_seconds(
    attempt: dict[str, Any],
    kept: tuple[CheckpointId, Mapping[str, float]] | None,
    receipt: dict[str, Any],
    seconds: dict[Label, float],
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


def _without_lost(seconds: dict[Label, float], kept: Mapping[Any, float]) -> dict[Label, float]:
    """Move to `Label.LOST` what came after the last commit."""
    lost = {label: max(0.0, s - kept.get(label, 0.0)) for label, s in seconds.items() if label not in GETTING_READY}
    return {label: s - lost.get(label, 0.0) for label, s in seconds.items()} | {
        Label.LOST: seconds[Label.LOST] + sum(lost.values()) - lost.get(Label.LOST, 0.0)
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


def _seconds_between(earlier: str, later: str) -> float:
    return round((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds(), 3)


def _sum(parts: Iterable[Mapping[Any, float]]) -> dict[Label, float]:
    """Add up amounts by label; every label has one."""
    total = dict.fromkeys(Label, 0.0)
    for part in parts:
        for label, amount in part.items():
            total[Label(label)] += amount
    return total


def _rounded(seconds: Mapping[Label, float]) -> dict[str, float]:
    return {str(label): round(s, 3) for label, s in seconds.items()}
