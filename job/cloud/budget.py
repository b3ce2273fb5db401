"""Budget: the worst-case cost of a submission, and the limit that it has to fit into.

Guarantees that a submission that fits into the rest of a limit cannot exceed it, even without a supervisor. Counts
machines only: disk, storage, network and logs come on top, and so does a price above the range on record. The cost so
far, by the attempts' records, is in `job.runs.cost`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from job.cloud.machine_types import Provisioning, find_machine
from job.cloud.submission import MAX_RETRIES, MAX_RUN_S
from job.errors import RunStoppedError, UsageError
from job.runs.cost import usd_of
from job.text import HOUR

START_UP_S = 900
"""Boot, driver installation and image pull of one machine, which no limit of Batch covers."""

MIN_RUN_S = 1800
"""An attempt shorter than this is not worth its start."""

LIMITED_RETRIES = 3
"""Fewest retries: if more would leave each attempt less than `LONG_RUN_S`. The supervisor adds submissions."""

LONG_RUN_S = 12 * HOUR

Prices = Mapping[str, Mapping[str, float]]
"""Dollars an hour by machine type, under the kinds of `Provisioning`: the user's own prices."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Limit of all machines of a run together; none if both fields are None."""

    usd: float | None = None
    hours: float | None = None
    """Machine hours: for machines whose price is not known."""

    def __str__(self) -> str:
        if self.usd is not None:
            return f"{self.usd:.2f} USD"
        return "no limit" if self.hours is None else f"{self.hours:g} machine hours"


def usd_per_hour(prices: Prices, machine: str, provisioning: Provisioning) -> float | None:
    """Return the high end of the dollars an hour, the user's own price first; None without a price.

    Without a price of its own, flex-start has that of on demand, which it never exceeds.
    """
    own = prices.get(machine, {}).get(provisioning)
    price = own if own is not None else find_machine(machine).usd_per_hour(provisioning)
    if price is None and provisioning is Provisioning.FLEX_START:
        return usd_per_hour(prices, machine, Provisioning.ON_DEMAND)
    return price


def require_price(prices: Prices, machine: str, provisioning: Provisioning) -> float:
    """Return the dollars an hour of a machine; raises `UsageError` if no price is on record."""
    price = usd_per_hour(prices, machine, provisioning)
    if price is None:
        raise UsageError(
            f"--max-usd: the price of {machine} is not on record; write "
            f"`prices: {{{machine}: {{{provisioning}: USD}}}}` an hour to cloud.yaml, or leave the limit out"
        )
    return price


def worst_s(max_retries: int, max_run_s: int) -> float:
    """Return the longest that a submission's machines can run: every attempt to its limit, each after a slow start."""
    return float((max_retries + 1) * (max_run_s + START_UP_S))


def durations_within(left: Limit, price: float | None) -> tuple[int, int]:
    """Return the retries and the seconds of one attempt that fit into a rest of a limit, at dollars an hour.

    Raises `RunStoppedError` if too little is left for one worthwhile attempt.
    """
    seconds = seconds_within(left, price)
    if seconds is None:
        return MAX_RETRIES, MAX_RUN_S
    for retries in range(MAX_RETRIES, -1, -1):
        run_s = int(seconds / (retries + 1)) - START_UP_S
        if run_s >= (LONG_RUN_S if retries > LIMITED_RETRIES else MIN_RUN_S):
            return retries, min(run_s, MAX_RUN_S)
    needed_s = worst_s(0, MIN_RUN_S)
    if left.usd is not None:
        usd = usd_of([(needed_s, price)]) or 0.0
        raise RunStoppedError(
            f"--max-usd: {max(left.usd, 0):.2f} USD are left, and one attempt of {MIN_RUN_S // 60} minutes on this "
            f"machine may cost {usd:.2f}; raise the limit to continue"
        )
    raise RunStoppedError(
        f"limit: {seconds / HOUR:.2f} machine hours are left, and one attempt of {MIN_RUN_S // 60} minutes may take "
        f"{needed_s / HOUR:.2f}; raise `max_hours` in cloud.yaml, or pass --no-limit, to continue"
    )


def seconds_within(left: Limit, price: float | None) -> float | None:
    """Return the seconds that machines may run on the rest of a limit; None without a limit."""
    if left.usd is not None and price is not None:
        return max(left.usd, 0.0) / price * HOUR
    return None if left.hours is None else max(left.hours, 0.0) * HOUR
