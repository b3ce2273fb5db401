"""Parity of a detector and the file that was exported from it, on the same input.

Guarantees that candidates are compared before suppression, each with its own counterpart: behind it, a difference in
the last bits may keep another of two boxes. Metrics are Ultralytics' own figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ultralytics.utils.metrics import ap_per_class
from ultralytics.utils.ops import xywh2xyxy

from job.training.detector import DetectionSettings, Detector, Output
from job.training.evaluation_record import Detection
from job.training.library_errors import explained_prediction


@dataclass(frozen=True, slots=True)
class PictureParity:
    """One picture through both models."""

    confidence: float
    """The greatest difference of a confidence, over all candidates and classes."""

    px: float
    """The greatest difference of a corner's coordinate in pixels of the input, over candidates that count."""

    num_candidates: int
    """Candidates that count: those with the least confidence in one of the models."""

    original: list[Detection]
    exported: list[Detection]


class ModelPair:
    """Weights, and the ONNX file that was exported from them, on the CPU.

    Args:
        weights: A file in Ultralytics' format.
        exported: Its ONNX file.
        settings: The same for both; `DetectionSettings.square` is set.
        num_threads: Threads of torch.

    Raises:
        WeightsError: If the weights are unsafe or damaged.
    """

    def __init__(self, weights: Path, exported: Path, settings: DetectionSettings, num_threads: int) -> None:
        self._least = settings.conf
        self._original, self._exported = (Detector(file, settings, "cpu", num_threads) for file in (weights, exported))
        self.num_channels = self._original.num_channels
        """Channels of the pictures that both take."""

    def compare(self, picture: np.ndarray) -> PictureParity:
        """Run both models on a picture ``(h, w, c)``, BGR and uint8.

        Raises:
            JobError: If the memory is too small.
        """
        with explained_prediction(), torch.inference_mode():
            prepared = self._original.prepare([picture])
            outputs = [model.infer(prepared) for model in (self._original, self._exported)]
            boxes, scores = zip(*(_candidates(output) for output in outputs), strict=True)
            counts = torch.maximum(*scores).amax(0) >= self._least
            difference = (boxes[0] - boxes[1])[counts].abs()
            detections = [
                model.boxes_of(output, prepared, [picture])[0]
                for model, output in zip((self._original, self._exported), outputs, strict=True)
            ]
        return PictureParity(
            confidence=float((scores[0] - scores[1]).abs().max()),
            px=float(difference.max()) if len(difference) else 0.0,
            num_candidates=int(counts.sum()),
            original=detections[0],
            exported=detections[1],
        )


def metrics_at(
    confidence: float, detections: Sequence[Detection], is_right: Sequence[bool], objects: Sequence[int]
) -> dict[str, float]:
    """Return precision, recall and F1 at a confidence, and mAP50, each the mean of the classes, from 0 to 1.

    Args:
        confidence: From 0 to 1.
        detections: Of all pictures.
        is_right: Whether each is right.
        objects: The class of each labelled object.
    """
    right = np.array(is_right, bool).reshape(-1, 1)
    confidences, categories = (np.array([found[i] for found in detections], float) for i in (1, 0))
    *_, average_precision, _, precision, recall, f1, px, _ = ap_per_class(
        right, confidences, categories, np.array(objects, float)
    )
    at = {
        name: float(np.interp(confidence, px, curve.mean(0))) if len(curve) else 0.0
        for name, curve in (("precision", precision), ("recall", recall), ("f1", f1))
    }
    return at | {"map50": float(average_precision[:, 0].mean()) if len(average_precision) else 0.0}


def _candidates(output: Output) -> tuple[torch.Tensor, torch.Tensor]:
    """Return corners ``(anchors, 4)`` and scores ``(classes, anchors)`` of the only picture of an output."""
    found = output if isinstance(output, torch.Tensor) else output[0]
    return xywh2xyxy(found[0, :4].T.float()), found[0, 4:].float()
