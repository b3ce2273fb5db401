"""Audit of a dataset's labels by a run's model: every image of a split, then the ranked findings.

Guarantees that labels and images are read from a checked version of the dataset, and are not changed.
"""

from dataclasses import dataclass
from pathlib import Path

from job.audit.findings import Finding, Label, area_of, find_in_image, ranked
from job.audit.output import Audit, write_page, write_table
from job.datasets.image import quiet_decoder
from job.errors import DataError
from job.log import Progress
from job.prediction.labelled import LabelledData, labelled_data
from job.prediction.threshold import Threshold
from job.recipes.arguments import validation_tiles
from job.runs.records import RunRecord
from job.runs.run import Run
from job.session import environment

LEAST = 0.05
"""The least confidence of a detection that speaks for a label; a threshold below it takes its place."""


@dataclass(frozen=True, slots=True)
class AuditResult:
    """Files of an audit, and what is in them."""

    audit: Audit
    findings: list[Finding]
    table: str
    page: str


def audit_labels(
    run: Run, record: RunRecord, threshold: Threshold, split: str, *, dataset: str, device: str, workdir: Path
) -> AuditResult:
    """Look at every image of a split with the run's best weights.

    Args:
        run: Is finished.
        record: Its record.
        threshold: From its confidence on a detection is evidence.
        split: ``train``, ``val`` or ``test``.
        dataset: Its newest version is audited.
        device: ``cpu``, ``0`` and so on; empty chooses.
        workdir: A folder on this machine, for the dataset.

    Raises:
        DataError: If the dataset is broken, or has other classes than the run.
        JobError: If the weights, the store or the device fail.
    """
    with labelled_data(run, record, workdir, split, dataset) as data, quiet_decoder():
        from job.training.detector import DetectionSettings, Detector  # noqa: PLC0415 -- Ultralytics is confined first

        train = record.train
        tiles, overlap = validation_tiles(train)
        settings = DetectionSettings(
            conf=min(LEAST, threshold.confidence),
            iou=train["iou"],
            imgsz=train["imgsz"],
            max_det=record.facts.max_det,
            classes=record.classes,
            tiles=tiles,
            overlap=overlap,
        )
        detector = Detector(data.weights, settings, device, environment.num_threads())
        _require_classes(data, detector.names, dataset, single_class=train["single_cls"])
        images = {image.name: image for image in data.images}
        findings: list[Finding] = []
        areas: list[tuple[int, float]] = []
        with Progress("auditing", len(images), "picture") as progress:
            for number, image in enumerate(images.values(), 1):
                pixels = image.pixels(detector.num_channels)
                height, width = pixels.shape[:2]
                boxes = image.boxes(record.classes)
                labels = [Label(box.category, box.in_pixels(width, height), box.line) for box in boxes]
                areas += [(label.category, area_of(label.box)) for label in labels]
                (detections,) = detector.detect([pixels])
                findings += find_in_image(image.name, (width, height), labels, detections, threshold.confidence)
                progress.to(number)
        in_order = ranked(findings, areas)
        audit = Audit(
            run=run.name,
            dataset=dataset,
            digest=data.digest,
            split=split,
            num_images=len(images),
            num_labels=len(areas),
            names=detector.names,
            threshold=threshold,
        )
        page = write_page(audit, in_order, lambda name: images[name].pixels(detector.num_channels))
        return AuditResult(audit, in_order, write_table(in_order, detector.names), page)


def _require_classes(data: LabelledData, names: list[str], dataset: str, *, single_class: bool) -> None:
    if not single_class and list(data.class_names) != names:
        raise DataError(
            f"dataset {dataset}: has other classes than the model, {', '.join(data.class_names)} and "
            f"{', '.join(names)}; audit it with a run that was trained on these"
        )
