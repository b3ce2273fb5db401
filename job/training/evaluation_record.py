"""Boxes of a model as records hold them, and its evaluation on the validation set: ``evaluation.json``.

Imports no torch, so that a report reads it where there is none.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1

LEAST_CONFIDENCE = 0.001
"""The least confidence of a detection that a validation looks at, as in Ultralytics."""

SIZES_PX = (0, 8, 16, 32, 64, 96)
"""Where the ranges of object sizes begin: the square root of a box's area, in pixels."""


def harmonic_mean(precision: float, recall: float) -> float:
    """Return the F1 of precision and recall."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class Detection(NamedTuple):
    """A detection, in pixels of the picture."""

    category: int
    """Number of the class, from 0."""

    confidence: float
    left: float
    top: float
    right: float
    bottom: float


class ObjectBox(NamedTuple):
    """A labelled box, in shares of width and height, its class by number, and 1 if it is found, 0 if it is missed."""

    left: float
    top: float
    right: float
    bottom: float
    category: int
    is_right: int


class PredictedBox(NamedTuple):
    """A prediction at the operating point or above it, as an `ObjectBox` is; 0 for a false alarm."""

    left: float
    top: float
    right: float
    bottom: float
    category: int
    is_right: int
    confidence: float


class ClassCounts(NamedTuple):
    """Objects and detections of one class in a picture, at the operating point."""

    category: int
    num_objects: int
    num_found: int
    num_false_alarms: int


class Confusion(NamedTuple):
    """Missed objects of a class on which a detection of another class lies, at the operating point."""

    category: int
    """Number of the objects' class."""

    called: int
    """Number of the detections' class."""

    num_objects: int


class PictureCounts(NamedTuple):
    """One picture at the operating point, by which runs are compared in pairs."""

    image: str
    """Path in the dataset."""

    classes: list[ClassCounts]
    """Of the classes that were there or detected."""

    @classmethod
    def of(
        cls,
        image: str,
        object_classes: Sequence[int],
        found: Sequence[bool],
        classes: Sequence[int],
        right: Sequence[bool],
    ) -> Self:
        """Count objects, of which some are found, and detections, of which some are right, by their classes."""
        counted = {category: [0, 0, 0] for category in sorted({*object_classes, *classes})}
        for category, is_found in zip(object_classes, found, strict=True):
            counted[category][0] += 1
            counted[category][1] += is_found
        for category, is_right in zip(classes, right, strict=True):
            counted[category][2] += not is_right
        return cls(image, [ClassCounts(category, *counts) for category, counts in counted.items()])


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", serialize_by_alias=True, ser_json_inf_nan="constants")


class ClassEvaluation(_Part):
    """One class at the operating point; precision, recall, F1 and mAP are Ultralytics' own figures, from 0 to 1."""

    name: str
    num_images: int
    num_objects: int
    num_found: int
    num_false_alarms: int
    precision: float
    recall: float
    f1: float
    map50: float
    map50_95: float


class SizeEvaluation(_Part):
    """Objects and predictions of one range of sizes: the square root of a box's area, in pixels at `imgsz`."""

    from_px: int
    to_px: int | None
    """`None` for the last range."""

    num_objects: int
    num_found: int
    num_false_alarms: int


class ImageEvaluation(_Part):
    """One image at the operating point; of both kinds of boxes the wrong ones come first."""

    image: str
    """Path in the dataset."""

    num_objects: int
    num_missed: int
    num_false_alarms: int
    objects: list[ObjectBox]
    predictions: list[PredictedBox]


class Evaluation(_Part):
    """One evaluation on the validation set."""

    row: dict[str, float]
    """Metrics and losses by Ultralytics' column names."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    imgsz: int
    iou: float
    """The overlap from which on a prediction is right."""

    names: list[str] = []
    """Of the classes; the earliest versions did not record them."""

    num_images: int
    num_objects: int
    operating_point: dict[str, float]
    """``confidence``, where the mean F1 of all classes is best; ``precision``, ``recall`` and ``f1`` there."""

    classes: list[ClassEvaluation]
    curves: dict[str, list[float]]
    """Means of all classes, ``precision``, ``recall`` and ``f1``, over ``confidence``; empty without a detection."""

    num_found: list[int] = []
    """Over ``confidence`` of the curves, all classes together; earlier versions did not record it."""

    num_false_alarms: list[int] = []

    confusions: list[Confusion] | None = None
    """The most frequent first; `None` if an earlier version evaluated."""

    sizes: list[SizeEvaluation]
    images: list[ImageEvaluation]
    """The images with the most mistakes, the worst first."""

    num_images_left_out: int
    pictures: list[PictureCounts] = []
    """All images; earlier versions did not record them."""

    def at(self, confidence: float) -> dict[str, float]:
        """Return the point of the curves whose confidence is nearest."""
        known = self.curves["confidence"]
        nearest = min(range(len(known)), key=lambda number: abs(known[number] - confidence))
        return {name: values[nearest] for name, values in self.curves.items()}

    def class_name(self, category: int) -> str:
        """Return the name of a class, or its number if it has none."""
        return self.names[category] if category < len(self.names) else str(category)
