"""Score of a detector on a split: precision, recall, F1, mAP, errors of counts, by class and by size.

Guarantees that precision and recall are plain counts at the thresholds, that mAP is Ultralytics' own, and that each
figure comes with its interval. Knows nothing of models and files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from job.analysis.bootstrap import Resamples, interval_estimate, ratio
from job.runs.evaluation import ClassScore, IntervalEstimate, Score, SizeScore
from job.training.evaluation_record import SIZES_PX, PictureCounts
from job.training.matching import IOUS, MatchedPicture

MAX_ELEMENTS = 2_000_000
"""Of an array over resamples and detections, so that it stays in a processor's cache."""

RECALLS = np.linspace(0, 1, 101)
"""At which precision is averaged, as COCO and Ultralytics do it."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Objects, found objects and false alarms, each ``(p, c)`` by picture and class."""

    objects: np.ndarray
    found: np.ndarray
    false_alarms: np.ndarray

    @classmethod
    def of(cls, pictures: Sequence[PictureCounts], num_classes: int) -> "Counts":
        """Read the counts of pictures."""
        counts = np.zeros((3, len(pictures), num_classes))
        for number, picture in enumerate(pictures):
            for category, *row in picture.classes:
                counts[:, number, category] = row
        return cls(*counts)

    def only(self, category: int) -> "Counts":
        """Return the counts of one class."""
        return Counts(*(each[:, [category]] for each in (self.objects, self.found, self.false_alarms)))

    @property
    def errors(self) -> np.ndarray:
        """``(p,)`` detections minus objects of each picture, all classes together."""
        errors: np.ndarray = (self.found + self.false_alarms - self.objects).sum(1)
        return errors


@dataclass(frozen=True, slots=True)
class Rates:
    """Precision, recall and F1, each ``(1 + r,)`` for the pictures and each resample."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @classmethod
    def of(cls, resamples: Resamples, counts: Counts) -> "Rates":
        """Return means over the classes that have objects, as Ultralytics' are; F1 is the harmonic mean of both."""
        objects, found = resamples.total(counts.objects), resamples.total(counts.found)
        shown = found + resamples.total(counts.false_alarms)
        precision = _mean(np.where(objects > 0, np.nan_to_num(ratio(found, shown)), np.nan))
        recall = _mean(ratio(found, objects))
        both = precision + recall
        f1 = np.where(both == 0, 0.0, ratio(2 * precision * recall, both))
        return cls(precision, recall, f1)


class CountedFields(TypedDict):
    """Fields of a `Score` at the operating point."""

    num_objects: int
    num_found: int
    num_false_alarms: int
    precision: IntervalEstimate
    recall: IntervalEstimate
    f1: IntervalEstimate


@dataclass(frozen=True, slots=True)
class PictureErrors:
    """Errors of whole pictures, all of their classes together."""

    count_bias: IntervalEstimate
    count_mae: IntervalEstimate
    false_alarms_per_empty: IntervalEstimate

    @classmethod
    def of(cls, resamples: Resamples, counts: Counts) -> "PictureErrors":
        """Compare the detections of each picture with its objects."""
        empty = counts.objects.sum(1) == 0
        false_alarms = counts.false_alarms.sum(1) * empty
        return cls(
            count_bias=interval_estimate(resamples.mean(counts.errors)),
            count_mae=interval_estimate(resamples.mean(abs(counts.errors))),
            false_alarms_per_empty=interval_estimate(ratio(resamples.total(false_alarms), resamples.total(empty))),
        )


