"""Detections of a validation, image by image: hits, misses and false alarms at the operating point.

Guarantees that collecting changes no result: it reads copies, and draws nothing random. Precision, recall, F1 and mAP
are Ultralytics' own figures; boxes are counted as right by its rule (`job.training.matching`) among the predictions at
the operating point or above it.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from ultralytics.utils.metrics import smooth
from ultralytics.utils.ops import scale_boxes

from job.training.dataset import Batch
from job.training.evaluation_record import (
    SIZES_PX,
    ClassEvaluation,
    Confusion,
    Evaluation,
    ImageEvaluation,
    ObjectBox,
    PictureCounts,
    PredictedBox,
    SizeEvaluation,
)
from job.training.matching import IOU, IOUS, MatchedPicture, confused_objects, match

Box = TypeVar("Box", ObjectBox, PredictedBox)

NUM_CURVE_POINTS = 101

MAX_BOXES = 6000
"""In all images that are kept, so that the file stays small; the images with the most mistakes come first."""

MAX_BOXES_OF_AN_IMAGE = 400


@dataclass(slots=True)
class Seen:
    """One validated image; boxes are left, top, right, bottom in pixels of the batch it was part of."""

    path: str
    shape: tuple[int, int]
    """Height and width of the file's image."""

    batch_shape: tuple[int, int]
    ratio_pad: Any
    """Ultralytics' ratio and padding of the file's image in the batch."""

    objects: np.ndarray
    object_classes: np.ndarray
    predictions: np.ndarray
    prediction_classes: np.ndarray
    confidences: np.ndarray

    found: np.ndarray = field(init=False)
    """Of each object, whether a prediction is right about it; set by `_match`, as is `right`."""

    right: np.ndarray = field(init=False)
    """Of each prediction, whether it is right."""

    def matched(self, folder: str) -> MatchedPicture:
        """Return objects and predictions, matched; `folder` is the dataset's."""
        (gain_y, gain_x), _ = self.ratio_pad

        def px(boxes: np.ndarray) -> np.ndarray:
            sides = boxes[:, 2:] - boxes[:, :2]
            of_both: np.ndarray = np.sqrt([(sides / [gain_x, gain_y]).prod(1), sides.prod(1)])
            return of_both.T

        return MatchedPicture(
            image=os.path.relpath(self.path, folder),
            object_classes=self.object_classes,
            object_px=px(self.objects),
            classes=self.prediction_classes,
            confidences=self.confidences,
            px=px(self.predictions),
            about=match(self.objects, self.object_classes, self.predictions, self.prediction_classes, IOUS),
        )


@contextmanager
def detections_collected(validator: Any) -> Iterator[list[Seen]]:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
    """Collect the detections of a validator within the block."""
    seen: list[Seen] = []
    update = validator.update_metrics

    def watched(predictions: list[dict[str, torch.Tensor]], batch: Batch) -> None:
        update(predictions, batch)
        seen.extend(_seen(validator._prepare_batch(i, batch), found) for i, found in enumerate(predictions))  # noqa: SLF001 -- how the validator itself reads a batch

    validator.update_metrics = watched
    try:
        yield seen
    finally:
        del validator.update_metrics  # uncovers the method of its class


def describe_validation(validator: Any, seen: list[Seen], row: dict[str, float]) -> Evaluation:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
    """Return the record of a validation that has just ended, with its images and its row of metrics and losses."""
    box = validator.metrics.box
    curves = {name: getattr(box, f"{short}_curve") for name, short in _CURVES.items() if len(box.ap_class_index)}
    best = int(smooth(curves["f1"].mean(0), 0.1).argmax()) if curves else 0  # as Ultralytics: utils/metrics.py: 886
    confidence = float(box.px[best]) if curves else 0.0
    num_found, num_false_alarms = _count_over_confidence(seen)
    for image in seen:
        _match(image, confidence)
    folder = str(validator.data["path"])
    kept = _images(seen, folder)
    return Evaluation(
        row=row,
        imgsz=int(validator.args.imgsz),
        iou=IOU,
        names=[str(validator.names[number]) for number in sorted(validator.names)],
        num_images=len(seen),
        num_objects=sum(len(image.objects) for image in seen),
        operating_point={"confidence": round(confidence, 4)}
        | {name: _rounded(curve[:, best].mean()) for name, curve in curves.items()},
        classes=_classes(validator, seen),
        curves=_mean_curves(box.px, curves) if curves else {},
        num_found=num_found,
        num_false_alarms=num_false_alarms,
        confusions=_confusions(seen),
        sizes=_sizes(seen),
        images=kept,
        num_images_left_out=len(seen) - len(kept),
        pictures=[_counts(image, folder) for image in seen],
    )


_CURVES = {"precision": "p", "recall": "r", "f1": "f1"}


def _seen(prepared: Batch, found: dict[str, torch.Tensor]) -> Seen:
    return Seen(
        path=str(prepared["im_file"]),
        shape=tuple(prepared["ori_shape"]),
        batch_shape=tuple(prepared["imgsz"]),
        ratio_pad=prepared["ratio_pad"],
        objects=_array(prepared["bboxes"]).reshape(-1, 4),
        object_classes=_array(prepared["cls"]).astype(int).reshape(-1),
        predictions=_array(found["bboxes"]).reshape(-1, 4),
        prediction_classes=_array(found["cls"]).astype(int),
        confidences=_array(found["conf"]),
    )


