"""Evaluation of a finished run: thresholds chosen on its validation split, figures of its test split.

Guarantees that the run's data are those that it was trained on, that weights are those that it ended with, and that the
same request gives the same record. Knows nothing of how figures come about.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job.analysis.operating_point import OperatingPoint, choose
from job.analysis.score import Counts, PictureErrors, ScoredSplit
from job.datasets.prepare import PreparedData
from job.errors import DataError
from job.runs.evaluation import SplitEvaluation, StockMetrics, evaluation_name
from job.runs.lineage import fetch_best
from job.runs.progress import metrics_of
from job.runs.records import FinalRecord, RunRecord, now
from job.runs.run import Run
from job.session import environment
from job.session.run_data import run_data
from job.training.files import BEST

if TYPE_CHECKING:
    from job.training.split_validation import SplitValidation, ValidatedSplit

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What is evaluated, and how on this machine."""

    split: str | None
    """``test`` or ``val``; `None` for ``test`` if there is one."""

    recall: float | None
    """The recall to reach on the validation split, from 0 to 1; `None` for the best F1."""

    tiles: int | None
    """Width and height of tiles in pixels of the file; `None` for none."""

    overlap: float
    """Share of a tile that the next one shows again."""

    batch: int
    """Pictures that the model sees at once."""

    device: str
    workers: int
    workdir: Path


def evaluate(run: Run, record: RunRecord, final: FinalRecord, request: EvaluationRequest) -> SplitEvaluation:
    """Evaluate the best weights of a finished run, and write the record into the bucket, in place of an earlier one.

    Raises:
        DataError: If the data have no such split.
        JobError: If data, weights or device fail.
    """
    with run_data(run, record, request.workdir) as (data, folder):
        if request.split == "test" and data.test is None:
            raise DataError(
                f"--split test: dataset {data.name}, as run {run.name} was trained on it, has no test split; pass "
                "--split val, or add one to data.yaml before the next training"
            )
        split = request.split or ("test" if data.test else "val")
        validation = _load(run, record, request, data, folder)
        log.info("evaluation: choosing thresholds on val")
        val = validation.of("val")
        log.info("evaluation: scoring on %s", split)
        seen = val if split == "val" else validation.of(split)
        point = choose(run.name, ScoredSplit(val.pictures, validation.names), request.recall)
        evaluation = _describe(
            run=run,
            final=final,
            request=request,
            split=split,
            digest=str(data.test if split == "test" else data.val),
            seen=seen,
            names=validation.names,
            point=point,
        )
        run.write(evaluation_name(split), evaluation, overwrite=True)
        return evaluation


def _load(
    run: Run, record: RunRecord, request: EvaluationRequest, data: PreparedData, folder: Path
) -> "SplitValidation":
    """Fetch the best weights, and load them."""
    from job.training.isolation import isolate_ultralytics  # noqa: PLC0415 -- torch is heavy, checks come first

    isolate_ultralytics(folder / "ultralytics")
    from job.training.split_validation import (  # noqa: PLC0415 -- Ultralytics is confined first
        SplitValidation,
        ValidationSettings,
    )

    fetch_best(run, folder / BEST)
    settings = ValidationSettings(
        train=record.request["train"],
        max_det=record.facts.max_det,
        tiles=request.tiles,
        overlap=request.overlap,
        batch=request.batch,
        device=request.device,
        workers=request.workers,
        num_threads=environment.num_threads(),
    )
    return SplitValidation(folder / BEST, data.yaml, settings, folder / "ultralytics")


def _describe(
    *,
    run: Run,
    final: FinalRecord,
    request: EvaluationRequest,
    split: str,
    digest: str,
    seen: "ValidatedSplit",
    names: list[str],
    point: OperatingPoint,
) -> SplitEvaluation:
    """Score what was seen at an operating point."""
    scored, thresholds = ScoredSplit(seen.pictures, names), point.thresholds(len(names))
    pictures = scored.count(thresholds)
    counts = Counts.of(pictures, len(names))
    errors = PictureErrors.of(scored.resamples, counts)
    stock = metrics_of(dict(seen.metrics))
    return SplitEvaluation(
        run=run.name,
        evaluated_at=now(),
        weights=final.weights[BEST].sha256,
        split=split,
        digest=digest,
        rule=point.rule,
        confidence=point.confidence,
        imgsz=seen.imgsz,
        tiles=request.tiles,
        overlap=request.overlap,
        max_det=seen.max_det,
        stock=StockMetrics(**{name: stock[name] for name in StockMetrics.model_fields}),
        num_empty=sum(not any(each.num_objects for each in picture.classes) for picture in pictures),
        total=scored.total(counts),
        count_bias=errors.count_bias,
        count_mae=errors.count_mae,
        false_alarms_per_empty=errors.false_alarms_per_empty,
        classes=[
            scored.of_class(counts, number, float(thresholds[number]), is_own=number in point.own)
            for number in range(len(names))
        ],
        sizes=scored.by_size(thresholds, 0),
        sizes_at_imgsz=scored.by_size(thresholds, 1),
        pictures=pictures,
    )
