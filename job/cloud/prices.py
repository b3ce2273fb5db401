"""Price of an hour of this machine: the environment's, or the dated one of Google Cloud's machine types."""

import math
import os

from job.cloud.gce_metadata import MetadataError, MetadataServer
from job.cloud.machine_types import Provisioning, machines
from job.errors import UsageError
from job.runs.records import Price

USD_PER_HOUR = "JOB_USD_PER_HOUR"
"""Environment variable with the dollars an hour of this machine."""


def usd_per_hour() -> float | None:
    """Return the dollars an hour of the environment variable, read by `read_usd`, or None without it."""
    text = os.environ.get(USD_PER_HOUR)
    return read_usd(text, USD_PER_HOUR) if text else None


def price_here() -> Price:
    """Return the price of this machine, as far as it is known."""
    given = usd_per_hour()
    server = MetadataServer.find()
    if server is None:
        return Price(usd_per_h=given)
    try:
        type_, spot = server.machine_type(), server.is_spot()
    except MetadataError:
        return Price(usd_per_h=given)
    provisioning = Provisioning.SPOT if spot else Provisioning.ON_DEMAND
    machine = machines().get(type_)
    prices = machine.prices if machine else None
    # The server does not tell flex-start from on demand.
    kinds: tuple[Provisioning, ...] = machine.provisioning if machine and not spot else (provisioning,)
    return Price(
        usd_per_h=machine.usd_per_hour(provisioning) if given is None and machine else given,
        on_demand_usd_per_h=machine.usd_per_hour(Provisioning.ON_DEMAND) if machine else None,
        machine=f"{type_}, {' or '.join(kind.words for kind in kinds if (kind is Provisioning.SPOT) == spot)}",
        machine_type=type_,
        date=prices.date if prices and given is None else "",
    )


def read_usd(text: str, name: str) -> float:
    """Read an amount in dollars; raises `UsageError` if it is none."""
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not 0 <= usd < math.inf:
        raise UsageError(f"{name}: must be an amount in dollars, such as 0.35, got {text!r}")
    return usd
