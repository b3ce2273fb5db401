"""Retries with backoff, beside those of the cloud's libraries.

Guarantees that an operation that keeps failing ends within its deadline, as `TransientStoreError`, and that what is
damaged or absent was looked at twice. Knows nothing of a backend.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from job.errors import BucketNotFoundError, CorruptObjectError, ObjectNotFoundError, StoreError, TransientStoreError

Result = TypeVar("Result")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
"""Pause between two tries: doubled each time, with jitter."""


class RetryableError(Exception):
    """A transient failure of one try on the object with a URI."""

    def __init__(self, subject: str, what: str) -> None:
        super().__init__(f"{subject}: {what}")
        self.subject, self.what = subject, what


def retried(operation: Callable[[float], Result], deadline_s: float) -> Result:
    """Call an operation, with the seconds left for its own retries, until it succeeds; return its result.

    Raises `TransientStoreError` after `RetryableError` for `deadline_s` seconds from the first on, so that a long
    transfer may fail at its end; and the second `CorruptObjectError`, `ObjectNotFoundError` or `BucketNotFoundError`.
    """
    failing_since: float | None = None
    pause_s = FIRST_PAUSE_S
    seen: set[type[StoreError]] = set()
    while True:
        left_s = deadline_s if failing_since is None else deadline_s - (time.monotonic() - failing_since)
        try:
            return operation(left_s)
        except (CorruptObjectError, ObjectNotFoundError, BucketNotFoundError) as error:
            if type(error) in seen:
                raise
            seen.add(type(error))
        except RetryableError as error:
            now = time.monotonic()
            failing_since = now if failing_since is None else failing_since
            if now - failing_since + pause_s > deadline_s:
                raise TransientStoreError(
                    f"{error.subject}: {error.what}, and kept failing for {now - failing_since:.0f} s; try again later"
                ) from error
            time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 -- no secret
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
