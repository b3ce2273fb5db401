"""Operating point: the threshold of each class, chosen on the validation split.

Guarantees that the threshold of best F1 for all classes together is the one of Ultralytics, and that one for a recall
reaches it on the pictures that it was chosen on. Knows nothing of the split that is scored with it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from job.analysis.score import ScoredSplit
from job.errors import RunConflictError, UsageError
from job.text import percent
from job.training.evaluation_record import LEAST_CONFIDENCE

MIN_OBJECTS = 50
"""Objects on the validation split from which on a class has a threshold of its own."""

SCALE = 100_000
"""Thresholds are multiples of its inverse."""

CONFIDENCES = np.linspace(0, 1, 1000)
"""At which F1 is compared, as in Ultralytics."""

SMOOTHED = 101
"""Neighbouring confidences over which F1 is averaged, as in Ultralytics: a tenth of them, and odd."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Thresholds of confidence."""

    rule: str
    """``best F1``, or ``recall 0.9``."""

    confidence: float
    """Of all classes together, for classes with fewer than `MIN_OBJECTS` objects."""

    own: Mapping[int, float]
    """Of each class with more, by its number."""

    def thresholds(self, num_classes: int) -> np.ndarray:
        """Return the threshold of each class ``(c,)``."""
        return np.array([self.own.get(number, self.confidence) for number in range(num_classes)])


def choose(run: str, val: ScoredSplit, recall: float | None) -> OperatingPoint:
    """Choose thresholds on the validation split: where F1 is best, or the highest that reach a recall.

    Args:
        run: The run's name, for messages.
        val: The split.
        recall: To reach, from 0 to 1; `None` for the best F1.

    Raises:
        RunConflictError: If nothing right was found on it.
        UsageError: If a recall is not reached; names every class.
    """
    if not (val.about[:, 0] >= 0).any():
        raise RunConflictError(
            f"run {run}: finds nothing right on the validation split, so it has no threshold; train it for longer"
        )
    num_objects = np.bincount(val.object_class, minlength=len(val.names))
    many = np.flatnonzero(num_objects >= MIN_OBJECTS).tolist()
    if recall is None:
        curves = {number: _f1_curve(val, number) for number in np.flatnonzero(num_objects).tolist()}
        own = {number: _best(curves[number]) for number in many}
        return OperatingPoint("best F1", _best(np.mean([*curves.values()], axis=0)), own)
    wanted: list[int | None] = [None, *many]
    found = {number: _for_recall(val, number, recall) for number in wanted}
    if missed := [number for number, confidence in found.items() if confidence is None]:
        raise UsageError(
            f"--recall: run {run} does not reach {percent(recall)} on the validation split at any threshold; pass less",
            [
                f"{'all classes' if n is None else val.names[n]}: {percent(_most_recall(val, n))} at most"
                for n in missed
            ],
        )
    reached = {number: confidence for number, confidence in found.items() if confidence is not None}
    own = {number: reached[number] for number in many}
    return OperatingPoint(f"recall {recall:g}", reached[None], own)


def _f1_curve(split: ScoredSplit, category: int) -> np.ndarray:
    """Return the F1 of a class at `CONFIDENCES`, as Ultralytics' ``ap_per_class`` (``utils/metrics.py``: 795)."""
    chosen = split.category == category
    right, confidence = split.about[chosen, 0] >= 0, split.confidence[chosen]
    if not len(right):
        return np.zeros_like(CONFIDENCES)
    hits = np.cumsum(right)
    recalls, precisions = hits / np.sum(split.object_class == category), hits / np.arange(1, len(hits) + 1)
    recall = np.interp(-CONFIDENCES, -confidence, recalls, left=0)
    precision = np.interp(-CONFIDENCES, -confidence, precisions, left=1)
    curve: np.ndarray = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return curve


def _best(curve: np.ndarray) -> float:
    """Return the confidence of the best F1 of a curve, smoothed as by Ultralytics (``utils/metrics.py``: 666)."""
    padded = np.pad(curve, SMOOTHED // 2, mode="edge")
    best = int(np.convolve(padded, np.ones(SMOOTHED) / SMOOTHED, mode="valid").argmax())
    return max(LEAST_CONFIDENCE, round(SCALE * float(CONFIDENCES[best])) / SCALE)


def _for_recall(split: ScoredSplit, category: int | None, recall: float) -> float | None:
    """Return the highest confidence that reaches a recall of a class, or of all objects; `None` if none does."""
    confidences, num_objects = _right(split, category)
    num_needed = max(1, math.ceil(recall * num_objects - 1e-9))  # a product of decimals is not exact
    if num_needed > len(confidences):
        return None
    return max(LEAST_CONFIDENCE, math.floor(confidences[num_needed - 1] * SCALE) / SCALE)


def _most_recall(split: ScoredSplit, category: int | None) -> float:
    confidences, num_objects = _right(split, category)
    return len(confidences) / num_objects


def _right(split: ScoredSplit, category: int | None) -> tuple[list[float], int]:
    """Return the confidences of right detections of a class or of all, the highest first, and the number of objects."""
    right = split.about[:, 0] >= 0
    if category is None:
        return split.confidence[right].tolist(), len(split.object_class)
    of_class = split.confidence[right & (split.category == category)].tolist()
    return of_class, int(np.sum(split.object_class == category))
