"""Facts of a report, read from a run's records in the bucket.

Guarantees that the course is that of the newest checkpoint, whatever is written meanwhile. Knows nothing of how it is
shown.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from job.analysis.metrics import metrics_of
from job.errors import ObjectNotFoundError
from job.recipes.recipe import Band
from job.runs import resume, wandb_status
from job.runs.accounting import read_cost
from job.runs.cost import RunCost
from job.runs.progress import read_progress
from job.runs.records import AttemptRecord, Exactness, FinalRecord, RunRecord, now
from job.runs.run import Run

EVALUATION = "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a run at one moment."""

    run: Run
    record: RunRecord
    final: FinalRecord | None
    at: str
    rows: list[dict[str, float]]
    """``results.csv``: one row for each complete epoch, by Ultralytics' column names."""

    evaluation_before: dict[str, Any] | None
    """What the validation of the start weights saw, once there was one; see `job.training.evaluation`."""

    evaluation: dict[str, Any] | None
    """The same of the best weights, at the end."""

    attempts: list[AttemptRecord]
    cost: RunCost
    bits: Exactness
    """Whether the attempts can be compared bit by bit; see `job.runs.resume.exactness`."""

    tracking: str
    """Where the curve of Weights & Biases is."""

    @property
    def course(self) -> list[dict[str, float]]:
        """The metrics after each epoch, as shares of 1."""
        return [metrics_of(row) for row in self.rows]

    @property
    def before(self) -> dict[str, float] | None:
        """The metrics of the start weights: row 0."""
        return metrics_of(self.evaluation_before["row"]) if self.evaluation_before else None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of ``best.pt`` (1-based): the last of those with the highest mAP50-95, as Ultralytics has it."""
        if self.final is not None:
            return self.final.best_epoch
        course = self.course
        return max(range(len(course)), key=lambda i: (course[i]["map50_95"], i)) + 1 if course else None

    @property
    def after(self) -> dict[str, float] | None:
        """The metrics of the best weights: as evaluated at the end, before that those of the best epoch so far."""
        if self.final is not None:
            return self.final.comparison.after
        return self.course[self.best_epoch - 1] if self.best_epoch else None

    @property
    def num_epochs(self) -> int:
        """The epochs that were asked for."""
        return int(self.record.request["train"]["epochs"])

    @property
    def expect(self) -> dict[str, Band]:
        """What the recipe's authors expect, by metric."""
        return {name: Band(*ends) for name, ends in self.record.expect.items()}

    @property
    def cuts(self) -> list[float]:
        """Where in the course, in epochs, attempts ended before the run did."""
        facts = self.record.facts
        num_batches = math.ceil(facts.num_train_images / facts.batch)
        pairs = zip(self.attempts, self.cost.attempts, strict=True)
        positions = [attempt.position for attempt, cost in pairs if cost.was_cut_off and attempt.position]
        return [epoch + batch / num_batches for epoch, batch in positions]


def read_facts(run: Run, record: RunRecord, at: str | None = None) -> Facts:
    """Read a run's records.

    Args:
        run: The run.
        record: Its own.
        at: The time at which this is asked; now, if left out.
    """
    at = at or now()
    progress = read_progress(run)
    attempts = run.attempt_records()
    return Facts(
        run=run,
        record=record,
        final=run.final(),
        at=at,
        rows=progress.rows,
        evaluation_before=progress.evaluation_before,
        evaluation=_read_evaluation(run),
        attempts=attempts,
        cost=read_cost(run, at),
        bits=resume.exactness(record, attempts),
        tracking=wandb_status.describe(run),
    )


def _read_evaluation(run: Run) -> dict[str, Any] | None:
    try:
        evaluation: dict[str, Any] = json.loads(run.store.read(run.key(EVALUATION)))
    except ObjectNotFoundError:
        return None
    return evaluation
