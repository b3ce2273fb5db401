"""Data of a report: everything that its page shows, read from a run's records in the bucket.

Guarantees that rows and first evaluation are of one checkpoint, the newest. Knows nothing of HTML.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from job.analysis.advice import Advice, advise
from job.analysis.summary import RunSummary, comparable, finished_runs
from job.recipes.recipe import Band
from job.runs import resume, wandb_status
from job.runs.cost import RunCost, read_cost
from job.runs.evaluation import SplitEvaluation, read_evaluation
from job.runs.listing import RunListing
from job.runs.progress import EvaluationRecord, imported_rows, metrics_of, read_progress
from job.runs.records import AttemptRecord, Exactness, FinalRecord, RunRecord, now
from job.runs.run import Run
from job.storage.object_store import Store, StoredObject
from job.training.files import BEST, EVALUATION

BOX_LOSS = "train/box_loss"

FRESH = ("scratch", "pretrained")
"""Kinds of start without weights of the user's own."""

FRESH_KINDS: dict[str, tuple[str, ...]] = {"scratch": (), "pretrained": ("scratch",)}
"""Kinds of start that the first epoch of another kind is compared with, if not with all of `FRESH`."""


@dataclass(frozen=True, slots=True)
class FreshStart:
    """First epoch of another finished run on the same validation set, without weights of the user's own."""

    run: str
    start: str
    """Published weights, such as ``weights/yolo11s.pt``, or ``scratch``."""

    box_loss: float
    map50: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """State of a run at one moment."""

    run: Run
    record: RunRecord
    final: FinalRecord | None
    at: str
    rows: list[dict[str, float]]
    """``results.csv``: one row for each complete epoch, by Ultralytics' column names."""

    evaluation_before: EvaluationRecord | None
    """Evaluation of the start weights, once it ran."""

    evaluation: EvaluationRecord | None
    """Evaluation of the best weights, at the end."""

    score: SplitEvaluation | None
    """Evaluation on the test split, or else on the validation split, by ``job evaluate``."""

    attempts: list[AttemptRecord]
    cost: RunCost
    bits: Exactness
    """Whether the attempts can be compared bit by bit; see `job.runs.resume.exactness`."""

    tracking: str
    """State of the run in Weights & Biases."""

    advice: Advice
    """The next step, by the rules of ``job advise``."""

    fresh_start: FreshStart | None
    """A run to compare the first epoch with; None if this one began as fresh, or there is none."""

    start_f1: float | None
    """F1 at the end of the run that the start weights are of, if it was measured on the same validation set."""

    objects: dict[str, StoredObject]
    """The run's objects in the bucket by name."""

    @property
    def newest_evaluation(self) -> EvaluationRecord | None:
        """Evaluation of the best weights, or of the start weights while the run is not finished."""
        return self.evaluation or self.evaluation_before

    @property
    def learning_curve(self) -> list[dict[str, float]]:
        """Metrics after each epoch, as shares of 1."""
        return [metrics_of(row) for row in self.rows]

    @property
    def before(self) -> dict[str, float] | None:
        """Metrics of the start weights (row 0)."""
        return metrics_of(self.evaluation_before.row) if self.evaluation_before else None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of ``best.pt`` (1-based): the last one with the highest mAP50-95, or F1 with ``--best f1``."""
        if self.final is not None:
            return self.final.best_epoch
        return self._best_by("f1" if self.record.train["best"] == "f1" else "map50_95")

    @property
    def better_f1_epoch(self) -> int | None:
        """An epoch (1-based) with a better F1 than that of ``best.pt``, if there is one."""
        best, highest = self.best_epoch, self._best_by("f1")
        curve = self.learning_curve
        if best is None or highest is None or not best <= len(curve):
            return None
        return highest if curve[highest - 1]["f1"] > curve[best - 1]["f1"] else None

    def _best_by(self, name: str) -> int | None:
        """Return the last epoch (1-based) with the highest value of a metric."""
        curve = self.learning_curve
        return max(range(len(curve)), key=lambda i: (curve[i][name], i)) + 1 if curve else None

    @property
    def after(self) -> dict[str, float] | None:
        """Metrics of the best weights: of the final evaluation, or of the best epoch so far."""
        if self.final is not None:
            return self.final.comparison.after
        return self.learning_curve[self.best_epoch - 1] if self.best_epoch else None

    @property
    def is_full(self) -> bool:
        """Whether it was trained at the scale that the recipe's bands are meant for."""
        return self.record.request["profile"] == "full"

    @property
    def is_better(self) -> bool:
        """Whether the best weights have at least the F1 of the start weights, if that is known."""
        return self.before is None or self.after is None or self.after["f1"] >= self.before["f1"]

    @property
    def reached(self) -> bool | None:
        """Whether the best weights have the F1 that the recipe expects; None if it expects none at this scale."""
        band = self.expect.get("f1")
        return band.reached(self.after["f1"]) if band and self.after and self.is_full else None

    @property
    def num_epochs(self) -> int:
        """The requested epochs."""
        return int(self.record.train["epochs"])

    @property
    def expect(self) -> dict[str, Band]:
        """The recipe's expected bands, by metric."""
        return {name: Band(*ends) for name, ends in self.record.expect.items()}

    @property
    def cuts(self) -> list[float]:
        """Positions in epochs at which attempts were cut off."""
        facts = self.record.facts
        num_batches = math.ceil((facts.num_train_images or 1) / facts.batch)  # an imported run has no attempts
        pairs = zip(self.attempts, self.cost.attempts, strict=True)
        positions = [attempt.position for attempt, cost in pairs if cost.was_cut_off and attempt.position]
        return [epoch + batch / num_batches for epoch, batch in positions]


