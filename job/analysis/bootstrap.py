"""Bootstrap over pictures: 95 % intervals of figures, and of differences between two runs on the same pictures.

A resample is a weight for each picture, how often it was drawn, so that a figure made of sums over pictures is one
product of matrices for all resamples. Percentile intervals (Efron and Tibshirani, 1993). Guarantees that equal
pictures have equal intervals: the draws are seeded. Takes pictures for independent of each other.

`scipy.stats.bootstrap` draws for one figure at a time and wants a value for each picture, which mAP has not; and the
install without torch does not have it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from job.runs.evaluation import IntervalEstimate

NUM_RESAMPLES = 1000
SEED = 0
ENDS = (0.025, 0.975)

DIGITS = 5

MIN_DEFINED = 0.5
"""A figure has an interval if at least this share of resamples has a value."""


@dataclass(frozen=True, slots=True)
class Resamples:
    """Resamples of the pictures of a split."""

    weights: np.ndarray
    """``(1 + r, p)`` how often each picture counts: first the pictures as they are, then each resample."""

    @classmethod
    def of(cls, num_pictures: int, num_resamples: int = NUM_RESAMPLES, seed: int = SEED) -> Self:
        """Draw resamples of so many pictures."""
        shares = np.full(num_pictures, 1 / max(1, num_pictures))
        drawn = np.random.default_rng(seed).multinomial(num_pictures, shares, num_resamples)
        return cls(np.vstack([np.ones(num_pictures), drawn]))

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sums ``(1 + r, ...)`` of values ``(p, ...)`` over the pictures of each resample."""
        sums: np.ndarray = np.tensordot(self.weights, values, 1)
        return sums

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the means ``(1 + r,)`` of values ``(p,)`` over the pictures of each resample; NaN of no pictures."""
        return ratio(self.total(values), self.weights.sum(1))


def interval_estimate(values: np.ndarray) -> IntervalEstimate:
    """Return a figure with its interval from its values ``(1 + r,)``, the figure first; NaN is none."""
    figure, drawn = values[0], values[1:]
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(figure) or len(defined) < max(1, MIN_DEFINED * len(drawn)):
        return IntervalEstimate(None if np.isnan(figure) else _rounded(figure), None, None)
    low, high = np.quantile(defined, ENDS)
    return IntervalEstimate(_rounded(figure), _rounded(low), _rounded(high))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return shares of wholes; NaN of nothing."""
    shares = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)