def _count_over_confidence(seen: list[Seen]) -> tuple[list[int], list[int]]:
    """Count found objects and false alarms at each confidence of the curves."""
    about = [match(i.objects, i.object_classes, i.predictions, i.prediction_classes)[:, 0] for i in seen]
    right = np.concatenate([np.empty(0, bool), *(each >= 0 for each in about)])
    confidences = np.concatenate([np.empty(0), *(image.confidences for image in seen)])
    at = np.linspace(0, 1, NUM_CURVE_POINTS)

    def count(of: np.ndarray) -> list[int]:
        counts: list[int] = (len(of) - np.searchsorted(np.sort(of), at)).tolist()
        return counts

    return count(confidences[right]), count(confidences[~right])


def _confusions(seen: list[Seen]) -> list[Confusion]:
    counts: Counter[tuple[int, int]] = Counter()
    for image in seen:
        about = confused_objects(
            *(image.objects, image.object_classes, image.predictions, image.prediction_classes),
            found=image.found,
            right=image.right,
        )
        called = image.prediction_classes[about >= 0].tolist()
        counts.update(zip(image.object_classes[about[about >= 0]].tolist(), called, strict=True))
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [Confusion(*classes, num) for classes, num in ranked]


def _match(image: Seen, confidence: float) -> None:
    """Drop predictions below the operating point, and find out which of the others are right."""
    shown = image.confidences >= confidence
    image.predictions, image.confidences = image.predictions[shown], image.confidences[shown]
    image.prediction_classes = image.prediction_classes[shown]
    (about,) = match(image.objects, image.object_classes, image.predictions, image.prediction_classes).T
    image.right = about >= 0
    image.found = np.zeros(len(image.objects), bool)
    image.found[about[image.right]] = True


def _classes(validator: Any, seen: list[Seen]) -> list[ClassEvaluation]:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
    box, classes = validator.metrics.box, []
    for i, number in enumerate(int(number) for number in box.ap_class_index):
        is_found = [image.found[image.object_classes == number] for image in seen]
        is_right = [image.right[image.prediction_classes == number] for image in seen]
        classes.append(
            ClassEvaluation(
                name=str(validator.names[number]),
                num_images=sum(len(found) > 0 for found in is_found),
                num_objects=sum(len(found) for found in is_found),
                num_found=sum(int(found.sum()) for found in is_found),
                num_false_alarms=sum(int((~right).sum()) for right in is_right),
                **{name: _rounded(getattr(box, short)[i]) for name, short in _CURVES.items()},
                map50=_rounded(box.ap50[i]),
                map50_95=_rounded(box.ap[i]),
            )
        )
    return classes


def _mean_curves(confidences: np.ndarray, curves: dict[str, np.ndarray]) -> dict[str, list[float]]:
    at = np.linspace(0, 1, NUM_CURVE_POINTS)
    means = {name: np.interp(at, confidences, curve.mean(0)) for name, curve in curves.items()}
    return {name: [_rounded(value) for value in values] for name, values in ({"confidence": at} | means).items()}


def _sizes(seen: list[Seen]) -> list[SizeEvaluation]:
    objects = _count_by_size(image.objects for image in seen)
    found = _count_by_size(image.objects[image.found] for image in seen)
    wrong = _count_by_size(image.predictions[~image.right] for image in seen)
    return [
        SizeEvaluation(from_px=low, to_px=high, num_objects=objects[i], num_found=found[i], num_false_alarms=wrong[i])
        for i, (low, high) in enumerate(zip(SIZES_PX, (*SIZES_PX[1:], None), strict=True))
    ]


def _count_by_size(of_images: Iterable[np.ndarray]) -> list[int]:
    """Count boxes in each of the ranges that begin at `SIZES_PX`."""
    boxes = np.concatenate([np.empty((0, 4)), *of_images])
    ranges = np.digitize(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)), SIZES_PX[1:])
    counts: list[int] = np.bincount(ranges, minlength=len(SIZES_PX)).tolist()
    return counts


def _images(seen: list[Seen], folder: str) -> list[ImageEvaluation]:
    """Return the images with the most mistakes first, as many as may be kept."""
    kept: list[ImageEvaluation] = []
    num_boxes = 0
    for image in sorted(seen, key=lambda image: (-int((~image.found).sum() + (~image.right).sum()), image.path)):
        num_boxes += len(image.found) + len(image.right)
        if num_boxes > MAX_BOXES and kept:
            break
        found, right = image.found.astype(int), image.right.astype(int)
        confidences = image.confidences.astype(float).round(3)
        kept.append(
            ImageEvaluation(
                image=os.path.relpath(image.path, folder),
                num_objects=len(found),
                num_missed=int((1 - found).sum()),
                num_false_alarms=int((1 - right).sum()),
                objects=_boxes(ObjectBox, image, image.objects, image.object_classes, found),
                predictions=_boxes(
                    PredictedBox, image, image.predictions, image.prediction_classes, right, confidences
                ),
            )
        )
    return kept


def _counts(image: Seen, folder: str) -> PictureCounts:
    columns = (image.object_classes, image.found, image.prediction_classes, image.right)
    return PictureCounts.of(os.path.relpath(image.path, folder), *(column.tolist() for column in columns))


def _boxes(kind: type[Box], image: Seen, boxes: np.ndarray, *columns: np.ndarray) -> list[Box]:
    """Return boxes in shares of the image's width and height, the wrong ones first."""
    height, width = image.shape
    scaled = scale_boxes(image.batch_shape, boxes.copy(), image.shape, image.ratio_pad) / [width, height, width, height]
    rows = zip(*scaled.T.round(4).tolist(), *(column.tolist() for column in columns), strict=True)
    return sorted(map(kind._make, rows), key=lambda box: box.is_right)[:MAX_BOXES_OF_AN_IMAGE]


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _rounded(value: float) -> float:
    return round(float(value), 5)
