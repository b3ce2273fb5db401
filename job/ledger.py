"""Where the seconds of an attempt went: each has exactly one label.

Knows nothing of what the labels mean to whoever enters them, nor of money.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Label(StrEnum):
    """What a second is spent on."""

    BOOT = "boot"
    """From the start of the process to the first look at the bucket."""

    PULL = "pull"
    CHECK = "check"
    START_UP = "start-up"
    USEFUL = "useful step"
    DATA_WAIT = "data wait"
    VALIDATION = "validation"
    STALL = "checkpoint stall"
    """Training stands still while its state is copied."""

    RECOMPUTED = "recomputed"
    """Steps that an earlier attempt had done and lost."""

    FINAL_EVALUATION = "final evaluation"
    IDLE = "idle"
    """Waiting for the machine to end, or for the bucket."""

    LOST = "lost"
    """Steps after the last commit of an attempt that vanished; known only afterwards."""


class Ledger:
    """Adds up one attempt's seconds; may be read from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, before_s: float = 0.0) -> None:
        """Begin with `Label.START_UP`.

        Args:
            clock: Seconds from any origin.
            before_s: Seconds that the process is old already: `Label.BOOT`.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds = {Label.BOOT: before_s}
        self._label, self._since = Label.START_UP, clock()

    def enter(self, label: Label) -> Label:
        """Count from now on under a label, and return the one before."""
        with self._lock:
            now, before = self._clock(), self._label
            self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
            self._label, self._since = label, now
            return before

    @contextmanager
    def entered(self, label: Label) -> Iterator[None]:
        """Count what is inside under a label."""
        before = self.enter(label)
        try:
            yield
        finally:
            self.enter(before)

    def seconds(self) -> dict[str, float]:
        """Return the seconds so far by label; they add up to the age of the process."""
        with self._lock:
            running = self._seconds.get(self._label, 0.0) + self._clock() - self._since
            return {str(label): round(s, 3) for label, s in (self._seconds | {self._label: running}).items()}
