"""What an hour of a machine costs: as whoever pays for it says, or by the dated prices of Google Cloud's machines."""

import math
import os

from job.cloud.gce_metadata import MetadataError, MetadataServer
from job.cloud.machine_types import machines
from job.errors import UsageError
from job.runs.records import Price

USD_PER_HOUR = "JOB_USD_PER_HOUR"
"""The variable with the dollars for an hour of the machine that the job runs on."""


def usd_per_hour() -> float | None:
    """Return what an hour of this machine costs by the environment, or nothing if nobody has said it.

    Raises:
        UsageError: If what was said is no amount.
    """
    text = os.environ.get(USD_PER_HOUR)
    return read_usd(text, USD_PER_HOUR) if text else None


def price_here() -> Price:
    """Return what an hour of this machine costs, as far as that is known.

    Raises:
        UsageError: If what the environment says is no amount.
    """
    said = usd_per_hour()
    server = MetadataServer.find()
    if server is None:
        return Price(usd_per_h=said)
    try:
        type_, spot = server.machine_type(), server.is_spot()
    except MetadataError:
        return Price(usd_per_h=said)
    machine = machines().get(type_)
    prices = machine.prices if machine else None
    return Price(
        usd_per_h=machine.usd_per_hour(spot=spot) if said is None and machine else said,
        on_demand_usd_per_h=machine.usd_per_hour(spot=False) if machine else None,
        machine=f"{type_}, {'Spot' if spot else 'on demand'}",
        machine_type=type_,
        date=prices.date if prices and said is None else "",
    )


def read_usd(text: str, name: str) -> float:
    """Read an amount in dollars.

    Raises:
        UsageError: If it is none.
    """
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not 0 <= usd < math.inf:
        raise UsageError(f"{name}: must be an amount in dollars, such as 0.35, got {text!r}")
    return usd
