"""Record of ``job evaluate``: a run's best weights scored on a split, each figure with its interval.

Knows nothing of how figures and intervals come about; see `job.analysis.score`.
"""

from typing import NamedTuple

from pydantic import NonNegativeInt, PositiveInt

from job.runs.listing import RunListing
from job.runs.records import Part, Record, Timestamp
from job.text import counted, percent
from job.training.evaluation_record import PictureCounts

SPLITS = ("test", "val")
"""Splits that a run can be evaluated on; where there are evaluations on both, the first one counts."""


class IntervalEstimate(NamedTuple):
    """A figure and its 95 % interval; `None` where it has no value, such as a precision without detections."""

    value: float | None
    low: float | None
    high: float | None


class Score(Part):
    """Objects of one kind at the operating point; shares are from 0 to 1, means over the classes that have objects."""

    num_objects: NonNegativeInt
    num_found: NonNegativeInt
    num_false_alarms: NonNegativeInt
    precision: IntervalEstimate
    recall: IntervalEstimate
    f1: IntervalEstimate
    """The harmonic mean of precision and recall."""

    map50: IntervalEstimate
    map50_95: IntervalEstimate | None = None
    """`None` for a range of sizes."""


class ClassScore(Score):
    """Objects of one class."""

    name: str
    confidence: float
    """Its threshold."""

    is_own: bool
    """Whether the threshold was chosen for this class alone."""

    count_bias: IntervalEstimate
    """Detections minus objects of a picture, on average."""

    count_mae: IntervalEstimate
    """The same without its sign."""


class SizeScore(Score):
    """Objects in a range of sizes: the square root of a box's area, in pixels."""

    from_px: NonNegativeInt
    to_px: PositiveInt | None
    """`None` for the last range."""


class StockMetrics(Part):
    """Ultralytics' own figures on the split: precision and recall where F1 is best on that split itself."""

    precision: float
    recall: float
    map50: float
    map50_95: float


class SplitEvaluation(Record):
    """A run's best weights on a split (``evaluations/SPLIT.json``); a later evaluation replaces it."""

    run: str
    evaluated_at: Timestamp
    weights: str
    """SHA-256 of the file."""

    split: str
    digest: str
    """Of the split's pictures, labels and classes; evaluations with equal digests can be compared by picture."""

    rule: str
    """How thresholds were chosen on the validation split: ``best F1`` or ``recall 0.9``."""

    confidence: float
    """The threshold of classes without one of their own."""

    imgsz: PositiveInt
    tiles: PositiveInt | None
    """Width and height of the tiles that were looked at besides; `None` for none."""

    overlap: float
    max_det: PositiveInt
    stock: StockMetrics
    num_empty: NonNegativeInt
    """Pictures without an object."""

    total: Score
    count_bias: IntervalEstimate
    count_mae: IntervalEstimate
    """Errors of the count of a picture, all classes together."""

    false_alarms_per_empty: IntervalEstimate
    """False alarms in a picture without an object, on average."""

    classes: list[ClassScore]
    sizes: list[SizeScore]
    """By size in the file."""

    sizes_at_imgsz: list[SizeScore]
    """By size at `imgsz`."""

    pictures: list[PictureCounts]

    @property
    def is_chosen_here(self) -> bool:
        """Whether the threshold was chosen on the pictures that the score is of."""
        return self.split == "val"

    @property
    def summary(self) -> str:
        """The score in a sentence."""
        figures = {"F1": self.total.f1, "precision": self.total.precision, "recall": self.total.recall}
        texts = [f"{name} {_percent(figure)}" for name, figure in figures.items()]
        same = ", which also chose the threshold" if self.is_chosen_here else ""
        return f"{', '.join(texts)}; {counted(len(self.pictures), 'picture')} of {self.split}{same}"


def _percent(figure: IntervalEstimate) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "not known"
    return f"{percent(figure.value)} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def evaluation_name(split: str) -> str:
    """Return the name of the object with a run's evaluation on a split."""
    return f"evaluations/{split}.json"


def read_evaluation(listing: RunListing, weights: str) -> SplitEvaluation | None:
    """Return the evaluation of a run's best weights, on the test split if there is one.

    Args:
        listing: The run's records.
        weights: SHA-256 of the weights.

    Raises:
        UnreadableRecordError: If it has another form.
    """
    names = [name for name in map(evaluation_name, SPLITS) if name in listing.objects]
    found = (listing.read(SplitEvaluation, name) for name in names)
    return next((each for each in found if each and each.weights == weights), None)
