"""Matching of detections with labelled objects, by Ultralytics' rule; the one implementation of it.

In order of confidence, each detection takes that object of its class, among those that no other has taken, which it
overlaps most, if that is enough (``engine/validator.py``: `match_predictions`). What is right at a threshold of
confidence is therefore right at any lower one. Imports no torch, and knows nothing of files and models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from job.training.evaluation_record import ObjectBox, PictureCounts, PredictedBox

IOU = 0.5
"""From this overlap on a detection is right."""

IOUS = tuple(round(0.5 + 0.05 * number, 2) for number in range(10))
"""The overlaps over which mAP50-95 is the mean."""

EPSILON = 1e-7
"""Keeps the overlap of two empty boxes a number, as in Ultralytics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedPicture:
    """A picture's objects and all of its detections, the most confident first."""

    image: str
    """Path in the dataset."""

    object_classes: np.ndarray
    """``(m,)`` whole numbers."""

    object_px: np.ndarray
    """``(m, 2)`` the square root of a box's area, in pixels of the file and in pixels at `imgsz`."""

    classes: np.ndarray
    """``(n,)`` whole numbers."""

    confidences: np.ndarray
    """``(n,)``."""

    px: np.ndarray
    """``(n, 2)`` as `object_px`."""

    about: np.ndarray
    """``(n, 10)`` the object that each detection is right about at each of `IOUS`, or -1."""

    def counts(self, thresholds: np.ndarray) -> PictureCounts:
        """Count at thresholds ``(c,)``, one for each class."""
        shown = self.confidences >= thresholds[self.classes]
        about = self.about[shown, 0]
        found = np.zeros(len(self.object_classes), bool)
        found[about[about >= 0]] = True
        columns = (self.object_classes, found, self.classes[shown], about >= 0)
        return PictureCounts.of(self.image, *(column.tolist() for column in columns))


def match(
    objects: np.ndarray,
    object_classes: np.ndarray,
    detections: np.ndarray,
    classes: np.ndarray,
    ious: Sequence[float] = (IOU,),
) -> np.ndarray:
    """Return which object each detection is right about, for each least overlap.

    Args:
        objects: ``(m, 4)`` left, top, right, bottom, in any unit.
        object_classes: ``(m,)``.
        detections: ``(n, 4)``, the most confident first.
        classes: ``(n,)`` of the detections.
        ious: ``(t,)`` the least overlaps (IoU), from 0 to 1.

    Returns:
        The index of an object ``(n, t)``; -1 for a false alarm. No index comes twice in a column.
    """
    return _take(box_iou(objects, detections) * (object_classes[:, None] == classes[None]), ious)


def _take(overlap: np.ndarray, ious: Sequence[float]) -> np.ndarray:
    """Return which object each detection takes ``(n, t)``, or -1, by their overlaps ``(m, n)``."""
    num_objects, num_detections = overlap.shape
    taken_by = np.full((num_detections, len(ious)), -1)
    least = np.array(ious, np.float32)
    free = np.ones((num_objects, len(ious)), bool)
    columns = np.arange(len(ious))
    for number in np.flatnonzero((overlap >= least.min()).any(0)):
        open_to = np.where(free, overlap[:, number, None], 0)
        nearest = open_to.argmax(0)
        right = open_to[nearest, columns] >= least
        taken_by[number, right] = nearest[right]
        free[nearest[right], columns[right]] = False
    return taken_by


def confused_objects(
    objects: np.ndarray,
    object_classes: np.ndarray,
    detections: np.ndarray,
    classes: np.ndarray,
    *,
    found: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """Return the missed object that each false alarm lies on, one of another class.

    Args:
        objects: ``(m, 4)`` left, top, right, bottom, in any unit.
        object_classes: ``(m,)``.
        detections: ``(n, 4)``, the most confident first.
        classes: ``(n,)`` of the detections.
        found: ``(m,)`` whether a detection is right about the object.
        right: ``(n,)`` whether the detection is right.

    Returns:
        The index of an object ``(n,)``; -1 for a right detection, and for a false alarm on no missed object.
    """
    missed, wrong = np.flatnonzero(~found), np.flatnonzero(~right)
    differs = object_classes[missed][:, None] != classes[wrong][None]
    (about,) = _take(box_iou(objects[missed], detections[wrong]) * differs, (IOU,)).T
    confused = np.full(len(detections), -1)
    confused[wrong[about >= 0]] = missed[about[about >= 0]]
    return confused


def confused_pairs(objects: Sequence[ObjectBox], predictions: Sequence[PredictedBox]) -> dict[int, int]:
    """Return the missed object that a prediction of another class lies on, by the index of the prediction."""
    about = confused_objects(
        *_columns(objects),
        *_columns(predictions),
        found=np.array([box.is_right for box in objects], bool),
        right=np.array([box.is_right for box in predictions], bool),
    )
    return {number: int(missed) for number, missed in enumerate(about) if missed >= 0}


def _columns(boxes: Sequence[ObjectBox] | Sequence[PredictedBox]) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners ``(n, 4)`` and the classes ``(n,)``."""
    return np.array([box[:4] for box in boxes]).reshape(-1, 4), np.array([box.category for box in boxes], int)


def box_iou(objects: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """Return the overlaps ``(m, n)`` of boxes ``(m, 4)`` and ``(n, 4)``: intersection over union, from 0 to 1."""
    one, other = objects.astype(np.float32).reshape(-1, 1, 4), detections.astype(np.float32).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = np.clip(sides, 0, None).prod(2)
    areas = (one[..., 2:] - one[..., :2]).prod(2) + (other[..., 2:] - other[..., :2]).prod(2)
    overlap: np.ndarray = common / (areas - common + np.float32(EPSILON))
    return overlap
