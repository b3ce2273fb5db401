"""Runs compared by picture: differences of figures on the same pictures, each with its 95 % interval.

Guarantees that only measurements of one split, of the same files, with thresholds of one rule are paired. Two runs miss
the same hard pictures, so that the interval of their difference is narrower than those of their figures suggest.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from job.analysis.bootstrap import Resamples, interval_estimate
from job.analysis.score import Counts, Rates
from job.analysis.summary import RunSummary, with_evaluation
from job.errors import UnreadableRecordError
from job.runs.evaluation import SPLITS, IntervalEstimate, SplitEvaluation, evaluation_name
from job.runs.run import Run
from job.storage.object_store import Store
from job.training.evaluation_record import PictureCounts
from job.training.files import BEST

log = logging.getLogger(__name__)

IN_TRAINING = "best F1 in training"
"""Rule of the evaluation that ends a training: one threshold for all classes, chosen on the pictures of the score."""

PAIRED = {"f1": "F1", "precision": "precision", "recall": "recall", "count_mae": "count error"}
"""Figures that are compared; all but the last are shares."""


class Basis(NamedTuple):
    """What two measurements must share to be compared."""

    split: str
    digest: str
    """Of the split's pictures, labels and classes."""

    rule: str
    """How thresholds were chosen."""


Measurements = Mapping[Basis, Sequence[PictureCounts]]
"""A run's counts by picture, the most trustworthy basis first."""


def read_measurements(store: Store, summary: RunSummary) -> Measurements:
    """Read the evaluations of a finished run's best weights; an unreadable one is passed over with a warning."""
    run, found = Run(store, summary.run), dict[Basis, Sequence[PictureCounts]]()
    if summary.final is None:
        return found
    for split in SPLITS:
        try:
            evaluation = run.read(SplitEvaluation, evaluation_name(split))
        except UnreadableRecordError as error:
            log.warning("%s; passed over", error)
            continue
        if evaluation and evaluation.weights == summary.final.weights[BEST].sha256:
            found[Basis(split, evaluation.digest, evaluation.rule)] = evaluation.pictures
    trained = summary.evaluation or with_evaluation(store, summary).evaluation
    if trained and trained.pictures and summary.val is not None:
        found[Basis("val", summary.val, IN_TRAINING)] = trained.pictures
    return found


@dataclass(frozen=True, slots=True)
class Paired:
    """Runs that were measured on the same pictures."""

    basis: Basis
    num_pictures: int
    figures: tuple[Mapping[str, np.ndarray], ...]
    """Of each run: the figures of `PAIRED`, each ``(1 + r,)`` for the pictures and each resample."""

    def value(self, run: int, name: str) -> IntervalEstimate:
        """Return a figure of a run."""
        return interval_estimate(self.figures[run][name])

    def difference(self, run: int, other: int, name: str) -> IntervalEstimate:
        """Return a figure of a run minus that of another one."""
        return interval_estimate(self.figures[run][name] - self.figures[other][name])

    @property
    def best(self) -> int:
        """The run with the highest F1."""
        return max(range(len(self.figures)), key=lambda run: self.value(run, "f1").value or 0.0)


def pair(runs: Sequence[Measurements]) -> Paired | None:
    """Pair runs by picture on the first basis that all of them have; `None` if there is none."""
    for basis in runs[0]:
        if not all(basis in run for run in runs):
            continue
        by_name = [{picture.image: picture for picture in run[basis]} for run in runs]
        images = sorted(by_name[0])
        if images and all(sorted(each) == images for each in by_name):
            return Paired(basis, len(images), _figures([[each[image] for image in images] for each in by_name]))
    return None


def f1_difference(store: Store, run: RunSummary, other: RunSummary) -> IntervalEstimate | None:
    """Return the F1 of a finished run minus that of another; `None` if they were not measured on the same pictures."""
    paired = pair([read_measurements(store, each) for each in (run, other)])
    return paired.difference(0, 1, "f1") if paired else None


def is_distinguishable(difference: IntervalEstimate) -> bool:
    """Whether the interval of a difference leaves 0 out."""
    return difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high


def describe_difference(difference: IntervalEstimate, name: str = "f1") -> str:
    """Return a difference with its interval and what that means, in points of 100 or in objects."""
    if difference.value is None or difference.low is None or difference.high is None:
        return "not known"
    unit, digits = (1, 2) if name == "count_mae" else (100, 1)
    low, value, high = (f"{unit * each:+.{digits}f}" for each in (difference.low, difference.value, difference.high))
    return f"{value} [{low}, {high}]{'' if is_distinguishable(difference) else ', not distinguishable'}"


def _figures(runs: Sequence[Sequence[PictureCounts]]) -> tuple[Mapping[str, np.ndarray], ...]:
    """Return the figures of runs on the same pictures in the same order."""
    categories = [counted.category for pictures in runs for picture in pictures for counted in picture.classes]
    resamples = Resamples.of(len(runs[0]))
    found = []
    for pictures in runs:
        counts = Counts.of(pictures, max(categories, default=0) + 1)
        rates = Rates.of(resamples, counts)
        mae = resamples.mean(abs(counts.errors))
        found.append({"f1": rates.f1, "precision": rates.precision, "recall": rates.recall, "count_mae": mae})
    return tuple(found)
