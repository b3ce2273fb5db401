"""Watchdog: ends a process that hangs, so that a scheduler starts it again.

Guarantees that a process without progress for a stated time logs the stack of each thread and exits with 75. A pause of
the whole process is no hang: time counts only while the watchdog itself runs. Knows nothing of the work.
"""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from job.background import Background
from job.errors import HangError

log = logging.getLogger(__name__)

NO_STEP = "training: no step and no batch of a validation was done"
NO_BYTE = "getting ready, or finishing: no byte was read or written"
"""Subjects of the message; under `NO_BYTE`, bytes that the process reads or writes count as progress."""

LOOKS = 20
"""The fewest looks within that time."""

LONGEST_LOOK_S = 10.0

NOISE_BYTES = 65_536
"""Bytes that the watchdog itself may read and write between two looks."""

FINAL_LOG_S = 15.0
"""The longest time for logging and recording a hang."""


class Watchdog(Background):
    """Watches blocks under `watching`; a context manager. A limit of 0 watches nothing."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("watchdog", self._watch)
        self._limit_s, self._clock = limit_s, clock
        self.on_hang: Callable[[HangError], None] = lambda _error: None
        """Called, from another thread, before the process leaves."""

        self._watched = ""
        self._idle_s = 0.0
        self._moved = 0

    def __enter__(self) -> Self:
        if self._limit_s:
            self.start()
        return self

    def beat(self) -> None:
        """Report progress; cheap enough for every batch."""
        self._idle_s = 0.0

    @contextmanager
    def watching(self, subject: str) -> Iterator[None]:
        """Watch a block, as `NO_STEP`, `NO_BYTE`, or by another subject for work that reports progress by `beat`."""
        before, self._watched = self._watched, subject
        self.beat()
        try:
            yield
        finally:
            self._watched = before
            self.beat()

    def _watch(self) -> None:
        look_s = min(self._limit_s / LOOKS, LONGEST_LOOK_S)
        looked = self._clock()
        while not self.closed.wait(look_s):
            since, looked = looked, self._clock()
            self.look(min(looked - since, 2 * look_s))

    def look(self, passed_s: float) -> None:
        """Add time without progress, and end the process at the limit."""
        subject = self._watched
        moved = bytes_moved()
        if not subject or (subject == NO_BYTE and (moved is None or moved - self._moved > NOISE_BYTES)):
            self._moved = moved or 0
            self.beat()
            return
        self._idle_s += passed_s
        if self._idle_s >= self._limit_s:
            self._end(subject)

    def _end(self, subject: str) -> None:
        error = HangError(
            f"{subject} for {self._limit_s:g} s, so the process leaves; the same command resumes from what is "
            "committed; --hang-after allows more"
        )

        def say() -> None:
            log.error("%s\n%s", error, stacks(), extra={"exit_code": error.exit_code})
            self.on_hang(error)

        words = threading.Thread(target=say, name="last words", daemon=True)  # the log may hang as well
        words.start()
        words.join(FINAL_LOG_S)
        os._exit(error.exit_code)


def stacks() -> str:
    """Return the stack of each thread of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()  # noqa: SLF001 -- the only way to see other threads
    )


def bytes_moved() -> int | None:
    """Return how many bytes this process has read and written; `None` where the system does not count them."""
    try:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    except OSError:
        return None
    return int(counts["rchar"]) + int(counts["wchar"])
