"""Check of a label's rows, as Ultralytics checks them.

Guarantees that a label without problems loses no row in training.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from job.text import counted

TOLERANCE = 0.01
"""How far outside 0..1 Ultralytics accepts coordinates."""

NUM_BOX_COLUMNS, MIN_POLYGON_COLUMNS = 5, 7
"""Class, x, y, width and height; or class and at least three points."""

MAX_BYTES = 64_000_000
"""Limit of a label: more than a million boxes."""

NUM_SIZE_DIGITS = 6
"""Decimals of a size: a hundredth of a pixel in an image of 10,000."""

NUM_NAMED = 3
"""Places of one cause that are named; the others are counted."""

ROW_KINDS = frozenset({"class", "coordinates", "size"})
"""Problems that only a row of numbers can have."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A defect for which Ultralytics would stop, or silently train on less or on other data."""

    path: str
    """Relative to the dataset's folder."""
    line: int | None
    """From 1; `None` for the whole file."""
    kind: str
    message: str

    @property
    def place(self) -> str:
        """The file, with the line if there is one."""
        return self.path if self.line is None else f"{self.path}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def describe_problems(problems: Iterable[Problem]) -> list[str]:
    """Return problems in lines, those of one cause together: the same kind with the same remedy.

    Of a cause the first messages are listed, and of a message the first places.
    """
    by_cause: dict[tuple[str, str], dict[str, list[Problem]]] = {}
    for problem in problems:
        cause = problem.kind, problem.message.rpartition("; ")[2]
        by_cause.setdefault(cause, {}).setdefault(problem.message, []).append(problem)
    lines = []
    for by_message in by_cause.values():
        groups = list(by_message.values())
        lines += [f"{_describe_places(group)}: {group[0].message}" for group in groups[:NUM_NAMED]]
        if others := [problem for group in groups[NUM_NAMED:] for problem in group]:
            lines.append(f"... and {len(others)} more like these{_in_files(others)}")
    return lines


def _describe_places(problems: Sequence[Problem]) -> str:
    """Return the first places, and how many more there are in how many files."""
    named = ", ".join(problem.place for problem in problems[:NUM_NAMED])
    return f"{named} and {num} more{_in_files(problems)}" if (num := len(problems) - NUM_NAMED) > 0 else named


def _in_files(problems: Sequence[Problem]) -> str:
    """Return the number of files, unless each problem is a file, or all are in one."""
    num_files = len({problem.path for problem in problems})
    return f", in {counted(num_files, 'file')}" if 1 < num_files < len(problems) else ""


Side = Annotated[int, Field(ge=1, le=1_000_000_000)]


@dataclass(frozen=True, slots=True)
class Findings:
    """Result of checking one file."""

    problems: tuple[tuple[int | None, str, str], ...] = ()
    """Line, kind and message."""
    warnings: tuple[str, ...] = ()
    instances: tuple[tuple[int, int], ...] = ()
    """Classes of a label, and how often each occurs."""
    has_area: bool = False
    """Whether a row of a label describes something that has an area."""
    sizes: tuple[Annotated[float, Field(ge=0, le=2)], ...] = ()
    """Of a label's objects: the square root of a box's share of the image's area."""
    shape: tuple[Side, Side] | None = None
    """Height and width of an image as Ultralytics takes them, pixels."""
    hash: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")] = ""
    """Of an image's pixels; see `job.datasets.near_duplicates`."""

    @classmethod
    def of(cls, kind: str, message: str, line: int | None = None) -> "Findings":
        """Return one problem."""
        return cls(((line, kind, message),))

    @property
    def has_rows(self) -> bool:
        """Whether it is a label with rows, valid or not; other text has no numbers."""
        return bool(self.instances) or any(kind in ROW_KINDS for _, kind, _ in self.problems)


