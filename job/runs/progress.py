"""Progress of a run, from the small files of its newest checkpoint."""

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

from job.errors import ObjectNotFoundError
from job.runs import checkpoint
from job.runs.records import CheckpointId
from job.runs.run import Run

RESULTS, EVALUATION_BEFORE = "results.csv", "evaluation-before.json"

NUM_TRIES = 5
"""How often the newest checkpoint may turn out to have been deleted, because newer ones came, while it is read."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows and first evaluation of the newest checkpoint."""

    checkpoint: CheckpointId | None
    rows: list[dict[str, float]]
    """``results.csv``: one row for each complete epoch, by Ultralytics' column names."""

    evaluation_before: dict[str, Any] | None
    """What the validation of the start weights saw, once there was one; see `job.training.evaluation`."""


def read_progress(run: Run) -> Progress:
    """Read the progress of a run.

    Raises:
        ObjectNotFoundError: If no checkpoint stays long enough to be read.
        CorruptObjectError: If it cannot be understood.
    """
    for tries_left in reversed(range(NUM_TRIES)):
        committed = checkpoint.committed(run)
        if not committed:
            break
        try:
            return _read(run, committed[-1])
        except ObjectNotFoundError:
            if not tries_left:
                raise
    return Progress(None, [], None)


def _read(run: Run, identity: CheckpointId) -> Progress:
    manifest = checkpoint.read_manifest(run, identity)
    files = {file.name: file.key for file in manifest.files}
    text = run.store.read(files[RESULTS]).decode() if RESULTS in files else ""
    before = json.loads(run.store.read(files[EVALUATION_BEFORE])) if EVALUATION_BEFORE in files else None
    rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]
    return Progress(identity, rows, before)
