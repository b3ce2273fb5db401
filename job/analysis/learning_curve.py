"""Notes on the epochs of a run, by stated rules that know nothing but the course of one metric.

Values are shares of 1. Gains are judged by the median of a few epochs against the last level that was a gain, so that
slow gains add up, and noise, which is estimated from the course itself, is none.
"""

import math
import statistics
from collections.abc import Sequence
from enum import StrEnum

MIN_GAIN = 0.005
"""Half a point; less is taken for noise, whatever the course."""

WINDOW_SHARE = 0.05
"""Share of the epochs asked for whose median is a level; in a run of up to 20 epochs each epoch is one."""

NUM_TO_SEE_NOISE = 12
"""From so many epochs on, noise is estimated; in fewer a trend cannot be told from it."""

GAIN_NOISES = 3.5
"""A gain is so many standard deviations of the mean of a level's epochs, if that is more than `MIN_GAIN`."""

EARLY_SHARE = 0.2
"""Of the epochs that were asked for, at least the first two: in these a gain is an early one."""

PLATEAU_EPOCHS, PLATEAU_SHARE = 3, 0.1
"""So many epochs without a gain, or this share of those asked for if that is more, make a plateau."""

SLOW_RISE, RISE_NOISES = 0.06, 2.5
"""A rise is seen if it is so many standard errors of a straight line through the epochs, and `MIN_GAIN` at least. Where
there is noise a plateau takes as many epochs as a rise of six points over those asked for takes to be seen.
"""

NEAR_BEST, NEAR_NOISES = 0.02, 3.0
"""A plateau lies no further below the best level than this, on average over its last epochs, or than so many standard
deviations if that is more. A level, since the best of many noisy values lies far above all others by chance.
"""

FALL, FALL_NOISES = 0.05, 6.0
"""A value so far below the best before it, or so many standard deviations if that is more, is a fall."""

EARLY_GAIN, STEADY_GAIN, TARGET = "early gain", "steady gain", "target reached"
PLATEAU, FALLEN, BEST, STOPPED = "plateau", "fall", "best", "stopped early"

RULES = {
    EARLY_GAIN: "half a point or more above the last level that was a gain, and more than noise, in the first fifth of "
    "the epochs asked for (at least two); a level is the median of the last twentieth of them",
    STEADY_GAIN: "the same, later",
    TARGET: "the first epoch at the lower end of what was expected, or above it",
    PLATEAU: "begins here and lasts: no gain since, for 3 epochs and a tenth of those asked for at least, where there "
    "is noise no rise of a straight line through it, and on average no more than 2 points, or noise, below the best "
    "level",
    FALLEN: "5 points or more, and more than noise, below the best before; the first epoch of such a stretch",
    BEST: "the epoch whose weights are best.pt",
    STOPPED: "patience ran out",
}
"""Each note and when it is made."""


def notes_on(
    course: Sequence[float],
    *,
    before: float | None,
    target: float | None,
    num_epochs: int,
    best_epoch: int | None = None,
    stopped_early: bool = False,
) -> list[tuple[str, ...]]:
    """Return the notes on each epoch.

    Args:
        course: The metric after each epoch.
        before: The metric of the start weights; without it the first epoch gains nothing.
        target: What is expected at least, if anything is.
        num_epochs: The epochs that were asked for.
        best_epoch: The epoch of ``best.pt`` (1-based); without it, the first epoch with the highest value.
        stopped_early: Whether the last epoch is the last because patience ran out.
    """
    if not course:
        return []
    notes: list[list[str]] = [[] for _ in course]
    num_early = max(2, math.ceil(EARLY_SHARE * num_epochs))
    for epoch in gaining_epochs(course, before, num_epochs):
        notes[epoch - 1].append(EARLY_GAIN if epoch <= num_early else STEADY_GAIN)
    reached = first_reaching(course, target)
    if reached is not None:
        notes[reached - 1].append(TARGET)
    if (start := plateau_from(course, before, num_epochs)) is not None:
        notes[start - 1].append(PLATEAU)
    for epoch in falling_epochs(course, before):
        notes[epoch - 1].append(FALLEN)
    notes[(best_epoch or 1 + max(range(len(course)), key=course.__getitem__)) - 1].append(BEST)
    if stopped_early:
        notes[-1].append(STOPPED)
    return [tuple(said) for said in notes]


def noise_of(course: Sequence[float]) -> float:
    """Return how far values scatter around their trend, as a standard deviation; 0 if there are too few to tell.

    By the median bend, which knows nothing of a steady rise and little of a single jump.
    """
    if len(course) < NUM_TO_SEE_NOISE:
        return 0.0
    bends = [abs(a - 2 * b + c) for a, b, c in zip(course, course[1:], course[2:], strict=False)]
    return 1.4826 * statistics.median(bends) / math.sqrt(6)  # of a normal distribution; a bend has variance 1 + 4 + 1