def check_label(
    data: bytes, num_classes: int, num_keypoint_columns: int = 0, *, single_class: bool = False
) -> Findings:
    """Check each row of a label as Ultralytics' ``verify_image_label`` does the whole.

    `num_classes` is 0 if unknown; `num_keypoint_columns` may stand in a row after a box.
    """
    try:
        rows = _rows(data, num_keypoint_columns)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Findings.of("encoding", "is not UTF-8 text; save it as UTF-8", line)
    num_classes = 0 if single_class else num_classes
    problems = [(number, *problem) for number, row in rows for problem in _row_problems(row, num_classes)]
    odd = [number for number, row in rows if (len(row) == NUM_BOX_COLUMNS) != (len(rows[0][1]) == NUM_BOX_COLUMNS)]
    if problems:
        return Findings(tuple(problems))
    if odd:
        return Findings.of("columns", "boxes and polygons are mixed in one label; write one kind", odd[0])
    values = [tuple(float(text) for text in row) for _, row in rows]
    notes = []
    if len(set(values)) < len(values):
        notes.append("has rows more than once, which count once")
    if any(not 0 <= number <= 1 for row in values for number in row[1:]):
        notes.append("has coordinates that are outside 0..1 by a hair, which is accepted")
    flat = [min(_size(row)) == 0 for row in values]
    if any(flat):
        notes.append("has rows without area, which training leaves out, and validation counts as missed")
    objects = sorted(set(values))
    classes = Counter(0 if single_class else int(row[0]) for row in objects)
    sizes = tuple(round(math.sqrt(math.prod(_size(row))), NUM_SIZE_DIGITS) for row in objects)
    return Findings((), tuple(notes), tuple(sorted(classes.items())), has_area=not all(flat), sizes=sizes)


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A row of a label that describes something with an area, in shares of the image's width and height."""

    line: int
    """From 1."""

    category: int
    """Number of the class, from 0."""

    left: float
    top: float
    right: float
    bottom: float

    def in_pixels(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom in an image of this size."""
        return self.left * width, self.top * height, self.right * width, self.bottom * height


def read_boxes(data: bytes, num_keypoint_columns: int = 0, *, single_class: bool = False) -> list[LabelledBox]:
    """Return the boxes of a label that `check_label` accepts; a polygon's box is its bounding box.

    As in training, equal rows count once, and a row without area does not count.
    """
    found: dict[tuple[float, ...], LabelledBox] = {}
    for line, columns in _rows(data, num_keypoint_columns):
        row = tuple(map(float, columns))
        if len(row) == NUM_BOX_COLUMNS:
            x, y, width, height = row[1:]
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:
            corners = (min(row[1::2]), min(row[2::2]), max(row[1::2]), max(row[2::2]))
        if min(_size(row)) > 0:
            found.setdefault(row, LabelledBox(line, 0 if single_class else int(row[0]), *corners))
    return list(found.values())


def _rows(data: bytes, num_keypoint_columns: int) -> list[tuple[int, list[str]]]:
    """Return number and columns of each row that is not empty, without key points; raises `UnicodeDecodeError`."""
    rows = [(number, line.split()) for number, line in enumerate(data.decode("utf-8-sig").splitlines(), 1)]
    whole = NUM_BOX_COLUMNS + num_keypoint_columns
    return [(number, row[:NUM_BOX_COLUMNS] if len(row) == whole else row) for number, row in rows if row]


def _size(row: Sequence[float]) -> tuple[float, float]:
    """Return width and height of a box or polygon."""
    if len(row) == NUM_BOX_COLUMNS:
        return row[3], row[4]
    return max(row[1::2]) - min(row[1::2]), max(row[2::2]) - min(row[2::2])


def _row_problems(row: list[str], num_classes: int) -> Iterator[tuple[str, str]]:
    """Yield kind and message of each problem of a row."""
    try:
        values = [float(text) for text in row]
    except ValueError as error:
        yield "number", f"{error}; write numbers"
        return
    if not all(math.isfinite(value) for value in values):
        yield "number", f"{' '.join(row[:NUM_BOX_COLUMNS])} is not finite; write numbers"
        return
    if len(row) != NUM_BOX_COLUMNS and (len(row) < MIN_POLYGON_COLUMNS or len(row) % 2 == 0):
        yield "columns", f"has {len(row)} columns; a box has {NUM_BOX_COLUMNS}, a polygon 7, 9, 11 or more"
        return
    number, coordinates = values[0], values[1:]
    if number < 0 or number % 1 or number >= (num_classes or math.inf):
        known = f"0 to {num_classes - 1}" if num_classes else "whole numbers from 0"
        yield "class", f"class {row[0]} is not among the classes, {known}; correct it, or `names` in data.yaml"
    if wrong := [value for value in coordinates if not -TOLERANCE <= value <= 1 + TOLERANCE]:
        yield "coordinates", f"{wrong[0]:g} is outside 0..1; divide x by the width and y by the height of the image"
    width, height = _size(values)
    if width < 0 or height < 0:
        yield "size", f"is {width:g} wide and {height:g} high; leave the row out"
