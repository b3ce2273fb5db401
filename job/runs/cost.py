"""Cost of a run: seconds by phase and dollars, for each attempt and in total.

Guarantees one figure of the dollars used, `RunCost.usd`, which is unknown as soon as one price is. Dollars are seconds
times the hourly price of the attempt. The comparison on demand counts one start-up and no lost or recomputed seconds.
`job.runs.accounting` makes it from the records; future cost is in `job.cloud.budget`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from job.errors import EndReason
from job.goodput import Phase
from job.runs.records import Price
from job.text import HOUR, dollars, duration, labelled, percent, seconds_between, table

GETTING_READY = (Phase.BOOT, Phase.PULL, Phase.CHECK, Phase.START_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCost:
    """Seconds and price of one attempt."""

    attempt: int
    machine: str
    began_at: str
    ended_at: str
    """Time of its last record."""

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
    def total_s(self) -> float:
        """All its seconds."""
        return sum(self.seconds.values())

    @property
    def usd(self) -> float | None:
        """Dollars of its seconds; None without a price."""
        return usd_of([(self.total_s, self.price.usd_per_h)])


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
        """Useful seconds as a share of all."""
        return self.seconds[Phase.USEFUL] / self.total_s if self.total_s else 0.0

    @property
    def num_cut_off(self) -> int:
        """Number of attempts that ended before the end of the run."""
        return sum(attempt.was_cut_off for attempt in self.attempts)

    @cached_property
    def usd_by_label(self) -> dict[Phase, float] | None:
        """Dollars by phase; None if no attempt has a price."""
        priced = [(attempt, attempt.price.usd_per_h) for attempt in self.attempts]
        if all(rate is None for _, rate in priced):
            return None
        return sum_by_label(
            {label: s * rate / HOUR for label, s in attempt.seconds.items()}
            for attempt, rate in priced
            if rate is not None
        )

    @property
    def usd(self) -> float | None:
        """Dollars in total; None, which means unknown, if one attempt has no price."""
        return usd_of((attempt.total_s, attempt.price.usd_per_h) for attempt in self.attempts)

    @property
    def known_usd(self) -> float | None:
        """Dollars of the attempts with a price; None if none has one."""
        return None if self.usd_by_label is None else sum(self.usd_by_label.values())

    @property
    def num_unpriced(self) -> int:
        """Number of attempts without a price."""
        return sum(attempt.price.usd_per_h is None for attempt in self.attempts)

    @property
    def uninterrupted_s(self) -> float:
        """Seconds of one uninterrupted attempt, by the records."""
        again = sum(
            s for attempt in self.attempts[1:] for label, s in attempt.seconds.items() if label in GETTING_READY
        )
        return self.total_s - self.seconds[Phase.LOST] - self.seconds[Phase.RECOMPUTED] - again

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
        said = dollars(self.known_usd) + (f" ({', '.join(filter(None, known))})" if any(known) else "")
        if self.num_unpriced:
            said += f", without {self.num_unpriced} attempts whose price is unknown"
        if self.on_demand_usd is not None:
            said += f"; on demand, uninterrupted: {dollars(self.on_demand_usd)}"
        return said

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
            "known_usd": self.known_usd,
            "uninterrupted_s": round(self.uninterrupted_s, 3),
            "on_demand_usd": self.on_demand_usd,
        }


def usd_of(parts: Iterable[tuple[float, float | None]]) -> float | None:
    """Return the dollars of machine seconds, each with its hourly price; None if one price is unknown."""
    total = 0.0
    for seconds, usd_per_hour in parts:
        if usd_per_hour is None:
            return None
        total += seconds * usd_per_hour / HOUR
    return total


def sum_by_label(parts: Iterable[Mapping[Any, float]]) -> dict[Phase, float]:
    """Add up amounts by phase; every phase has a sum."""
    total = dict.fromkeys(Phase, 0.0)
    for part in parts:
        for label, amount in part.items():
            total[Phase(label)] += amount
    return total


def _rounded(seconds: Mapping[Phase, float]) -> dict[str, float]:
    return {str(label): round(s, 3) for label, s in seconds.items()}