class ScoredSplit:
    """Matched pictures of a split, their detections in order of confidence, and scores of them."""

    def __init__(self, pictures: Sequence[MatchedPicture], names: Sequence[str]) -> None:
        self.pictures, self.names = pictures, names
        self.resamples = Resamples.of(len(pictures))
        num_objects = [len(each.object_classes) for each in pictures]
        self.object_picture = np.repeat(np.arange(len(pictures)), num_objects)
        self.object_class = _joined([each.object_classes for each in pictures]).astype(int)
        self._object_px = _joined([each.object_px for each in pictures], 2)
        confidence = _joined([each.confidences for each in pictures])
        order = np.argsort(-confidence, kind="stable")
        self.confidence = confidence[order]
        self.picture = np.repeat(np.arange(len(pictures)), [len(each.classes) for each in pictures])[order]
        self.category = _joined([each.classes for each in pictures]).astype(int)[order]
        self._px = _joined([each.px for each in pictures], 2)[order]
        first = np.cumsum([0, *num_objects])[:-1]
        about = [np.where(each.about < 0, -1, each.about + one) for each, one in zip(pictures, first, strict=True)]
        self.about = _joined(about, len(IOUS)).astype(int)[order]
        """``(n, 10)`` the object, numbered over all pictures, that each detection is right about, or -1."""

        self._precisions_of: dict[int, np.ndarray] = {}

    def count(self, thresholds: np.ndarray) -> list[PictureCounts]:
        """Count at thresholds ``(c,)``, one for each class."""
        return [picture.counts(thresholds) for picture in self.pictures]

    def total(self, counts: Counts) -> Score:
        """Return the score of all classes together."""
        map50, map50_95 = self._mean_precisions(np.flatnonzero(counts.objects.any(0)).tolist())
        return Score(**self._counted(counts), map50=map50, map50_95=map50_95)

    def of_class(self, counts: Counts, category: int, confidence: float, *, is_own: bool) -> ClassScore:
        """Return the score of a class at its threshold."""
        alone = counts.only(category)
        errors = PictureErrors.of(self.resamples, alone)
        map50, map50_95 = self._mean_precisions([category])
        return ClassScore(
            **self._counted(alone),
            map50=map50,
            map50_95=map50_95,
            name=self.names[category],
            confidence=confidence,
            is_own=is_own,
            count_bias=errors.count_bias,
            count_mae=errors.count_mae,
        )

    def by_size(self, thresholds: np.ndarray, unit: int) -> list[SizeScore]:
        """Return the scores of ranges of sizes; the unit is 0 for pixels of the file, 1 for those at ``imgsz``.

        A detection that is right counts in the range of its object, a false alarm in that of its own size.
        """
        object_range, own_range = (np.digitize(px[:, unit], SIZES_PX[1:]) for px in (self._object_px, self._px))
        about = self.about[:, 0]
        in_range = np.where(about >= 0, np.append(object_range, -1)[about], own_range)
        shown = self.confidence >= thresholds[self.category]
        scores = []
        for number, (low, high) in enumerate(zip(SIZES_PX, (*SIZES_PX[1:], None), strict=True)):
            objects, detections = object_range == number, in_range == number
            found, alarms = shown & detections & (about >= 0), shown & detections & (about < 0)
            counts = Counts(
                self._by_picture(self.object_picture[objects], self.object_class[objects]),
                self._by_picture(self.picture[found], self.category[found]),
                self._by_picture(self.picture[alarms], self.category[alarms]),
            )
            seen = np.flatnonzero(counts.objects.any(0)).tolist()
            map50 = _over_classes([self._precisions(category, 1, objects, detections) for category in seen])
            scores.append(SizeScore(**self._counted(counts), map50=map50, from_px=low, to_px=high))
        return scores

    def _by_picture(self, picture: np.ndarray, category: np.ndarray) -> np.ndarray:
        """Count ``(p, c)`` boxes by picture and class."""
        counts = np.zeros((len(self.pictures), len(self.names)))
        np.add.at(counts, (picture, category), 1)
        return counts

    def _counted(self, counts: Counts) -> CountedFields:
        rates = Rates.of(self.resamples, counts)
        return CountedFields(
            num_objects=int(counts.objects.sum()),
            num_found=int(counts.found.sum()),
            num_false_alarms=int(counts.false_alarms.sum()),
            precision=interval_estimate(rates.precision),
            recall=interval_estimate(rates.recall),
            f1=interval_estimate(rates.f1),
        )

    def _mean_precisions(self, classes: Sequence[int]) -> tuple[IntervalEstimate, IntervalEstimate]:
        """Return mAP50 and mAP50-95 of classes."""
        for category in classes:
            if category not in self._precisions_of:
                self._precisions_of[category] = self._precisions(category, len(IOUS))
        found = [self._precisions_of[category] for category in classes]
        return _over_classes([each[:, :1] for each in found]), _over_classes(found)

    def _precisions(
        self, category: int, num_ious: int, objects: np.ndarray | None = None, detections: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the average precisions ``(1 + r, t)`` of a class, among some objects and detections."""
        of_class = (self.object_class == category) & (True if objects is None else objects)
        num_objects = self.resamples.weights[:, self.object_picture[of_class]].sum(1)
        chosen = np.flatnonzero((self.category == category) & (True if detections is None else detections))
        right = self.about[chosen, :num_ious] >= 0
        return average_precisions(self.resamples.weights, self.picture[chosen], right, num_objects)


def average_precisions(
    weights: np.ndarray, picture: np.ndarray, right: np.ndarray, num_objects: np.ndarray
) -> np.ndarray:
    """Return average precisions of each row of weights, as Ultralytics' ``compute_ap`` (``utils/metrics.py``: 771).

    Between two detections that are right, the last one that is wrong decides alone how precision is interpolated.

    Args:
        weights: ``(b, p)`` how often each picture counts.
        picture: ``(n,)`` the picture of each detection, the most confident first.
        right: ``(n, t)`` whether it is right at each overlap.
        num_objects: ``(b,)``.

    Returns:
        Shares of 1 ``(b, t)``; NaN without objects.
    """
    found = np.repeat(np.where(num_objects > 0, 0.0, np.nan)[:, None], right.shape[1], 1)
    num_rows = max(1, MAX_ELEMENTS // max(1, len(picture)))
    for first in range(0, len(weights), num_rows):
        rows = slice(first, first + num_rows)
        drawn = weights[rows][:, picture]
        shown = np.cumsum(drawn, 1)
        for number, column in enumerate(right.T):
            if column.any():
                found[rows, number] += _areas(drawn[:, column], shown[:, column], num_objects[rows])
    return found


def _areas(drawn: np.ndarray, shown: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """Return the areas ``(b,)`` under curves of precision over recall.

    Args:
        drawn: ``(b, k)`` how often each detection that is right counts.
        shown: ``(b, k)`` the detections up to it, itself included.
        num_objects: ``(b,)``.
    """
    hits = np.cumsum(drawn, 1)
    hits, shown = (np.stack([each - drawn, each], 2).reshape(len(drawn), -1) for each in (hits, shown))
    recall = hits / np.maximum(num_objects, 1)[:, None]
    precision = np.divide(hits, shown, out=np.ones(hits.shape), where=shown > 0)
    edge = np.ones((len(drawn), 1))
    x = np.hstack([0 * edge, recall, recall[:, -1:], edge])
    y = np.hstack([edge, precision, 0 * edge, 0 * edge])
    y = np.maximum.accumulate(y[:, ::-1], axis=1)[:, ::-1]
    apart = 2.0 * np.arange(len(drawn))[:, None]  # one interpolation for all rows, which follow each other
    at = np.interp((RECALLS + apart).ravel(), (x + apart).ravel(), y.ravel()).reshape(len(drawn), -1)
    areas: np.ndarray = np.trapezoid(at, RECALLS, axis=1)
    return areas


def _over_classes(precisions: Sequence[np.ndarray]) -> IntervalEstimate:
    """Return the mean of average precisions ``(1 + r, t)`` of classes; none without a class."""
    if not precisions:
        return IntervalEstimate(None, None, None)
    return interval_estimate(_mean(np.stack([each.mean(1) for each in precisions], 1)))


def _mean(by_class: np.ndarray) -> np.ndarray:
    """Return the means ``(1 + r,)`` over the classes ``(1 + r, c)`` that have a value; NaN without one."""
    defined = ~np.isnan(by_class)
    return ratio(np.where(defined, by_class, 0).sum(1), defined.sum(1))


def _joined(arrays: Sequence[np.ndarray], num_columns: int | None = None) -> np.ndarray:
    shape = (0,) if num_columns is None else (0, num_columns)
    return np.concatenate([np.empty(shape), *arrays])
