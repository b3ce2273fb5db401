"""Goodput and badput: each second of an attempt counts for exactly one phase."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from job.background import Background


class Phase(StrEnum):
    """Phase of an attempt; each second counts for one."""

    BOOT = "boot"
    """From the start of the process to its first read of the bucket."""

    PULL = "pull"
    CHECK = "check"
    START_UP = "start-up"
    USEFUL = "useful step"
    """A training step; a GPU may work on it while the CPU waits for the next batch already."""

    DATA_WAIT = "data wait"
    """No batch is there, and a GPU has nothing to do."""

    VALIDATION = "validation"
    STALL = "checkpoint stall"
    """Training stands still while its state is copied."""

    RECOMPUTED = "recomputed"
    """Steps that an earlier attempt trained and lost, trained again and kept."""

    FINAL_EVALUATION = "final evaluation"
    IDLE = "idle"
    """Waiting for the machine to end, or for the bucket."""

    SUSPENDED = "suspended"
    """The whole process stood still: stopped by a signal, or frozen with its container or machine."""

    LOST = "lost"
    """Steps after the last commit of an attempt that vanished; known only after its end."""

    UNKNOWN = "unknown"
    """Phases that a later version of the job recorded."""


TICK_S, STANDSTILL_S = 1.0, 5.0
"""A watched timer adds its time once a second; five seconds without an addition are a standstill."""


class PhaseTimer:
    """Adds up one attempt's seconds, from `Phase.START_UP` on, after `before_s` of `Phase.BOOT`; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, before_s: float = 0.0) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._is_watched, self._standstill_s = False, STANDSTILL_S
        self._seconds = {Phase.BOOT: before_s}
        self._phase, self._since = Phase.START_UP, clock()

    def enter(self, phase: Phase) -> Phase:
        """Count from now on under a phase, and return the one before."""
        with self._lock:
            self._add()
            before, self._phase = self._phase, phase
            return before

    def rebook(self, seconds: float, before: Phase, after: Phase) -> None:
        """Count seconds of one phase under another; no more than the first one has."""
        with self._lock:
            self._add()
            moved = min(seconds, self._seconds.get(before, 0.0))
            if moved > 0:
                self._seconds[before] -= moved
                self._seconds[after] = self._seconds.get(after, 0.0) + moved

    @contextmanager
    def entered(self, phase: Phase) -> Iterator[None]:
        """Count a block under a phase."""
        before = self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    @contextmanager
    def watched(self, tick_s: float = TICK_S, standstill_s: float = STANDSTILL_S) -> Iterator[None]:
        """Count a standstill as `Phase.SUSPENDED`; enter it after long imports, which hold the lock of Python."""

        def tick() -> None:
            while not ticking.closed.wait(tick_s):
                with self._lock:
                    self._add()

        with self._lock:
            self._add()
            self._is_watched, self._standstill_s = True, standstill_s
        ticking = Background("phase timer", tick)
        try:
            with ticking:
                yield
        finally:
            with self._lock:
                self._add()
                self._is_watched = False
        ticking.check()

    def seconds(self) -> dict[str, float]:
        """Return the seconds so far by phase; they add up to the age of the process."""
        with self._lock:
            self._add()
            return {str(phase): round(s, 3) for phase, s in self._seconds.items()}

    def _add(self) -> None:
        """Add the time since the last call to its phase."""
        now = self._clock()
        passed, self._since = now - self._since, now
        stood_still = self._is_watched and passed >= self._standstill_s
        phase = Phase.SUSPENDED if stood_still else self._phase
        self._seconds[phase] = self._seconds.get(phase, 0.0) + passed
