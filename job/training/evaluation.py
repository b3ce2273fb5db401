"""Detections of a validation, image by image: hits, misses and false alarms at the operating point.

Guarantees that collecting changes no result: it reads copies, and draws nothing random. Precision, recall, F1 and mAP
are Ultralytics' own figures; boxes are counted as right by its rule (same class, IoU of 0.5 or more, each box once, the
closest pairs first) among the predictions at the operating point or above it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ultralytics.utils.metrics import box_iou, smooth
from ultralytics.utils.ops import scale_boxes

SCHEMA = 1

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
    """How the one was fitted into the other, as Ultralytics has it."""

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

    def watched(predictions: list[dict[str, torch.Tensor]], batch: dict[str, Any]) -> None:
        update(predictions, batch)
        seen.extend(_seen(validator._prepare_batch(i, batch), found) for i, found in enumerate(predictions))  # noqa: SLF001 -- how the validator itself reads a batch

    validator.update_metrics = watched
    try:
        yield seen
    finally:
        del validator.update_metrics  # the method of its class comes to light again


def describe_validation(validator: Any, seen: list[Seen]) -> dict[str, Any]:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
    """Return a validation in plain values, for a report.

    Args:
        validator: Just after its work.
        seen: Its images.
    """
    box = validator.metrics.box
    curves = {name: getattr(box, f"{short}_curve") for name, short in _CURVES.items() if len(box.ap_class_index)}
    best = int(smooth(curves["f1"].mean(0), 0.1).argmax()) if curves else 0  # as Ultralytics: utils/metrics.py: 886
    confidence = float(box.px[best]) if curves else 0.0
    matched = [_match(image, confidence) for image in seen]
    kept, left_out = _images(seen, matched, str(validator.data["path"]))
    return {
        "schema": SCHEMA,
        "imgsz": int(validator.args.imgsz),
        "iou": IOU,
        "names": [str(validator.names[number]) for number in sorted(validator.names)],
        "num_images": len(seen),
        "num_objects": sum(len(image.objects) for image in seen),
        "operating_point": {"confidence": round(confidence, 4)}
        | {name: _rounded(curve[:, best].mean()) for name, curve in curves.items()},
        "classes": _classes(validator, seen, matched),
        "curves": _mean_curves(box.px, curves) if curves else {},
        "sizes": _sizes(matched),
        "images": kept,
        "num_images_left_out": left_out,
    }


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


def _seen(prepared: dict[str, Any], found: dict[str, torch.Tensor]) -> Seen:
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


def _classes(validator: Any, seen: list[Seen], matched: list[_Matched]) -> list[dict[str, Any]]:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
    box, rows = validator.metrics.box, []
    for i, number in enumerate(int(number) for number in box.ap_class_index):
        objects = [int((image.object_classes == number).sum()) for image in seen]
        found = sum(int(m.found[m.image.object_classes == number].sum()) for m in matched)
        wrong = sum(int((~m.right)[m.image.prediction_classes[m.shown] == number].sum()) for m in matched)
        rows.append(
            {
                "name": str(validator.names[number]),
                "num_images": sum(count > 0 for count in objects),
                "num_objects": sum(objects),
                "num_found": found,
                "num_false_alarms": wrong,
                **{name: _rounded(getattr(box, short)[i]) for name, short in _CURVES.items()},
                "map50": _rounded(box.ap50[i]),
                "map50_95": _rounded(box.ap[i]),
            }
        )
    return rows


def _mean_curves(confidences: np.ndarray, curves: dict[str, np.ndarray]) -> dict[str, list[float]]:
    at = np.linspace(0, 1, NUM_CURVE_POINTS)
    means = {name: np.interp(at, confidences, curve.mean(0)) for name, curve in curves.items()}
    return {name: [_rounded(value) for value in values] for name, values in ({"confidence": at} | means).items()}


def _sizes(matched: list[_Matched]) -> list[dict[str, Any]]:
    bins = []
    for low, high in zip(SIZES_PX, (*SIZES_PX[1:], None), strict=True):

        def here(boxes: np.ndarray, low: int = low, high: int | None = high) -> np.ndarray:
            size = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
            return np.asarray((size >= low) & (size < (np.inf if high is None else high)))

        wrong = (~m.right & here(m.image.predictions[m.shown]) for m in matched)
        bins.append(
            {
                "from_px": low,
                "to_px": high,
                "num_objects": sum(int(here(m.image.objects).sum()) for m in matched),
                "num_found": sum(int((m.found & here(m.image.objects)).sum()) for m in matched),
                "num_false_alarms": sum(int(alarms.sum()) for alarms in wrong),
            }
        )
    return bins


def _images(seen: list[Seen], matched: list[_Matched], folder: str) -> tuple[list[dict[str, Any]], int]:
    """Return the images with the most mistakes first, as many as may be kept, and how many are left out."""
    kept: list[dict[str, Any]] = []
    num_boxes = 0
    for m in sorted(matched, key=lambda m: (-m.num_mistakes, m.image.path)):
        num_boxes += len(m.found) + len(m.right)
        if num_boxes > MAX_BOXES and kept:
            break
        image = m.image
        kept.append(
            {
                "image": os.path.relpath(image.path, folder),
                "num_objects": len(m.found),
                "num_missed": int((~m.found).sum()),
                "num_false_alarms": int((~m.right).sum()),
                "objects": _boxes(image, image.objects, image.object_classes, m.found),
                "predictions": _boxes(
                    image,
                    image.predictions[m.shown],
                    image.prediction_classes[m.shown],
                    m.right,
                    image.confidences[m.shown],
                ),
            }
        )
    return kept, len(seen) - len(kept)


def _boxes(
    image: Seen, boxes: np.ndarray, classes: np.ndarray, right: np.ndarray, confidences: np.ndarray | None = None
) -> list[list[float]]:
    """Return boxes as left, top, right, bottom in shares of the image, class, whether right, and confidence.

    The ones that are wrong come first, should there be more than are kept.
    """
    height, width = image.shape
    scaled = scale_boxes(image.batch_shape, boxes.copy(), image.shape, image.ratio_pad) / [width, height, width, height]
    rows = []
    for i in np.argsort(right, kind="stable")[:MAX_BOXES_OF_AN_IMAGE]:
        row = [*(round(float(share), 4) for share in scaled[i]), int(classes[i]), int(right[i])]
        rows.append(row if confidences is None else [*row, round(float(confidences[i]), 3)])
    return rows


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _rounded(value: float) -> float:
    return round(float(value), 5)
