"""Summary of a prediction's results, one picture after the other: totals, confidences, what a person should look at.

Guarantees that its memory does not grow with the number of pictures. Knows nothing of files.
"""

from bisect import insort
from collections import Counter
from collections.abc import Sequence

from job.prediction.records import PictureResult

NUM_BINS = 20
"""Equal parts of the range of confidences, which is 0 to 1."""

NUM_DOUBTFUL = 20

MAX_LISTED = 100
"""Unreadable pictures that are kept with their reasons; all of them are in the files."""


class Summary:
    """What the results come to.

    Args:
        names: Of the model's classes, by number; classes of one name are counted together.
        max_det: Detections of a picture, at most.
    """

    def __init__(self, names: Sequence[str], max_det: int) -> None:
        self._names, self._max_det = names, max_det
        self.totals = Counter[str]()
        """Objects by class."""

        self.num_with_objects = Counter[str]()
        """Pictures with an object, by class."""

        self.most = dict.fromkeys(names, 0)
        """Objects in the picture with the most of them, by class."""

        self.num_with_any = self.num_unreadable = self.num_full = 0
        self.unreadable: dict[str, str] = {}
        """The first pictures that could not be read, and why."""

        self.confidences = [0] * NUM_BINS
        """Objects in each part of the range of confidences."""

        self.doubtful: list[PictureResult] = []
        """The pictures with the greatest `doubt`, the greatest first."""

    def add(self, result: PictureResult) -> None:
        """Count a picture."""
        if result.failure is not None:
            self.num_unreadable += 1
            if len(self.unreadable) < MAX_LISTED:
                self.unreadable[result.picture] = result.failure
            return
        found = count_by_class(result, self._names)
        self.totals += found
        self.num_with_objects.update(found.keys())
        for name, num in found.items():
            self.most[name] = max(self.most[name], num)
        self.num_with_any += bool(found)
        self.num_full += len(result.detections) >= self._max_det
        for detection in result.detections:
            self.confidences[min(int(detection.confidence * NUM_BINS), NUM_BINS - 1)] += 1
        if result.detections:
            insort(self.doubtful, result, key=lambda each: (-doubt(each), each.picture))
            del self.doubtful[NUM_DOUBTFUL:]


def count_by_class(result: PictureResult, names: Sequence[str]) -> Counter[str]:
    """Return the objects of each class in a picture."""
    return Counter(names[detection.category] for detection in result.detections)


def doubt(result: PictureResult) -> float:
    """Return the sum of 1 minus confidence over the objects of a picture.

    It is the number of them that are wrong, if confidences are probabilities.
    """
    return sum(1 - detection.confidence for detection in result.detections)
