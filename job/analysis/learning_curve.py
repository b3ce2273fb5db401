"""Learning curve rules: gains, plateau, falls, and the trend at the end.

A curve is one metric after each epoch, as shares of 1. Guarantees that slow gains add up and that noise, estimated from
the curve itself, is no gain: a gain is judged by the median of a few epochs against the last level that was one.
Knows nothing of runs.
"""

import math
import statistics
from collections.abc import Sequence
from enum import StrEnum

from job.text import counted

MIN_GAIN = 0.005
"""Smallest gain: half a point; less is noise on any curve."""

WINDOW_SHARE = 0.05
"""A level is the median of this share of the requested epochs; in a run of up to 20 epochs, one epoch."""

NUM_TO_SEE_NOISE = 12
"""Noise is estimated from this many epochs on; in fewer a trend looks the same as noise."""

GAIN_NOISES = 3.5
"""A gain exceeds this many standard deviations of the mean of a level's epochs, and `MIN_GAIN`."""

EARLY_SHARE = 0.2
"""A gain is early in this share of the requested epochs, at least in the first two."""

PLATEAU_EPOCHS, PLATEAU_SHARE = 3, 0.1
"""A plateau lasts this many epochs without a gain, and this share of the requested ones."""

SLOW_RISE, RISE_NOISES = 0.06, 2.5
"""A straight line through the epochs rises if its rise exceeds this many standard errors, and `MIN_GAIN`. With noise, a
plateau lasts as many epochs as a rise of six points over the requested ones needs to be seen.
"""

NEAR_BEST, NEAR_NOISES = 0.02, 3.0
"""A plateau's last epochs lie on average no further below the best level than this, or than this many standard
deviations if that is more. The best level, since the best of many noisy values is high by chance.
"""

FALL, FALL_NOISES = 0.05, 6.0
"""A fall is a value this far below the best before it, and this many standard deviations."""

EARLY_GAIN, STEADY_GAIN, TARGET = "early gain", "steady gain", "expectation reached"
PLATEAU, FALLEN, BEST, STOPPED = "plateau", "fall", "best", "stopped early"

RULES = {
    EARLY_GAIN: "half a point or more above the last level that was a gain, and more than noise, in the first fifth of "
    "the epochs asked for (at least two); a level is the median of the last twentieth of them",
    STEADY_GAIN: "the same, later",
    TARGET: "the first epoch at the lower end of what was expected, or above it, where the best weights are too",
    PLATEAU: "begins here and lasts: no gain since, for 3 epochs and a tenth of those asked for at least, where there "
    "is noise no rise of a straight line through it, and on average no more than 2 points, or noise, below the best "
    "level",
    FALLEN: "5 points or more, and more than noise, below the best before; the first epoch of such a stretch",
    BEST: "the epoch whose weights are best.pt",
    STOPPED: "patience ran out",
}
"""Each note and its rule, for the report."""


def notes_on(
    curve: Sequence[float],
    *,
    before: float | None,
    target: float | None,
    num_epochs: int,
    best_epoch: int | None = None,
    stopped_early: bool = False,
) -> list[tuple[str, ...]]:
    """Return the notes of each epoch.

    Args:
        curve: The metric after each epoch.
        before: The metric of the start weights; without it the first epoch is no gain.
        target: The lower end of the expected band.
        num_epochs: The requested epochs.
        best_epoch: The epoch of ``best.pt`` (1-based); without it, the first epoch with the highest value.
        stopped_early: Patience ran out after the last epoch.
    """
    if not curve:
        return []
    notes: list[list[str]] = [[] for _ in curve]
    num_early = max(2, math.ceil(EARLY_SHARE * num_epochs))
    for epoch in gaining_epochs(curve, before, num_epochs):
        notes[epoch - 1].append(EARLY_GAIN if epoch <= num_early else STEADY_GAIN)
    reached = (number for number, value in enumerate(curve) if target is not None and _at_least(value, target))
    if (first := next(reached, None)) is not None:
        notes[first].append(TARGET)
    if (start := plateau_from(curve, before, num_epochs)) is not None:
        notes[start - 1].append(PLATEAU)
    for epoch in falling_epochs(curve, before):
        notes[epoch - 1].append(FALLEN)
    notes[(best_epoch or 1 + max(range(len(curve)), key=curve.__getitem__)) - 1].append(BEST)
    if stopped_early:
        notes[-1].append(STOPPED)
    return [tuple(each) for each in notes]


def noise_of(curve: Sequence[float]) -> float:
    """Return the standard deviation of values around their trend; 0 for a curve too short to estimate it.

    Estimated from the median second difference, which ignores a steady rise and nearly ignores a single jump.
    """
    if len(curve) < NUM_TO_SEE_NOISE:
        return 0.0
    bends = [abs(a - 2 * b + c) for a, b, c in zip(curve, curve[1:], curve[2:], strict=False)]
    return 1.4826 * statistics.median(bends) / math.sqrt(6)  # of a normal distribution; a bend has variance 1 + 4 + 1