def gaining_epochs(course: Sequence[float], before: float | None, num_epochs: int) -> list[int]:
    """Return the epochs (1-based) whose level is a gain on the last level that was one, or on the start weights."""
    if not course:
        return []
    needed = max(MIN_GAIN, GAIN_NOISES * noise_of(course) / math.sqrt(_window(num_epochs)))
    gains: list[int] = []
    reference = course[0] if before is None else before
    for epoch, level in enumerate(_levels(course, num_epochs), start=1):
        if _at_least(level, reference + needed):
            gains.append(epoch)
            reference = level
    return gains


def first_reaching(course: Sequence[float], target: float | None) -> int | None:
    """Return the first epoch (1-based) that reaches a target, if one does."""
    return next((i for i, value in enumerate(course, start=1) if target is not None and _at_least(value, target)), None)


def plateau_from(course: Sequence[float], before: float | None, num_epochs: int) -> int | None:
    """Return the epoch (1-based) at which the plateau began that the course is on, if it is on one."""
    start = max(gaining_epochs(course, before, num_epochs), default=0) + 1
    shortest = max(PLATEAU_EPOCHS, math.ceil(PLATEAU_SHARE * num_epochs))
    noise = noise_of(course)
    num_to_see_rise = math.ceil((math.sqrt(12) * RISE_NOISES * noise * num_epochs / SLOW_RISE) ** (2 / 3))
    if len(course) - start + 1 < shortest or len(course) < num_to_see_rise:
        return None
    hides_rises = num_to_see_rise > shortest
    if hides_rises and _rises(course[min(start - 1, len(course) - num_to_see_rise) :], noise):
        return None
    best = max([*_levels(course, num_epochs), *([] if before is None else [before])])
    near = max(NEAR_BEST, NEAR_NOISES * noise)
    return start if _at_least(statistics.fmean(course[-shortest:]), best - near) else None


def _rises(course: Sequence[float], noise: float) -> bool:
    """Tell whether the straight line through a course rises, by more than noise."""
    middle = (len(course) - 1) / 2
    spread = sum((epoch - middle) ** 2 for epoch in range(len(course)))
    rise = 2 * middle * sum((epoch - middle) * value for epoch, value in enumerate(course)) / spread
    return _at_least(rise, max(MIN_GAIN, RISE_NOISES * noise * 2 * middle / math.sqrt(spread)))


def _window(num_epochs: int) -> int:
    return max(1, round(WINDOW_SHARE * num_epochs))


def _levels(course: Sequence[float], num_epochs: int) -> list[float]:
    """Return the level after each epoch: the median of the last few."""
    window = _window(num_epochs)
    return [statistics.median(course[max(0, epoch - window) : epoch]) for epoch in range(1, len(course) + 1)]


def falling_epochs(course: Sequence[float], before: float | None) -> list[int]:
    """Return the epochs (1-based) at which the course falls; it has to win back half before it can fall again."""
    deep = max(FALL, FALL_NOISES * noise_of(course))
    falls: list[int] = []
    best, fallen = before, False
    for epoch, value in enumerate(course, start=1):
        if best is not None:
            if not fallen and _at_least(best - deep, value):
                falls.append(epoch)
                fallen = True
            elif fallen and _at_least(value, best - deep / 2):
                fallen = False
        best = value if best is None else max(best, value)
    return falls


class Trend(StrEnum):
    """How a metric moves at the end of a run."""

    IMPROVING = "still improving"
    PLATEAU = "plateau"
    UNCLEAR = "unclear"
    """Too few epochs to tell."""


def trend_of(course: Sequence[float]) -> Trend:
    """Tell how a course ends: it improves if the best of its last epochs is above the best before, and no noise."""
    rise = _rise_of(course)
    if rise is None:
        return Trend.UNCLEAR
    return Trend.IMPROVING if _at_least(rise, max(MIN_GAIN, noise_of(course))) else Trend.PLATEAU


def trend_in_words(course: Sequence[float]) -> str:
    """Say the same of a course of F1, with the figures."""
    rise = _rise_of(course)
    if rise is None:
        return f"{len(course)} epochs are too few for a trend"
    moves = "still improving" if trend_of(course) is Trend.IMPROVING else "on a plateau"
    return f"{moves}, the best F1 rose by {100 * max(rise, 0.0):.1f} points in the last {_num_at_end(course)} epochs"


def _rise_of(course: Sequence[float]) -> float | None:
    """Return by how much the best of the last epochs is above the best before; nothing if there are too few."""
    window = _num_at_end(course)
    return None if len(course) < 2 * window else max(course[-window:]) - max(course[:-window])


def _num_at_end(course: Sequence[float]) -> int:
    """Return how many epochs tell the trend: a quarter of all, from 3 to 10."""
    return max(3, min(10, len(course) // 4))


def _at_least(value: float, wanted: float) -> bool:
    return value >= wanted - 1e-9  # a sum of decimals is not exact
