"""Checkpoint schedule within an epoch, its overhead, and the optimal interval by Young (1974).

Knows nothing of the content of a checkpoint.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

AUTO_SHARE, MOST_SHARE = 0.01, 0.1
"""Shares of the time that checkpoints may cost with ``auto``: while no attempt was preempted, and afterwards."""

FIRST_S = 5.0
"""Seconds before the first checkpoint at an interval of ``auto``: what one costs is not known before."""

NUM_STEPS = 200
"""Steps of either kind, the last ones, by which a slow-down is judged."""


class CheckpointSchedule:
    """Decides when the next checkpoint is due, and measures what they cost.

    Checkpoints divide the time to the end of an epoch, at which one is taken anyway, into equal parts, at most
    `every_s` long; an interval of 0 takes them at the ends of epochs only. With ``auto`` the parts are about as long as
    is best for the preemptions seen so far, and checkpoints cost at most `MOST_SHARE` of the time; if there were none,
    at most `AUTO_SHARE`.
    `preempted_after_s` are the lifetimes of the earlier attempts that were preempted.
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
        self._begun = self._last = self._last_step = clock()
        self._num_left, self._was_idle = 0, True  # as after an epoch: the start weights are validated, too
        self._num_steps, self._steps_s = 0, 0.0
        self._alone_s, self._beside_s = deque[float](maxlen=NUM_STEPS), deque[float](maxlen=NUM_STEPS)
        self._num_beside = 0  # steps, beside which a commit was under way
        self._validation_s = 0.0
        self._stalls_s: list[float] = []

    def due(self, num_left: int, *, is_idle: bool) -> bool:
        """Whether the next checkpoint is to be taken now, after a step; the epoch has so many left.

        `is_idle` says that no commit is under way. While one is, no checkpoint is due, and it may slow training down.
        """
        now = self._clock()
        if num_left == self._num_left - 1:
            self._count_step(now - self._last_step, alone=is_idle and self._was_idle)
        self._num_left, self._last_step, self._was_idle = num_left, now, is_idle
        passed_s = now - self._last
        if not is_idle or not passed_s:
            return False
        if self._every_s == "auto" and self._beside_s and not self._alone_s:
            return False  # what a commit slows down shows beside a step alone
        all_s = passed_s + num_left * self._steps_s / max(1, self._num_steps) + self._validation_s
        if not isinstance(self._every_s, str):
            if passed_s >= self._every_s:
                return self._every_s > 0
            num_parts = math.ceil(all_s / self._every_s)
        elif self.optimum_s is None:
            costs_s = len(self._stalls_s) * self.cost_s  # those at the ends of epochs, which come unasked, too
            return passed_s >= (self.cost_s / AUTO_SHARE or FIRST_S) and now - self._begun >= costs_s / AUTO_SHARE
        else:
            num_parts = min(round(all_s / self.optimum_s), math.floor(all_s * MOST_SHARE / self.cost_s))
        return num_parts > 1 and passed_s * num_parts >= all_s

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Measure the stall of a checkpoint; the time to the next one counts from its end."""
        if self._num_left == 0:
            self._validation_s = self._clock() - self._last_step
        self._stalls_s.append(0.0)
        with self.prolonged():
            yield
        self._last_step, self._was_idle = self._last, False

    @contextmanager
    def prolonged(self) -> Iterator[None]:
        """Measure what follows of the stall of the last checkpoint."""
        started = self._clock()
        yield
        self._last = self._clock()
        self._stalls_s[-1] += self._last - started
        self._last_step += self._last - started

    @property
    def stall_s(self) -> float:
        """Mean stall of a checkpoint, in seconds; 0 before the first."""
        return statistics.fmean(self._stalls_s or [0.0])

    @property
    def slowdown_s(self) -> float:
        """Mean time by which training is slower beside the commit of a checkpoint, in seconds; 0 if it is unknown."""
        if not self._alone_s or not self._beside_s or not self._stalls_s:
            return 0.0
        # Medians: a step that waits for data, or a paused machine, is no cost of a checkpoint.
        slower_s = max(0.0, statistics.median(self._beside_s) - statistics.median(self._alone_s))
        return slower_s * self._num_beside / len(self._stalls_s)

    @property
    def cost_s(self) -> float:
        """Mean cost of a checkpoint, in seconds."""
        return self.stall_s + self.slowdown_s

    @property
    def mean_life_s(self) -> float | None:
        """Mean time between preemptions, in seconds, in all that was trained until now; None without a preemption."""
        if not self._lives_s:
            return None
        return (sum(self._lives_s) + self._clock() - self._begun) / len(self._lives_s)

    @property
    def optimum_s(self) -> float | None:
        """The optimal interval in seconds, if attempts were preempted: Young (1974), sqrt(2 x cost x mean lifetime)."""
        if self.mean_life_s is None or not self.cost_s:
            return None
        return math.sqrt(2 * self.cost_s * self.mean_life_s)

    def to_json(self) -> dict[str, object]:
        """Return the schedule and its overhead for an attempt's record."""
        return {
            "every_s": self._every_s,
            "num": len(self._stalls_s),
            "stall_s": round(self.stall_s, 4),
            "slowdown_s": round(self.slowdown_s, 4),
            "num_preempted": len(self._lives_s),
            "optimum_s": self.optimum_s and round(self.optimum_s, 1),
        }

    def __str__(self) -> str:
        every_s = self._every_s
        often = "automatically" if isinstance(every_s, str) else f"every {every_s:g} s"
        chosen = f"{often} and after each epoch" if every_s else "after each epoch"
        slows = f" and slows it down by {1000 * self.slowdown_s:.0f} ms" if self.slowdown_s else ""
        text = f"checkpoints {chosen}; each stops training for {1000 * self.stall_s:.0f} ms{slows}"
        if self.optimum_s is None:
            return text if self._is_cut_off else f"{text}; no attempt was cut off so far"
        lived = f"an attempt was cut off every {self.mean_life_s:.0f} s on average"
        return f"{text}; {lived}, for which a checkpoint every {self.optimum_s:.1f} s is best"

    def _count_step(self, took_s: float, *, alone: bool) -> None:
        self._num_steps += 1
        self._steps_s += took_s
        self._num_beside += not alone
        (self._alone_s if alone else self._beside_s).append(took_s)
