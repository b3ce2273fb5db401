"""Values from text, for every command alike."""

import math
import os
import re
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, get_args

from job.cloud.budget import Limit
from job.cloud.machine_types import find_machine
from job.cloud.prices import read_usd, usd_per_hour
from job.cloud.settings import known_settings
from job.errors import JobError, RecipeError, UsageError
from job.recipes.recipe import Profile
from job.storage.object_store import Store
from job.storage.open_store import open_store

YEAR_S = 365 * 24 * 3600
"""The longest duration that is taken; what waits cannot count much further."""


def read_flag(text: str, name: str) -> bool:
    """Read a flag that may carry a value: ``--dry-run`` or ``--dry-run=false``.

    Raises:
        UsageError: If it is neither true nor false.
    """
    folded = text.casefold()
    if folded in {"true", "yes", "1"}:
        return True
    if folded in {"false", "no", "0"}:
        return False
    raise UsageError(f"--{name}: must be true or false, got {text!r}; leave the value out to mean true")


def read_profile(text: str) -> Profile:
    """Read ``full`` or ``demo``.

    Raises:
        UsageError: If it is neither.
    """
    for profile in get_args(Profile):
        if text == profile:
            return profile  # type: ignore[no-any-return]  # get_args loses the literal
    raise UsageError(f"--profile: must be full or demo, got {text!r}")


def bucket_location(bucket: str | None) -> str | None:
    """Return the bucket of the command line, or of the environment."""
    return bucket or os.environ.get("JOB_BUCKET") or None


def require_store(bucket: str | None) -> Store:
    """Open the bucket that was named.

    Raises:
        UsageError: If none was.
        StoreError: If it cannot be opened.
    """
    location = bucket_location(bucket)
    if location is None:
        raise UsageError("bucket: none was named; pass --bucket gs://BUCKET or a folder, or set JOB_BUCKET")
    return open_store(location)


def read_price(text: str | None, machine: str | None = None) -> float | None:
    """Read ``--usd-per-hour``; without it, what the machine's profile or else the environment says, if they do.

    Args:
        text: An amount.
        machine: A machine that is meant instead of this one; with ``-spot`` at its end, on Spot.

    Raises:
        UsageError: If it is no amount, or there is no such machine.
    """
    if text is not None:
        return read_usd(text, "--usd-per-hour")
    if machine is None:
        return usd_per_hour()
    kind = machine.removesuffix("-spot")
    return find_machine(kind.removesuffix("-on-demand")).usd_per_hour(spot=kind != machine)


def read_fraction(text: str, name: str) -> float:
    """Read a metric, as a fraction of 1 or in percent with its sign.

    Raises:
        UsageError: If it is neither.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise UsageError(f"--{name}: must be a fraction of 1 such as 0.72, or 72%, got {text!r}")
    return value


def read_number(text: str, name: str, minimum: int = 1, maximum: int = 1_000_000) -> int:
    """Read a whole number.

    Raises:
        UsageError: If it is none, or out of range.
    """
    number = int(text) if re.fullmatch(r"\d{1,12}", text) else -1
    if not minimum <= number <= maximum:
        raise UsageError(f"--{name}: must be a whole number from {minimum} to {maximum}, got {text!r}")
    return number


def read_seconds(text: str, name: str) -> float:
    """Read a duration.

    Raises:
        UsageError: If it is none, or longer than a year.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= YEAR_S:
        raise UsageError(f"--{name}: must be a number of seconds from 0 to {YEAR_S}, which is a year, got {text!r}")
    return seconds


class Mistakes:
    """Everything that is wrong with a command line, told at once: each ``with`` keeps the error that it ends in."""

    def __init__(self) -> None:
        self._found: list[JobError] = []

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, UsageError | RecipeError):
            self._found.append(error)
            return True
        return False

    def tell(self) -> None:
        """Raise what was kept, if anything was.

        Raises:
            UsageError: If a flag is wrong, with every problem.
            RecipeError: If only the recipe or its training arguments are.
        """
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            problems = [problem for error in self._found for problem in error.problems or (error.message,)]
            kind = UsageError if any(isinstance(error, UsageError) for error in self._found) else RecipeError
            raise kind(f"command line: {len(problems)} problems", problems)


CLOUD_FLAGS = ("project", "region", "image", "service_account", "network", "subnetwork", "wandb_secret")


def cloud_bucket(bucket: str | None, flags: dict[str, Any]) -> str | None:
    """Return the bucket of the command line, of the environment, or of the settings."""
    location = bucket_location(bucket)
    if location is not None:
        return require_gs(location)
    found = known_settings({name: flags[name] for name in CLOUD_FLAGS if name in flags}).get("bucket")
    if not isinstance(found, str):
        return None
    return require_gs(found if "://" in found else f"gs://{found}")


def read_deadline(text: str | None) -> str | None:
    """Read ``12h`` from now, or a time; without a zone it is this machine's.

    Raises:
        UsageError: If it is neither, or has passed.
    """
    if text is None:
        return None
    try:
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)h", text):
            due = datetime.now(UTC) + timedelta(hours=float(match[1]))
        else:
            due = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--deadline: must be hours from now such as 12h, or a time such as 2026-12-24T18:00, got {text!r}"
        ) from error
    if due <= datetime.now(UTC):
        raise UsageError(f"--deadline: has passed, got {text!r}")
    return due.isoformat(timespec="seconds")


def read_max_usd(text: str | None) -> float | None:
    """Read a number of dollars.

    Raises:
        UsageError: If it is none, or not positive.
    """
    if text is None:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not 0 < float(text) < math.inf:
        raise UsageError(f"--max-usd: must be a number of dollars, got {text!r}")
    return float(text)


def read_limit(max_usd: str | None, no_limit: str) -> Limit | None:
    """Read ``--max-usd`` and ``--no-limit``; nothing if neither is given.

    Raises:
        UsageError: If both are, or one is not understood.
    """
    usd = read_max_usd(max_usd)
    if not read_flag(no_limit, "no-limit"):
        return None if usd is None else Limit(usd=usd)
    if usd is not None:
        raise UsageError(f"--max-usd: {usd:g} and --no-limit contradict each other; pass one of them")
    return Limit()


def require_gs(location: str | None) -> str:
    """Return the location of a bucket that the cloud can reach.

    Raises:
        UsageError: If none was named, or if it is a folder.
    """
    if location is None:
        raise UsageError("bucket: none was named; pass --bucket gs://BUCKET, set JOB_BUCKET, or write it to cloud.yaml")
    if not location.startswith("gs://"):
        raise UsageError(f"bucket {location}: is on this machine, where the cloud cannot reach it; pass gs://BUCKET")
    return location
