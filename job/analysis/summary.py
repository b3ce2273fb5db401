"""Summary of a run's records: result, learning curve, pace, cost.

Guarantees that a value that was not recorded is None, never a guess. Knows nothing of decisions.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from job.errors import CorruptObjectError
from job.recipes.arguments import Arguments
from job.recipes.recipe import load_recipe, recipe_names
from job.recipes.recognition import shown_recipe, trained_as
from job.runs.cost import RunCost, cost_of
from job.runs.listing import RunListing
from job.runs.progress import EvaluationRecord, read_progress
from job.runs.records import AttemptRecord, FinalRecord, RunRecord, now
from job.runs.run import Run
from job.runs.search import survey
from job.storage.object_store import Store
from job.text import HOUR
from job.training.evaluation_record import Evaluation
from job.training.files import EVALUATION

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run's records."""

    record: RunRecord
    attempts: tuple[AttemptRecord, ...]
    final: FinalRecord | None
    evaluation: Evaluation | None = None
    """Evaluation of the best weights; only `with_evaluation` reads it."""

    @property
    def run(self) -> str:
        """The run's name."""
        return self.record.run

    @property
    def recipe(self) -> str:
        """Name of its recipe: a file of the user's own, or the shipped one that matches its training arguments."""
        return shown_recipe(self.record.request)

    @property
    def trained_as(self) -> str:
        """Name of the shipped recipe that matches its training arguments."""
        return trained_as(self.record.request)

    @property
    def recipe_epochs(self) -> int | None:
        """Epochs of that shipped recipe; None if there is none."""
        if self.trained_as not in recipe_names():
            return None
        return int(load_recipe(self.trained_as, self.record.request["profile"]).train["epochs"])

    @property
    def profile(self) -> str:
        """``full`` or ``demo``."""
        return self.record.request["profile"]

    @property
    def train(self) -> Arguments:
        """Its training arguments, all of them."""
        return self.record.train

    @property
    def val(self) -> str | None:
        """Digest of its validation set; older versions did not record it."""
        return self.record.dataset.val

    @property
    def before(self) -> dict[str, float] | None:
        """Metrics of the start weights, once it is finished."""
        return self.final.comparison.before if self.final else None

    @property
    def after(self) -> dict[str, float] | None:
        """Metrics of the best weights, once it is finished."""
        return self.final.comparison.after if self.final else None

    @property
    def learning_curve(self) -> list[float]:
        """F1 after each epoch of a finished run."""
        return [row["f1"] for row in self.final.course] if self.final else []

    @property
    def epoch_s(self) -> float | None:
        """Seconds that an epoch of a finished run took on average, its validation included."""
        return self.final.train_s / self.final.num_epochs if self.final else None

    @property
    def cost(self) -> RunCost:
        """Seconds and dollars of all attempts, as the report has them."""
        return cost_of(self.attempts, now())

    @property
    def hours(self) -> float:
        """Machine hours of the run."""
        return self.cost.total_s / HOUR

    @property
    def usd(self) -> float | None:
        """Dollars of all attempts; None, which means unknown, if one has no price."""
        return self.cost.usd

    @property
    def machines(self) -> list[str]:
        """The machines of its attempts, in order, with the GPU if there was one."""
        kinds = []
        for attempt in self.attempts:
            gpu = (attempt.start or self.record).environment.get("gpu")
            kinds.append(", ".join(str(part) for part in (gpu, attempt.machine) if part))
        return list(dict.fromkeys(kinds))

    def measured_alike(self, other: "RunSummary") -> bool:
        """Whether the metrics of two runs may be compared: both were measured on the same validation set."""
        if self.val is not None and other.val is not None:
            return self.val == other.val
        mine, theirs = self.record.dataset, other.record.dataset
        return mine.digest == theirs.digest and mine.set_aside == theirs.set_aside


def read_summary(run: Run, record: RunRecord) -> RunSummary:
    """Read the records of one run; raises `CorruptObjectError` if one of them has another form."""
    return _summary(RunListing(run), record)


def _summary(listing: RunListing, record: RunRecord) -> RunSummary:
    return RunSummary(record=record, attempts=tuple(listing.attempts()), final=listing.final())


def with_evaluation(store: Store, summary: RunSummary) -> RunSummary:
    """Return a run with the evaluation of its best weights; an unreadable one is passed over with a warning."""
    try:
        return replace(summary, evaluation=Run(store, summary.run).read(EvaluationRecord, EVALUATION))
    except CorruptObjectError as error:
        log.warning("%s; passed over", error)
        return summary


def read_start_evaluation(store: Store, summary: RunSummary) -> Evaluation | None:
    """Read the evaluation of a run's start weights; an unreadable one is passed over with a warning."""
    try:
        return read_progress(Run(store, summary.run)).evaluation_before
    except CorruptObjectError as error:
        log.warning("%s; passed over", error)
        return None


def finished_runs(store: Store) -> list[RunSummary]:
    """Read the records of all finished runs, by time of their end; unreadable ones are passed over with a warning."""
    seen = survey(store)
    seen.log_strays()
    found = []
    for each in seen.runs:
        if each.finished:
            try:
                found.append(_summary(each.listing, each.record))
            except CorruptObjectError as error:
                log.warning("%s; passed over", error)
    return sorted(found, key=lambda summary: summary.final.finished_at if summary.final else "")


def comparable(summary: RunSummary, others: Sequence[RunSummary]) -> list[RunSummary]:
    """Return the others whose metrics may be compared with those of a run, at the same scale."""
    return [
        other
        for other in others
        if other.run != summary.run and other.profile == summary.profile and summary.measured_alike(other)
    ]
