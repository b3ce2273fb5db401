"""Values from text, for every command alike."""

import os
from typing import get_args

from job.errors import UsageError
from job.recipe import Profile
from job.store import Store, open_store


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
