"""Progress of a run, from the small files of its newest checkpoint."""

import csv
import io
from dataclasses import dataclass

from pydantic import ConfigDict

from job.errors import ObjectNotFoundError
from job.runs.checkpoint import CHECKPOINTS
from job.runs.listing import RunListing
from job.runs.records import CheckpointId, Record
from job.runs.run import Run
from job.training.evaluation_record import Evaluation, harmonic_mean
from job.training.files import EVALUATION_BEFORE, RESULTS

COLUMNS = {
    "precision": "metrics/precision(B)",
    "recall": "metrics/recall(B)",
    "map50": "metrics/mAP50(B)",
    "map50_95": "metrics/mAP50-95(B)",
}
"""Ultralytics' columns by metric."""

NUM_TRIES = 5
"""Tries; a new one begins if retention deletes the checkpoint while it is read."""


class EvaluationRecord(Record, Evaluation):
    """An evaluation in the bucket: of the best weights, or, with each checkpoint, of the start weights."""

    model_config = ConfigDict(allow_inf_nan=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows of the newest checkpoint, and the evaluation of the start weights once it ran."""

    checkpoint: CheckpointId | None
    rows: list[dict[str, float]]
    """``results.csv``: one row for each complete epoch, by Ultralytics' column names."""

    evaluation_before: EvaluationRecord | None


def read_progress(run: Run, listing: RunListing | None = None) -> Progress:
    """Read the progress of a run by its listing, which is made if left out.

    Raises `ObjectNotFoundError` if no checkpoint stays long enough to be read.
    """
    listing = listing or RunListing(run, below=CHECKPOINTS)
    for tries_left in reversed(range(NUM_TRIES)):
        committed = listing.committed()
        if not committed:
            break
        try:
            return _read(listing, committed[-1])
        except ObjectNotFoundError:
            if not tries_left:
                raise
            listing = RunListing(run, below=CHECKPOINTS)
    return Progress(None, [], None)


def metrics_of(row: dict[str, float]) -> dict[str, float]:
    """Return the metrics of a row of ``results.csv``; F1 is the harmonic mean of precision and recall."""
    metrics = {name: row[column] for name, column in COLUMNS.items()}
    return {"f1": round(harmonic_mean(metrics["precision"], metrics["recall"]), 5), **metrics}


def imported_rows(run: Run) -> list[dict[str, float]]:
    """Return the rows of an imported run, which has no checkpoints; none if they are not there yet."""
    try:
        return read_rows(run.store.read(run.key(RESULTS)).decode())
    except ObjectNotFoundError:
        return []


def read_rows(text: str) -> list[dict[str, float]]:
    """Read the text of ``results.csv``; raises `ValueError` for a cell that is no number."""
    table = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    return [{name.strip(): float(value) for name, value in row.items()} for row in table]


def _read(listing: RunListing, identity: CheckpointId) -> Progress:
    manifest, store = listing.manifest(identity), listing.run.store
    files = {file.name: file.key for file in manifest.files}
    text = store.read(files[RESULTS]).decode() if RESULTS in files else ""
    before = files.get(EVALUATION_BEFORE)
    return Progress(identity, read_rows(text), EvaluationRecord.read(before, store.read(before)) if before else None)
