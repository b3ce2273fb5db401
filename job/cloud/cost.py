"""What a run has cost and may still cost: machine time at the high end of the price.

Guarantees that a segment that fits into what is left of a limit cannot cost more, even if nobody watches it. Counts
machines only: disk, storage, network and logs come on top, and so does a price that rises above the range on record.
"""

from datetime import datetime

from job.cloud.machines import find_machine
from job.cloud.segment import MAX_RETRIES, MAX_RUN_S
from job.cloud.settings import Settings
from job.errors import RunStoppedError, UsageError

START_UP_S = 900
"""What one machine may take to boot, to install its driver and to pull the image, which no limit of Batch covers."""

MIN_RUN_S = 1800
"""An attempt shorter than this is not worth its start."""

LIMITED_RETRIES = 3
"""With a dollar limit: fewer attempts in a segment, so that each may be longer. The supervisor adds segments."""


def usd_per_hour(settings: Settings, machine: str, *, spot: bool) -> float | None:
    """Return the high end of what a machine costs an hour, the user's own figure first; nothing if nobody knows."""
    own = settings.prices.get(machine, {}).get("spot" if spot else "on_demand")
    return own if own is not None else find_machine(machine).usd_per_hour(spot=spot)


def require_price(settings: Settings, machine: str, *, spot: bool) -> float:
    """Return what a machine costs an hour.

    Raises:
        UsageError: If nobody knows, so that no limit could be kept.
    """
    price = usd_per_hour(settings, machine, spot=spot)
    if price is None:
        kind = "spot" if spot else "on_demand"
        raise UsageError(
            f"--max-usd: the price of {machine} is not on record; write `prices: {{{machine}: {{{kind}: USD}}}}` an "
            "hour to cloud.yaml, or leave the limit out"
        )
    return price


def billed_usd(start: datetime, end: datetime, price: float) -> float:
    """Return what a machine costs from its request to its end."""
    return max((end - start).total_seconds(), 0.0) / 3600 * price


def worst_usd(max_retries: int, max_run_s: int, price: float) -> float:
    """Return the most that a segment can cost: every attempt to its limit, each after a slow start."""
    return (max_retries + 1) * (max_run_s + START_UP_S) / 3600 * price


def durations_within(left_usd: float | None, price: float | None) -> tuple[int, int]:
    """Return the retries, and the seconds of one attempt, of a segment that costs at most what is left.

    Args:
        left_usd: What is left of the limit; nothing without one.
        price: Dollars an hour.

    Raises:
        RunStoppedError: If too little is left for one worthwhile attempt.
    """
    if left_usd is None or price is None:
        return MAX_RETRIES, MAX_RUN_S
    seconds = left_usd / price * 3600
    for retries in range(LIMITED_RETRIES, -1, -1):
        run_s = int(seconds / (retries + 1)) - START_UP_S
        if run_s >= MIN_RUN_S:
            return retries, min(run_s, MAX_RUN_S)
    raise RunStoppedError(
        f"--max-usd: {max(left_usd, 0):.2f} USD are left, and one attempt of {MIN_RUN_S // 60} minutes on this machine "
        f"may cost {worst_usd(0, MIN_RUN_S, price):.2f}; raise the limit to go on"
    )
