"""Export of a detector to ONNX by Ultralytics' own exporter.

Guarantees that nothing is installed, and that the same weights, size and versions give the same bytes.
"""

import warnings
from pathlib import Path
from typing import Any

from ultralytics.engine.exporter import Exporter

from job.errors import WeightsError
from job.training.weights import load_weights


def export_onnx(weights: Path, target: Path, imgsz: int, date: str) -> int:
    """Export weights to an ONNX file for one square picture, and return its width in pixels, a multiple of the stride.

    Args:
        weights: A file in Ultralytics' format.
        target: The file, with the suffix ``.onnx``.
        imgsz: The size that is asked for.
        date: Recorded in the file in place of the time of the export.

    Raises:
        WeightsError: If the weights are unsafe, damaged, or have a head that is not exported.
    """
    model = load_weights(weights)
    if model.end2end:
        raise WeightsError(
            "export: these weights have a head without suppression of overlaps (YOLOv10, YOLO26), which the check "
            "cannot compare; use `yolo export`"
        )
    model.task = "detect"
    model.pt_path = str(target.with_suffix(".pt"))  # the exporter names its file after that one
    exporter = Exporter(overrides={"format": "onnx", "imgsz": imgsz, "device": "cpu", "simplify": True})

    def set_date(running: Any) -> None:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
        running.metadata["date"] = date

    exporter.callbacks["on_export_start"].append(set_date)
    with warnings.catch_warnings(action="ignore"):  # of torch, about its exporter and constants in the trace
        exporter(model=model)
    return int(exporter.imgsz[0])
