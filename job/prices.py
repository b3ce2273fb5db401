"""What an hour of a machine costs, as far as whoever starts the job has said it.

Whoever starts the job elsewhere knows its price and passes it on in `USD_PER_HOUR`; nothing here knows a price.
"""

import math
import os

from job.errors import UsageError

USD_PER_HOUR = "JOB_USD_PER_HOUR"
"""The variable with the dollars for an hour of the machine that the job runs on."""


def usd_per_hour() -> float | None:
    """Return what an hour of this machine costs, or nothing if nobody has said it.

    Raises:
        UsageError: If what was said is no amount.
    """
    text = os.environ.get(USD_PER_HOUR)
    return read_usd(text, USD_PER_HOUR) if text else None


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