def read_facts(run: Run, record: RunRecord, at: str | None = None) -> Facts:
    """Read a run's records; costs are counted to the time `at`, which is now if left out."""
    at = at or now()
    listing = RunListing(run)
    progress = read_progress(run, listing)
    attempts, final = listing.attempts(), listing.final()
    evaluation = listing.read(EvaluationRecord, EVALUATION)
    summary = RunSummary(record=record, attempts=tuple(attempts), final=final, evaluation=evaluation)
    others = finished_runs(run.store) if progress.rows else []
    alike = {other.run: other for other in comparable(summary, others)}
    source = alike.get(record.start.point.run or "")
    return Facts(
        run=run,
        record=record,
        final=final,
        at=at,
        rows=imported_rows(run) if record.imported else progress.rows,
        evaluation_before=progress.evaluation_before,
        evaluation=evaluation,
        score=read_evaluation(listing, final.weights[BEST].sha256) if final else None,
        attempts=attempts,
        cost=read_cost(run, listing, at),
        bits=resume.exactness(record, attempts),
        tracking=wandb_status.describe(listing),
        advice=advise(
            summary,
            others,
            bucket=run.store.uri,
            usd_per_hour=attempts[-1].claim.price.usd_per_h if attempts else None,
        ),
        fresh_start=_fresh_start(record, run.store, alike.values()),
        start_f1=source.after["f1"] if source and source.after else None,
        objects=listing.objects,
    )


def _fresh_start(record: RunRecord, store: Store, alike: Iterable[RunSummary]) -> FreshStart | None:
    """Return the newest comparable run that began without own weights; from scratch if this run did so."""
    kinds = FRESH_KINDS.get(record.start.point.kind, FRESH)
    for other in reversed([each for each in alike if each.record.start.point.kind in kinds]):
        if rows := read_progress(Run(store, other.run)).rows:
            start = other.record.start.point.source or "scratch"
            return FreshStart(other.run, start, rows[0][BOX_LOSS], metrics_of(rows[0])["map50"])
    return None
