"""Export of a run's best weights, checked against them on the validation pictures.

Guarantees that only a file that has passed its check is returned. Knows nothing of the destination.
"""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.errors import MachineError, ParityError
from job.export.card import model_card
from job.export.records import ExportRecord, ExportRequest, Parity
from job.log import Progress
from job.prediction.labelled import LabelledData, labelled_data
from job.prediction.threshold import Threshold
from job.runs.records import FinalRecord, RunRecord
from job.runs.run import Run
from job.session import environment
from job.storage.checksums import sha256_of
from job.training.evaluation_record import LEAST_CONFIDENCE, Detection, Evaluation
from job.training.files import BEST
from job.training.matching import match

PACKAGES = ("onnx", "onnxruntime", "onnxslim")
"""Packages of the extra ``export``; Ultralytics would install those that are missing."""

MODEL, CARD = "best.onnx", "model-card.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export on this machine."""

    request: ExportRequest
    run: Run
    record: RunRecord
    final: FinalRecord
    evaluation: Evaluation | None
    threshold: Threshold
    workdir: Path


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide an export.

    Raises:
        MachineError: If some are not installed; names all of them.
    """
    found, missing = environment.versions(), []
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise MachineError(
            f"export: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; run `make export "
            "RUN=...`, which installs requirements/export.txt first"
        )
    return found


def make_export(export: Export, folder: Path) -> ExportRecord:
    """Export and check, and leave the files in an empty folder.

    Raises:
        ParityError: If the exported file differs from the weights beyond the bounds; lists each difference.
        JobError: If the data, the weights or this machine are not fit for it.
    """
    request, versions = export.request, package_versions()
    with labelled_data(export.run, export.record, export.workdir, "val") as data:
        from job.training.export import export_onnx  # noqa: PLC0415 -- Ultralytics is confined first

        px = export_onnx(data.weights, folder / MODEL, request.imgsz, export.final.finished_at)
        parity = check_parity(export, data, folder / MODEL, px)
    if problems := parity.beyond(request.bounds):
        raise ParityError(
            f"export of run {request.run}: {MODEL} differs from {BEST} beyond the bounds, and nothing was written; do "
            "not use it, or pass wider bounds",
            problems,
        )
    digest = sha256_of(folder / MODEL)
    record = ExportRecord(request=request, px=px, parity=parity, versions=versions, files={MODEL: digest})
    (folder / CARD).write_text(
        model_card(export.record, export.final, export.evaluation, export.threshold, record), encoding="utf-8"
    )
    return record.model_copy(update={"files": {MODEL: digest, CARD: sha256_of(folder / CARD)}})


def check_parity(export: Export, data: LabelledData, exported: Path, px: int) -> Parity:
    """Run weights and exported file on the validation pictures, spread evenly where there are more than asked for."""
    from job.training.detector import DetectionSettings  # noqa: PLC0415 -- Ultralytics is confined first
    from job.training.parity import ModelPair, metrics_at  # noqa: PLC0415 -- Ultralytics is confined first

    train = export.record.train
    most, at = export.request.pictures, export.threshold.confidence
    settings = DetectionSettings(
        conf=LEAST_CONFIDENCE,
        iou=train["iou"],
        imgsz=px,
        max_det=export.record.facts.max_det,
        classes=export.record.classes,
        square=True,
    )
    pair = ModelPair(data.weights, exported, settings, environment.num_threads())
    chosen = np.linspace(0, len(data.images) - 1, min(most, len(data.images))).round().astype(int)
    images, original, of_export = [data.images[i] for i in chosen], _Scored(), _Scored()
    found, objects = list[tuple[float, float, int]](), list[int]()
    num_in_both = num_in_one = 0
    with Progress("checking the export", len(images), "picture") as progress:
        for number, image in enumerate(images, 1):
            pixels = image.pixels(pair.num_channels)
            seen = pair.compare(pixels)
            height, width = pixels.shape[:2]
            labels = [
                Detection(box.category, 1.0, *box.in_pixels(width, height))
                for box in image.boxes(export.record.classes)
            ]
            found.append((seen.confidence, seen.px, seen.num_candidates))
            objects += [label.category for label in labels]
            original.add(seen.original, labels)
            of_export.add(seen.exported, labels)
            shown = [[box for box in boxes if box.confidence >= at] for boxes in (seen.original, seen.exported)]
            num_shared = sum(_are_right(*shown))
            num_in_both += num_shared
            num_in_one += sum(map(len, shown)) - 2 * num_shared
            progress.to(number)
    confidences, coordinates, num_candidates = np.array(found).T
    return Parity(
        num_pictures=len(images),
        num_of=len(data.images),
        num_candidates=int(num_candidates.sum()),
        confidence=float(confidences.max()),
        px=float(coordinates.max()),
        worst=images[int(confidences.argmax())].name,
        at=at,
        original=metrics_at(at, original.detections, original.is_right, objects),
        exported=metrics_at(at, of_export.detections, of_export.is_right, objects),
        num_in_both=num_in_both,
        num_in_one=num_in_one,
    )


class _Scored:
    """Detections of one model, and whether each is right."""

    def __init__(self) -> None:
        self.detections: list[Detection] = []
        self.is_right: list[bool] = []

    def add(self, detections: Sequence[Detection], labels: Sequence[Detection]) -> None:
        """Add those of one picture, the most confident first, with its labelled boxes."""
        self.detections += detections
        self.is_right += _are_right(detections, labels)


def _are_right(detections: Sequence[Detection], labels: Sequence[Detection]) -> list[bool]:
    """Return whether each detection is right about a labelled box."""
    one, other = (np.array(each, float).reshape(-1, 6) for each in (labels, detections))
    right: list[bool] = (match(one[:, 2:], one[:, 0], other[:, 2:], other[:, 0])[:, 0] >= 0).tolist()
    return right
