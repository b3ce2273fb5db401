"""Classes that fell from the start weights to the best weights of a run, while F1 of all classes rose.

Guarantees that a fall is more than chance: both evaluations are of the same pictures, and the 95 % interval of the
difference, by resampling them, lies below 0. Knows nothing of buckets.
"""

from collections.abc import Iterator

from job.analysis.bootstrap import Resamples, interval_estimate
from job.analysis.paired import describe_difference
from job.analysis.score import Counts, Rates
from job.runs.progress import metrics_of
from job.text import counted, percent
from job.training.evaluation_record import Evaluation

FIGURES = {"f1": "F1", "recall": "recall"}

MIN_PICTURES = 6
"""Pictures with objects of a class, at least. Five agree by chance in one of 32 cases, more often than 2.5 %, and
resampling does not tell.
"""


def find_class_falls(before: Evaluation | None, after: Evaluation | None) -> list[str]:
    """Describe each class whose F1 or recall fell; none if F1 of all did not rise, or pictures were not recorded."""
    if before is None or after is None or metrics_of(after.row)["f1"] <= metrics_of(before.row)["f1"]:
        return []
    earlier = {picture.image: picture for picture in before.pictures}
    if not earlier or earlier.keys() != {picture.image for picture in after.pictures}:
        return []
    paired = [earlier[picture.image] for picture in after.pictures], after.pictures
    num_classes = 1 + max((each.category for half in paired for seen in half for each in seen.classes), default=-1)
    old, new = (Counts.of(pictures, num_classes) for pictures in paired)
    resamples, falls = Resamples.of(len(after.pictures)), []
    how = f"points, 95 % interval over the same {counted(len(after.pictures), 'picture')}"
    for category in range(num_classes):
        if (old.objects[:, category] > 0).sum() >= MIN_PICTURES:
            was, now = (Rates.of(resamples, counts.only(category)) for counts in (old, new))
            if fallen := list(_fallen(was, now)):
                falls.append(
                    f"{after.class_name(category)} fell while F1 of all classes rose: {'; '.join(fallen)} ({how}); "
                    "look at its mistakes before this model takes the place of the earlier one"
                )
    return falls


def _fallen(was: Rates, now: Rates) -> Iterator[str]:
    """Yield the figures of a class that fell, with the difference and its interval."""
    for figure, label in FIGURES.items():
        earlier, later = getattr(was, figure), getattr(now, figure)
        difference = interval_estimate(later - earlier)
        if difference.high is not None and difference.high < 0:
            yield f"{label} {percent(earlier[0])} to {percent(later[0])}, {describe_difference(difference)}"
