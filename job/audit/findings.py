"""Doubtful labels of an image: what a model's detections and its labels disagree about, and how much.

Each finding has a kind and a score from 0 to 1; `ranked` puts them in order. Knows no files and no model.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from job.training.evaluation_record import Detection
from job.training.matching import IOU, box_iou, match

APART = 0.3
"""Below this overlap (IoU) a detection and a label are about different objects."""

CLOSE = 0.6
"""From this overlap on, a label's box is not in doubt."""


class Kind(StrEnum):
    """What may be wrong with the labels, in order of trust."""

    MISSING_LABEL = "missing label"
    WRONG_CLASS = "wrong class"
    DOUBTFUL_BOX = "doubtful box"
    NEVER_FOUND = "never found"


RULES = {
    Kind.MISSING_LABEL: f"A detection at the threshold or above that overlaps no label by {APART:g}. Score: its "
    "confidence. Of several in one place the most confident counts.",
    Kind.WRONG_CLASS: f"A detection at the threshold or above that overlaps a label of another class by {IOU:g}, where "
    "none of the label's class is right. Score: its confidence less that of the label's own class there.",
    Kind.DOUBTFUL_BOX: f"A detection of the label's class at the threshold or above that overlaps it by {APART:g}, and "
    f"by less than {CLOSE:g}. Score: its confidence times what is lacking to a whole overlap.",
    Kind.NEVER_FOUND: f"A label that no detection of any class overlaps by {APART:g}, also below the threshold. Score: "
    "the share of its class's labels that are smaller, since small objects are missed for other reasons.",
}
"""How each kind is found and scored; overlaps are intersection over union (IoU)."""

ORDER = "Missing labels and wrong classes come first, by score; then doubtful boxes; then labels that were never found."

_GROUPS = {Kind.MISSING_LABEL: 0, Kind.WRONG_CLASS: 0, Kind.DOUBTFUL_BOX: 1, Kind.NEVER_FOUND: 2}

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the image."""


@dataclass(frozen=True, slots=True)
class Label:
    """A row of a label file."""

    category: int
    box: Corners
    line: int
    """From 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One doubtful label."""

    kind: Kind
    image: str
    width: int
    """Of the image, px, as is `height`."""

    height: int
    score: float
    """From 0 to 1."""

    category: int
    """The class that the model suggests; of a label that was never found, its own."""

    box: Corners
    """The box that the model suggests; of a label that was never found, its own."""

    confidence: float | None = None
    """Of the detection, if there is one."""

    label: Label | None = None
    """The label in doubt; `None` if it is missing."""


def find_in_image(
    image: str, size: tuple[int, int], labels: Sequence[Label], detections: Sequence[Detection], threshold: float
) -> list[Finding]:
    """Return what is doubtful in an image; the score of a label that was never found is 0 until `ranked`.

    Args:
        image: Its name.
        size: Width and height, px.
        labels: Of the image.
        detections: The most confident first, down to a low confidence.
        threshold: From this confidence on a detection is evidence.
    """
    return list(_Comparison(image, size, labels, detections, threshold).findings())


class _Comparison:
    """Labels and detections of one image."""

    def __init__(
        self, image: str, size: tuple[int, int], labels: Sequence[Label], detections: Sequence[Detection], least: float
    ) -> None:
        self._image, self._size, self._labels, self._detections = image, size, labels, detections
        boxes = np.array([label.box for label in labels], float).reshape(-1, 4)
        found = np.array(detections, float).reshape(-1, 6)
        self._classes, self._found_classes = np.array([label.category for label in labels], int), found[:, 0]
        self._confidences, self._found = found[:, 1], found[:, 2:]
        self._overlap = box_iou(boxes, self._found)
        self._num_evidence = int((self._confidences >= least).sum())
        evidence = slice(self._num_evidence)
        self._right = match(boxes, self._classes, self._found[evidence], self._found_classes[evidence])[:, 0]

    def findings(self) -> Iterator[Finding]:
        """Yield what is doubtful."""
        explained = {int(row) for row in self._right if row >= 0}
        missing = np.empty((0, 4))
        for column, right in enumerate(self._right.tolist()):
            if right >= 0:
                if self._overlap[right, column] < CLOSE:
                    yield self._askew(right, column)
                continue
            row = int(self._overlap[:, column].argmax()) if self._labels else -1
            if row < 0 or self._overlap[row, column] < APART:
                box = self._found[column : column + 1]
                if not (box_iou(missing, box) >= APART).any():
                    missing = np.concatenate([missing, box])
                    yield self._finding(Kind.MISSING_LABEL, self._confidences[column], column=column)
            elif row not in explained and (found := self._contradiction(row, column)):
                explained.add(row)
                yield found
        for row in np.flatnonzero(~(self._overlap >= APART).any(1)).tolist():
            yield self._finding(Kind.NEVER_FOUND, 0.0, row=row)

    def _contradiction(self, row: int, column: int) -> Finding | None:
        """Return what a detection says about the label that it overlaps most, which no detection is right about."""
        if self._found_classes[column] == self._classes[row]:
            return self._askew(row, column)
        own = (self._found_classes == self._classes[row]) & (self._overlap[row] >= IOU)
        score = self._confidences[column] - self._confidences[own].max(initial=0.0)
        if self._overlap[row, column] < IOU or score <= 0:
            return None
        return self._finding(Kind.WRONG_CLASS, score, row=row, column=column)

    def _askew(self, row: int, column: int) -> Finding:
        score = self._confidences[column] * (1 - self._overlap[row, column])
        return self._finding(Kind.DOUBTFUL_BOX, score, row=row, column=column)

    def _finding(self, kind: Kind, score: float, row: int | None = None, column: int | None = None) -> Finding:
        label = None if row is None else self._labels[row]
        seen = None if column is None else self._detections[column]
        if seen:
            category, box = seen.category, (seen.left, seen.top, seen.right, seen.bottom)
        else:
            category, box = self._labels[row or 0].category, self._labels[row or 0].box
        return Finding(
            kind=kind,
            image=self._image,
            width=self._size[0],
            height=self._size[1],
            score=round(float(score), 4),
            category=category,
            box=box,
            confidence=seen.confidence if seen else None,
            label=label,
        )


def ranked(findings: Iterable[Finding], areas: Sequence[tuple[int, float]]) -> list[Finding]:
    """Return findings in the order in which they are worth looking at; see `ORDER`.

    Args:
        findings: Of all images.
        areas: Class and area in pixels of every label.
    """
    by_class: dict[int, list[float]] = {}
    for category, area in areas:
        by_class.setdefault(category, []).append(area)
    sorted_areas = {category: np.sort(found) for category, found in by_class.items()}

    def scored(finding: Finding) -> Finding:
        if finding.kind is not Kind.NEVER_FOUND:
            return finding
        same = sorted_areas[finding.category]
        share = np.searchsorted(same, area_of(finding.box)) / len(same)
        return replace(finding, score=round(float(share), 4))

    return sorted(map(scored, findings), key=lambda found: (_GROUPS[found.kind], -found.score, found.image, found.box))


def area_of(box: Corners) -> float:
    """Return the area of a box in pixels."""
    return (box[2] - box[0]) * (box[3] - box[1])
