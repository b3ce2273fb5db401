"""Cost of a run: seconds of its attempts by phase, and dollars.

- An attempt's wall time runs from the start of its process to its last record: its end, or else its last sign of life.
- Where an attempt was cut off (it vanished, was superseded or failed), its seconds after the snapshot of its last
  commit are `Phase.LOST`; getting ready is never lost. A lost step counts as lost once: the attempt that trains it
  again keeps it, so that its `Phase.RECOMPUTED` is useful work.
- Time between an attempt's last record and the start of the next process is neither in the goodput nor in the cost.
- Dollars are seconds times the hourly price that the attempt was started with; `RunCost.usd` is unknown as soon as one
  price is. On demand, nothing would have been lost, and one attempt would have got ready.

Knows nothing of future cost, which is in `job.cloud.budget`.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from job.errors import CorruptObjectError, EndReason, ObjectNotFoundError
from job.goodput import Phase
from job.runs.listing import RunListing
from job.runs.records import AttemptRecord, CheckpointId, PhaseSeconds, Price, ResumeReceipt, now
from job.runs.run import Run
from job.text import HOUR, counted, dollars, duration, labelled, percent, seconds_between, table

GETTING_READY = (Phase.BOOT, Phase.PULL, Phase.CHECK, Phase.START_UP)

COMMITTED_ALL = {EndReason.FINISHED, EndReason.PREEMPTED, EndReason.INTERRUPTED, EndReason.PAUSED}
"""End reasons after which everything is committed, unless the record names uncommitted steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCost:
    """One attempt's seconds, from the start of its process to its last record."""

    attempt: int
    machine: str
    began_at: str
    ended_at: str
    ended: EndReason
    seconds: dict[Phase, float]
    steps_lost: int
    away_s: float | None
    """Seconds from its last record to the start of the next attempt; None for the newest."""

    price: Price

    @property
    def was_cut_off(self) -> bool:
        """Whether it ended before the end of the run."""
        return self.ended not in {EndReason.FINISHED, EndReason.RUNNING}

    @property
    def wall_s(self) -> float:
        """From the start of its process to its last record."""
        return seconds_between(self.began_at, self.ended_at)

    @property
    def usd(self) -> float | None:
        """Dollars of its seconds; None without a price."""
        return usd_of([(sum(self.seconds.values()), self.price.usd_per_h)])


@dataclass(frozen=True)
class RunCost:
    """Seconds and dollars of a run."""

    attempts: tuple[AttemptCost, ...]

    @cached_property
    def seconds(self) -> dict[Phase, float]:
        """Seconds by phase over all attempts, in the order of phases."""
        return sum_by_label(attempt.seconds for attempt in self.attempts)

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
        """Seconds of the steps that the run kept, as a share of all."""
        kept_s = self.seconds[Phase.USEFUL] + self.seconds[Phase.RECOMPUTED]
        return kept_s / self.total_s if self.total_s else 0.0

    @property
    def num_cut_off(self) -> int:
        """Number of attempts that ended before the end of the run."""
        return sum(attempt.was_cut_off for attempt in self.attempts)

    @cached_property
    def usd_by_label(self) -> dict[Phase, float] | None:
        """Dollars by phase; None if no attempt has a price."""
        parts = [
            {label: s * rate / HOUR for label, s in attempt.seconds.items()}
            for attempt in self.attempts
            if (rate := attempt.price.usd_per_h) is not None
        ]
        return sum_by_label(parts) if parts else None

    @property
    def usd(self) -> float | None:
        """Dollars in total; None, which means unknown, if one attempt has no price."""
        return usd_of((sum(attempt.seconds.values()), attempt.price.usd_per_h) for attempt in self.attempts)

    @property
    def known_usd(self) -> float | None:
        """Dollars of the attempts with a price; None if none has one."""
        return None if self.usd_by_label is None else sum(self.usd_by_label.values())

    @property
    def uninterrupted_s(self) -> float:
        """Seconds of one uninterrupted attempt, by the records."""
        again = sum(attempt.seconds[label] for attempt in self.attempts[1:] for label in GETTING_READY)
        return self.total_s - self.seconds[Phase.LOST] - again

    @property
    def on_demand_usd(self) -> float | None:
        """Dollars of `uninterrupted_s` on demand, by the newest known price; None without one."""
        known = [rate for attempt in self.attempts if (rate := attempt.price.on_demand_usd_per_h) is not None]
        return self.uninterrupted_s * known[-1] / HOUR if known else None

    @property
    def cost(self) -> str:
        """The cost in a sentence, for people."""
        if self.known_usd is None:
            return "own machine, no price"
        price = next(attempt.price for attempt in reversed(self.attempts) if attempt.price.usd_per_h is not None)
        known = [price.machine, f"prices of {price.date}" if price.date else ""]
        text = dollars(self.known_usd) + (f" ({', '.join(filter(None, known))})" if any(known) else "")
        if num_unpriced := sum(attempt.price.usd_per_h is None for attempt in self.attempts):
            text += f", without {counted(num_unpriced, 'attempt')} whose price is unknown"
        if self.on_demand_usd is not None:
            text += f"; on demand, uninterrupted: {dollars(self.on_demand_usd)}"
        return text

    def table(self) -> str:
        """Return phases, goodput and cost for a terminal of 80 columns."""
        usd = self.usd_by_label
        rows = [("phase", "time", "share", "USD")]
        for phase, seconds in self.seconds.items():
            if seconds:
                share, spent = percent(seconds / self.total_s), dollars(usd[phase]) if usd else ""
                rows.append((phase, duration(seconds), share, spent))
        rows.append(("all", duration(self.total_s), "", dollars(self.known_usd or 0)))
        lines = table(rows if usd else [row[:-1] for row in rows], right=(1, 2, 3))
        lines += ["", *labelled("goodput", f"{percent(self.goodput)} of all seconds were useful steps")]
        lines += labelled("between", f"{duration(self.away_s)} without a heartbeat from any attempt")
        return "\n".join([*lines, *labelled("cost", self.cost)])

    def to_json(self) -> dict[str, object]:
        """Return everything as plain values."""
        fields = ("attempt", "began_at", "ended_at", "ended", "wall_s", "steps_lost", "away_s", "usd")
        return {
            "attempts": [
                {
                    **{name: getattr(attempt, name) for name in fields},
                    "seconds": _rounded(attempt.seconds),
                    "usd_per_h": attempt.price.usd_per_h,
                }
                for attempt in self.attempts
            ],
            "seconds": _rounded(self.seconds),
            "total_s": round(self.total_s, 3),
            "away_s": round(self.away_s, 3),
            "goodput": round(self.goodput, 5),
            "usd_by_label": self.usd_by_label,
            "usd": self.usd,
            "known_usd": self.known_usd,
            "uninterrupted_s": round(self.uninterrupted_s, 3),
            "on_demand_usd": self.on_demand_usd,
        }


