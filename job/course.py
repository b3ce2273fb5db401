"""What is to be noted of each epoch of a run, by rules that are stated and know nothing but the course of one metric.

Values are shares of 1; a gain is told against the best value before, the start weights' included.
"""

import math
from collections.abc import Sequence

MIN_GAIN = 0.005
"""Half a point; less is taken for noise."""

EARLY_SHARE = 0.2
"""Of the epochs that were asked for, at least the first two: in these a gain is an early one."""

PLATEAU_EPOCHS, PLATEAU_SHARE = 3, 0.1
"""So many epochs without a gain, or this share of those asked for if that is more, make a plateau."""

NEAR_BEST = 0.02
"""A plateau lies no further below the best value than this, on average over its last epochs; else it is a fall."""

EARLY_GAIN, STEADY_GAIN, TARGET = "early gain", "steady gain", "target reached"
PLATEAU, BEST, STOPPED = "plateau", "best", "stopped early"

RULES = {
    EARLY_GAIN: "half a point or more above the best before, in the first fifth of the epochs asked for (at least two)",
    STEADY_GAIN: "the same, later",
    TARGET: "the first epoch at the lower end of what was expected, or above it",
    PLATEAU: "begins here and lasts: no gain since, for 3 epochs and a tenth of those asked for at least, on average "
    "no more than 2 points below the best",
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
    gains = gaining_epochs(course, before)
    for epoch in gains:
        notes[epoch - 1].append(EARLY_GAIN if epoch <= num_early else STEADY_GAIN)
    reached = first_reaching(course, target)
    if reached is not None:
        notes[reached - 1].append(TARGET)
    if (start := plateau_from(course, before, num_epochs)) is not None:
        notes[start - 1].append(PLATEAU)
    notes[(best_epoch or 1 + max(range(len(course)), key=course.__getitem__)) - 1].append(BEST)
    if stopped_early:
        notes[-1].append(STOPPED)
    return [tuple(said) for said in notes]


def gaining_epochs(course: Sequence[float], before: float | None) -> list[int]:
    """Return the epochs (1-based) that gain on the best before them."""
    gains: list[int] = []
    best = course[0] if before is None else before
    for epoch, value in enumerate(course, start=1):
        if _at_least(value, best + MIN_GAIN):
            gains.append(epoch)
        best = max(best, value)
    return gains


def first_reaching(course: Sequence[float], target: float | None) -> int | None:
    """Return the first epoch (1-based) that reaches a target, if one does."""
    return next((i for i, value in enumerate(course, start=1) if target is not None and _at_least(value, target)), None)


def plateau_from(course: Sequence[float], before: float | None, num_epochs: int) -> int | None:
    """Return the epoch (1-based) at which the plateau began that the course is on, if it is on one."""
    start = max(gaining_epochs(course, before), default=0) + 1
    needed = max(PLATEAU_EPOCHS, math.ceil(PLATEAU_SHARE * num_epochs))
    if len(course) - start + 1 < needed:
        return None
    best = max([*course, *([] if before is None else [before])])
    return start if _at_least(sum(course[-needed:]) / needed, best - NEAR_BEST) else None


def _at_least(value: float, wanted: float) -> bool:
    return value >= wanted - 1e-9  # a sum of decimals is not exact
