"""Detections of a validation, image by image: hits, misses and false alarms at the operating point.

Guarantees that collecting changes no result: it reads copies, and draws nothing random. Precision, recall, F1 and mAP
are Ultralytics' own figures; boxes are counted as right by its rule (same class, IoU of 0.5 or more, each box once, the
closest pairs first) among the predictions at the operating point or above it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from ultralytics.utils.metrics import box_iou, smooth
from ultralytics.utils.ops import scale_boxes

from job.training.dataset import Batch
from job.training.evaluation_record import (
    ClassEvaluation,
    Evaluation,
    ImageEvaluation,
    ObjectBox,
    PredictedBox,
    SizeEvaluation,
)

Box = TypeVar("Box", ObjectBox, PredictedBox)

IOU = 0.5
"""From this overlap on a prediction is right."""

SIZES_PX = (0, 8, 16, 32, 64, 96)
"""Where the bins of object sizes begin: the square root of a box's area, in pixels at the training image size."""

NUM_CURVE_POINTS = 101

MAX_BOXES = 6000
"""In all images that are kept, so that the file stays small; the images with the most mistakes come first."""

MAX_BOXES_OF_AN_IMAGE = 400


@dataclass(frozen=True, slots=True)
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
    matched = [_match(image, confidence) for image in seen]
    kept = _images(matched, str(validator.data["path"]))
    return Evaluation(
        row=row,
        imgsz=int(validator.args.imgsz),
        iou=IOU,
        names=[str(validator.names[number]) for number in sorted(validator.names)],
        num_images=len(seen),
        num_objects=sum(len(image.objects) for image in seen),
        operating_point={"confidence": round(confidence, 4)}
        | {name: _rounded(curve[:, best].mean()) for name, curve in curves.items()},
        classes=_classes(validator, matched),
        curves=_mean_curves(box.px, curves) if curves else {},
        sizes=_sizes(matched),
        images=kept,
        num_images_left_out=len(seen) - len(kept),
    )


_CURVES = {"precision": "p", "recall": "r", "f1": "f1"}


@dataclass(frozen=True, slots=True)
class _Matched:
    """One image at the operating point."""

    image: Seen
    shown: np.ndarray
    """Which predictions are at the operating point or above it."""

    found: np.ndarray
    """Of each object, whether a shown prediction is right about it."""

    right: np.ndarray
    """Of each shown prediction, whether it is right."""

    @property
    def num_mistakes(self) -> int:
        return int((~self.found).sum() + (~self.right).sum())


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


def _match(image: Seen, confidence: float) -> _Matched:
    """Pair objects with the predictions that are right about them, the closest pairs first."""
    shown = image.confidences >= confidence
    found, right = np.zeros(len(image.objects), bool), np.zeros(int(shown.sum()), bool)
    overlap = box_iou(torch.from_numpy(image.objects), torch.from_numpy(image.predictions[shown])).numpy()
    overlap = overlap * (image.object_classes[:, None] == image.prediction_classes[shown][None])
    pairs = np.argwhere(overlap >= IOU)
    for i, j in pairs[np.argsort(-overlap[overlap >= IOU], kind="stable")]:
        if not found[i] and not right[j]:
            found[i] = right[j] = True
    return _Matched(image, shown, found, right)


def _classes(validator: Any, matched: list[_Matched]) -> list[ClassEvaluation]:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
    box, classes = validator.metrics.box, []
    for i, number in enumerate(int(number) for number in box.ap_class_index):
        is_found = [m.found[m.image.object_classes == number] for m in matched]
        is_right = [m.right[m.image.prediction_classes[m.shown] == number] for m in matched]
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


def _sizes(matched: list[_Matched]) -> list[SizeEvaluation]:
    objects = _count_by_size(m.image.objects for m in matched)
    found = _count_by_size(m.image.objects[m.found] for m in matched)
    wrong = _count_by_size(m.image.predictions[m.shown][~m.right] for m in matched)
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


def _images(matched: list[_Matched], folder: str) -> list[ImageEvaluation]:
    """Return the images with the most mistakes first, as many as may be kept."""
    kept: list[ImageEvaluation] = []
    num_boxes = 0
    for m in sorted(matched, key=lambda m: (-m.num_mistakes, m.image.path)):
        num_boxes += len(m.found) + len(m.right)
        if num_boxes > MAX_BOXES and kept:
            break
        objects = [
            ObjectBox(*box, int(category), int(found))
            for box, category, found in zip(
                _shares(m.image, m.image.objects), m.image.object_classes, m.found, strict=True
            )
        ]
        predictions = [
            PredictedBox(*box, int(category), int(right), round(float(confidence), 3))
            for box, category, right, confidence in zip(
                _shares(m.image, m.image.predictions[m.shown]),
                m.image.prediction_classes[m.shown],
                m.right,
                m.image.confidences[m.shown],
                strict=True,
            )
        ]
        kept.append(
            ImageEvaluation(
                image=os.path.relpath(m.image.path, folder),
                num_objects=len(m.found),
                num_missed=int((~m.found).sum()),
                num_false_alarms=int((~m.right).sum()),
                objects=_wrong_first(objects),
                predictions=_wrong_first(predictions),
            )
        )
    return kept


def _shares(image: Seen, boxes: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Return boxes in shares of the image's width and height."""
    height, width = image.shape
    scaled = scale_boxes(image.batch_shape, boxes.copy(), image.shape, image.ratio_pad) / [width, height, width, height]
    return [
        (round(left, 4), round(top, 4), round(right, 4), round(bottom, 4))
        for left, top, right, bottom in scaled.tolist()
    ]


def _wrong_first(boxes: list[Box]) -> list[Box]:
    return sorted(boxes, key=lambda box: box.is_right)[:MAX_BOXES_OF_AN_IMAGE]


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _rounded(value: float) -> float:
    return round(float(value), 5)
