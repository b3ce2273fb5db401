"""Checkpoint schedule within an epoch, its overhead, and the optimal interval by Young (1974).

Knows nothing of the content of a checkpoint.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

AUTO_SHARE = 0.01
"""Share of the time that stalls may take at an interval of ``auto``."""


class CheckpointSchedule:
    """Decides when the next checkpoint is due, and measures the stalls.

    An interval `every_s` of 0 takes checkpoints at the ends of epochs only, ``auto`` as often as `AUTO_SHARE` allows.
    Another is the longest one: checkpoints divide the time to the end of the epoch, at which one is taken anyway, into
    equal parts. `preempted_after_s` are the lifetimes of the earlier attempts that were preempted.
    """

    def __init__(
        self,
        every_s: float | Literal["auto"],
        preempted_after_s: list[float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every_s = every_s
        self._lives_s = [s for s in preempted_after_s if s > 0]  # else a clock was set back, and the life is unknown
        self._is_cut_off = bool(preempted_after_s)
        self._clock = clock
        self._begun = self._last = clock()
        self._num_left, self._last_step = 0, self._begun  # as after an epoch: the start weights are validated, too
        self._num_steps, self._steps_s = 0, 0.0
        self._validation_s = 0.0
        self._stalls_s: list[float] = []

    def due(self, num_left: int) -> bool:
        """Whether the next checkpoint is to be taken now, after a step; the epoch has so many left."""
        now = self._clock()
        passed_s = now - self._last
        if isinstance(self._every_s, str):
            all_s = sum(self._stalls_s)  # those at the ends of epochs, which come unasked, too
            return passed_s >= self.stall_s / AUTO_SHARE and now - self._begun >= all_s / AUTO_SHARE
        if num_left == self._num_left - 1:
            self._num_steps += 1
            self._steps_s += now - self._last_step
        self._num_left, self._last_step = num_left, now
        left_s = num_left * self._steps_s / max(1, self._num_steps) + self._validation_s
        if not 0 < passed_s < self._every_s:
            return passed_s >= self._every_s > 0
        num_parts = math.ceil((passed_s + left_s) / self._every_s)
        return num_parts > 1 and passed_s * num_parts >= passed_s + left_s

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Measure the stall of a checkpoint; the time to the next one counts from its end."""
        started = self._clock()
        if self._num_left == 0:
            self._validation_s = started - self._last_step
        yield
        self._last = self._clock()
        self._stalls_s.append(self._last - started)

    @contextmanager
    def prolonged(self) -> Iterator[None]:
        """Measure what follows of the stall of the last checkpoint."""
        started = self._clock()
        yield
        self._last = self._clock()
        self._stalls_s[-1] += self._last - started

    @property
    def stall_s(self) -> float:
        """Mean stall of a checkpoint, in seconds; 0 before the first."""
        return statistics.fmean(self._stalls_s or [0.0])

    @property
    def optimum_s(self) -> float | None:
        """The optimal interval in seconds, if attempts were preempted: Young (1974), sqrt(2 x stall x mean lifetime).

        The stall is the whole cost of a checkpoint: writing and upload happen in the background.
        """
        if not self._lives_s or not self._stalls_s:
            return None
        return math.sqrt(2 * self.stall_s * statistics.fmean(self._lives_s))

    def to_json(self) -> dict[str, object]:
        """Return the schedule and its overhead for an attempt's record."""
        return {
            "every_s": self._every_s,
            "num": len(self._stalls_s),
            "stall_s": round(self.stall_s, 4),
            "num_preempted": len(self._lives_s),
            "optimum_s": self.optimum_s and round(self.optimum_s, 1),
        }

    def __str__(self) -> str:
        every_s = self._every_s
        often = f"within {AUTO_SHARE:.0%} of the time" if isinstance(every_s, str) else f"every {every_s:g} s"
        chosen = f"{often} and after each epoch" if every_s else "after each epoch"
        text = f"checkpoints {chosen}; each stops training for {1000 * self.stall_s:.0f} ms"
        if self.optimum_s is None:
            return text if self._is_cut_off else f"{text}; no attempt was cut off so far"
        mean_s = statistics.fmean(self._lives_s)
        return (
            f"{text}; attempts were cut off after {mean_s:.0f} s on average, for which {self.optimum_s:.1f} s is best"
        )
