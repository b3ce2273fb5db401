"""How often checkpoints are taken within an epoch, what they cost, and what would be best.

Knows nothing of what is in a checkpoint.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class CheckpointSchedule:
    """The clock that asks for checkpoints, and the account of them."""

    def __init__(
        self, every_s: float, preempted_after_s: list[float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin.

        Args:
            every_s: Seconds between checkpoints; 0 takes them at the ends of epochs only.
            preempted_after_s: How long the earlier attempts lived that were cut off.
            clock: Seconds from any origin.
        """
        self._every_s = every_s
        self._preempted_after_s = [s for s in preempted_after_s if s > 0]  # or a clock was set back: not known
        self._clock = clock
        self._last = clock()
        self._stalls_s: list[float] = []

    def due(self) -> bool:
        """Whether the next checkpoint is to be taken now."""
        return self._every_s > 0 and self._clock() - self._last >= self._every_s

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Measure how long training stands still for a checkpoint, and count the time to the next from its end."""
        started = self._clock()
        yield
        self._last = self._clock()
        self._stalls_s.append(self._last - started)

    @property
    def stall_s(self) -> float:
        """Mean time for which a checkpoint stops training, in seconds; 0 before the first."""
        return sum(self._stalls_s) / len(self._stalls_s) if self._stalls_s else 0.0

    @property
    def optimum_s(self) -> float | None:
        """The interval that loses least, if attempts were cut off: Young (1974), sqrt(2 x cost x mean time between).

        What a checkpoint costs is the time for which it stops training; the rest of it happens in the background.
        """
        if not self._preempted_after_s or not self._stalls_s:
            return None
        mean_between_s = sum(self._preempted_after_s) / len(self._preempted_after_s)
        return math.sqrt(2 * self.stall_s * mean_between_s)

    def to_json(self) -> dict[str, Any]:
        """Return the account for an attempt's record."""
        return {
            "every_s": self._every_s,
            "num": len(self._stalls_s),
            "stall_s": round(self.stall_s, 4),
            "num_preempted": len(self._preempted_after_s),
            "optimum_s": self.optimum_s and round(self.optimum_s, 1),
        }

    def __str__(self) -> str:
        chosen = f"every {self._every_s:g} s and after each epoch" if self._every_s else "after each epoch"
        said = f"checkpoints {chosen}; each stops training for {1000 * self.stall_s:.0f} ms"
        if self.optimum_s is None:
            return f"{said}; no attempt was cut off so far"
        mean_s = sum(self._preempted_after_s) / len(self._preempted_after_s)
        return (
            f"{said}; attempts were cut off after {mean_s:.0f} s on average, for which {self.optimum_s:.1f} s is best"
        )