def read_cost(run: Run, listing: RunListing | None = None, at: str | None = None) -> RunCost:
    """Compute the cost of a run by its listing, which is made if left out, at a time, which is now if left out."""
    listing = listing or RunListing(run)
    committed: dict[int, tuple[CheckpointId, PhaseSeconds]] = {}
    for identity in listing.committed():
        with contextlib.suppress(ObjectNotFoundError, CorruptObjectError):  # deleted by retention, or damaged
            committed[identity.attempt] = identity, listing.manifest(identity).metadata.seconds
    return cost_of(listing.attempts(), at or now(), committed)


def cost_of(
    attempts: Sequence[AttemptRecord], at: str, committed: Mapping[int, tuple[CheckpointId, PhaseSeconds]] | None = None
) -> RunCost:
    """Compute the cost of attempts, in order, at a time.

    `committed` has each attempt's last commit that is still there, and the attempt's seconds when it was taken.
    """
    following = [*attempts, None][1:]
    return RunCost(
        tuple(
            _attempt_cost(attempt, later, (committed or {}).get(attempt.number), at)
            for attempt, later in zip(attempts, following, strict=True)
        )
    )


def _attempt_cost(
    attempt: AttemptRecord, later: AttemptRecord | None, committed: tuple[CheckpointId, PhaseSeconds] | None, at: str
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
        steps_lost=later.steps_lost_before if later else 0,
        away_s=seconds_between(attempt.last_sign_at, later.began_at) if later else None,
        price=attempt.claim.price,
    )


def _committed_seconds(
    attempt: AttemptRecord,
    committed: tuple[CheckpointId, PhaseSeconds] | None,
    receipt: ResumeReceipt | None,
    seconds: PhaseSeconds,
) -> PhaseSeconds:
    """Return an attempt's seconds at the snapshot of its last commit; zero seconds if it committed nothing.

    The last heartbeat, the manifest as long as it is kept, or the receipt of the next attempt has the commit. One that
    only the receipt has came after the last heartbeat: all known seconds were committed.
    """
    commits = [committed] if committed else []
    if attempt.heartbeat and (last := attempt.heartbeat.last_committed):
        commits.append((last.checkpoint, last.seconds))
    if receipt and receipt.checkpoint.attempt == attempt.number:
        commits.append((receipt.checkpoint, seconds))  # of two equal ones, `max` takes the first
    return max(commits, key=lambda commit: commit[0])[1] if commits else {}


def _without_lost(seconds: PhaseSeconds, committed: PhaseSeconds) -> PhaseSeconds:
    """Move the seconds after the last commit to `Phase.LOST`."""
    lost = {
        label: max(0.0, s - committed.get(label, 0.0)) for label, s in seconds.items() if label not in GETTING_READY
    }
    return {label: s - lost.get(label, 0.0) for label, s in seconds.items()} | {
        Phase.LOST: seconds[Phase.LOST] + sum(lost.values()) - lost.get(Phase.LOST, 0.0)
    }


def usd_of(parts: Iterable[tuple[float, float | None]]) -> float | None:
    """Return the dollars of machine seconds, each with its hourly price; None if one price is unknown."""
    total = 0.0
    for seconds, usd_per_hour in parts:
        if usd_per_hour is None:
            return None
        total += seconds * usd_per_hour / HOUR
    return total


def sum_by_label(parts: Iterable[Mapping[Phase, float]]) -> dict[Phase, float]:
    """Add up amounts by phase; every phase has a sum."""
    total = dict.fromkeys(Phase, 0.0)
    for part in parts:
        for label, amount in part.items():
            total[label] += amount
    return total


def _rounded(seconds: Mapping[Phase, float]) -> dict[str, float]:
    return {str(label): round(s, 3) for label, s in seconds.items()}