def gaining_epochs(curve: Sequence[float], before: float | None, num_epochs: int) -> list[int]:
    """Return the epochs (1-based) whose level is a gain on the last level that was one, or on the start weights."""
    if not curve:
        return []
    needed = max(MIN_GAIN, GAIN_NOISES * noise_of(curve) / math.sqrt(_window(num_epochs)))
    gains: list[int] = []
    reference = curve[0] if before is None else before
    for epoch, level in enumerate(_levels(curve, num_epochs), start=1):
        if _at_least(level, reference + needed):
            gains.append(epoch)
            reference = level
    return gains


def plateau_from(curve: Sequence[float], before: float | None, num_epochs: int) -> int | None:
    """Return the first epoch (1-based) of the plateau at the end of a curve."""
    start = max(gaining_epochs(curve, before, num_epochs), default=0) + 1
    shortest = max(PLATEAU_EPOCHS, math.ceil(PLATEAU_SHARE * num_epochs))
    noise = noise_of(curve)
    num_to_see_rise = math.ceil((math.sqrt(12) * RISE_NOISES * noise * num_epochs / SLOW_RISE) ** (2 / 3))
    if len(curve) - start + 1 < shortest or len(curve) < num_to_see_rise:
        return None
    if num_to_see_rise > shortest and _rises(curve[min(start - 1, len(curve) - num_to_see_rise) :], noise):
        return None
    best = max([*_levels(curve, num_epochs), *([] if before is None else [before])])
    near = max(NEAR_BEST, NEAR_NOISES * noise)
    return start if _at_least(statistics.fmean(curve[-shortest:]), best - near) else None


def _rises(curve: Sequence[float], noise: float) -> bool:
    """Whether the straight line through a curve rises by more than noise."""
    num = len(curve)
    rise = (num - 1) * statistics.linear_regression(range(num), curve).slope
    standard_error = (num - 1) * noise * math.sqrt(12 / (num**3 - num))
    return _at_least(rise, max(MIN_GAIN, RISE_NOISES * standard_error))


def _window(num_epochs: int) -> int:
    return max(1, round(WINDOW_SHARE * num_epochs))


def _levels(curve: Sequence[float], num_epochs: int) -> list[float]:
    """Return the level after each epoch: the median of the last few."""
    window = _window(num_epochs)
    return [statistics.median(curve[max(0, epoch - window) : epoch]) for epoch in range(1, len(curve) + 1)]


def falling_epochs(curve: Sequence[float], before: float | None) -> list[int]:
    """Return the epochs (1-based) at which a curve falls; another fall needs a recovery of half the last."""
    deep = max(FALL, FALL_NOISES * noise_of(curve))
    falls: list[int] = []
    best, fallen = -math.inf if before is None else before, False
    for epoch, value in enumerate(curve, start=1):
        if not fallen and _at_least(best - deep, value):
            falls.append(epoch)
            fallen = True
        elif fallen and _at_least(value, best - deep / 2):
            fallen = False
        best = max(best, value)
    return falls


class Trend(StrEnum):
    """Direction of a metric at the end of a run."""

    IMPROVING = "still improving"
    PLATEAU = "plateau"
    UNCLEAR = "unclear"
    """Too few epochs to tell."""


def trend_of(curve: Sequence[float]) -> Trend:
    """Return the trend: improving if the best of the last epochs exceeds the best before by more than noise."""
    rise = _rise_of(curve)
    if rise is None:
        return Trend.UNCLEAR
    return Trend.IMPROVING if _at_least(rise, max(MIN_GAIN, noise_of(curve))) else Trend.PLATEAU


def describe_trend(curve: Sequence[float]) -> str:
    """Return the trend of an F1 curve as text, with its figures."""
    rise = _rise_of(curve)
    if rise is None:
        return f"too few for a trend, {counted(len(curve), 'epoch')}"
    moves = "still improving" if trend_of(curve) is Trend.IMPROVING else "on a plateau"
    points = round(100 * rise, 1)
    rose = f"rose by {points} points" if points > 0 else "did not rise"
    return f"{moves}, the best F1 {rose} in the last {counted(_num_at_end(curve), 'epoch')}"


def _rise_of(curve: Sequence[float]) -> float | None:
    """Return the best of the last epochs minus the best before; None for a short curve."""
    window = _num_at_end(curve)
    return None if len(curve) < 2 * window else max(curve[-window:]) - max(curve[:-window])


def _num_at_end(curve: Sequence[float]) -> int:
    """Return the number of epochs that decide the trend: a quarter of all, from 3 to 10."""
    return max(3, min(10, len(curve) // 4))


def _at_least(value: float, wanted: float) -> bool:
    return value >= wanted - 1e-9  # a sum of decimals is not exact
