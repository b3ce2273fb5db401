"""Ends a process that hangs, so that a scheduler starts it again.

Guarantees that a process in which nothing is done for a stated time shows where each of its threads stands, and leaves
with exit 75. A pause of the whole process is no hang: time counts only while the watchdog itself runs. Knows nothing of
what is done.
"""

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from job.background import Background
from job.errors import HangError

log = logging.getLogger(__name__)

HANG_S = 1800.0
"""For how long nothing may be done, if nobody says otherwise."""

NO_STEP = "training: no step and no batch of a validation was done"
NO_BYTE = "getting ready, or finishing: no byte was read or written"
"""What hangs, for the message."""

LOOKS = 20
"""How often one looks in that time, at least."""

LONGEST_LOOK_S = 10.0

NOISE_BYTES = 65_536
"""What looking and logging themselves may read and write."""

LAST_WORDS_S = 15.0
"""How long the process may take to say that it hangs, and to record it."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """What is watched now."""

    what: str
    bytes_count: bool
    """Bytes that the process reads or writes show that it does not hang."""


class Watchdog:
    """Watches what is inside `watching`; use it as a context manager.

    Args:
        limit_s: For how long nothing may be done; 0 watches nothing.
        clock: Seconds from any origin.
    """

    def __init__(self, limit_s: float = HANG_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self.on_hang: Callable[[HangError], None] = lambda _error: None
        """Called, from another thread, before the process leaves."""

        self._watched: _Watched | None = None
        self._idle_s = 0.0
        self._moved = 0
        self._closed = threading.Event()
        self._background = Background("watchdog", self._watch)

    def __enter__(self) -> Self:
        if self._limit_s:
            self._background.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def beat(self) -> None:
        """Take note that something was done; cheap enough for every batch."""
        self._idle_s = 0.0

    def check(self) -> None:
        """Raise what its thread failed of, if it did."""
        self._background.check()

    @contextmanager
    def watching(self, what: str, *, bytes_count: bool = False) -> Iterator[None]:
        """Watch what is inside.

        Args:
            what: What it is and what counts as done, for the message.
            bytes_count: Bytes that the process reads or writes count as done, beside each `beat`.
        """
        before, self._watched = self._watched, _Watched(what, bytes_count)
        self.beat()
        try:
            yield
        finally:
            self._watched = before
            self.beat()

    def _watch(self) -> None:
        look_s = min(self._limit_s / LOOKS, LONGEST_LOOK_S)
        looked = self._clock()
        while not self._closed.wait(look_s):
            since, looked = looked, self._clock()
            self.look(min(looked - since, 2 * look_s))

    def look(self, passed_s: float) -> None:
        """Count time in which nothing was done, and end the process if it is too much."""
        watched = self._watched
        moved = bytes_moved()
        if watched is None or (watched.bytes_count and (moved is None or moved - self._moved > NOISE_BYTES)):
            self._moved = moved or 0
            self.beat()
            return
        self._idle_s += passed_s
        if self._idle_s >= self._limit_s:
            self._end(watched)

    def _end(self, watched: _Watched) -> None:
        error = HangError(
            f"{watched.what} for {self._limit_s:g} s, so the process leaves; the same command goes on from the last "
            "committed checkpoint; --hang-after allows more"
        )

        def say() -> None:
            log.error("%s\n%s", error, stacks(), extra={"exit_code": error.exit_code})
            self.on_hang(error)

        words = threading.Thread(target=say, name="last words", daemon=True)  # the log may hang as well
        words.start()
        words.join(LAST_WORDS_S)
        os._exit(error.exit_code)


def stacks() -> str:
    """Return where each thread of this process stands."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()  # noqa: SLF001 -- the only way to see other threads
    )


def bytes_moved() -> int | None:
    """Return how many bytes this process has read from files and written to them; nothing where nobody counts."""
    try:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    except OSError:
        return None
    return int(counts["rchar"]) + int(counts["wchar"])
