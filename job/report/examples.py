"""Example pictures: the validation images with the most mistakes, with boxes before and after training.

Guarantees that each picture is a crop of the stored image at its own resolution, with boxes moved along.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from job.datasets.image import MAX_BYTES, load_image
from job.datasets.lockfile import moved_files
from job.errors import DataError, ObjectNotFoundError, OversizedObjectError
from job.runs.records import PinnedDataset
from job.storage.object_store import Store
from job.training.evaluation_record import Evaluation, ImageEvaluation, ObjectBox, PredictedBox
from job.training.matching import confused_pairs

NUM_SHOWN = 6

MAX_PX = 800
"""Longer sides are cropped to the part with the most mistakes, so that small objects stay visible."""

QUALITY = 75

MAX_NAMED = 12
"""Most mistakes of a picture that are named in it; more names would hide the picture."""

NAME_SIZE, LETTER_WIDTH = 1 / 34, 0.65
"""Height of a name as a share of the picture's width, and the width of a letter as a share of that."""

ASPECT = 4 / 3
"""Width to height of a crop."""


KINDS = {"right": "right", "confused": "another class", "missed": "missed", "wrong": "false alarm"}
"""Kinds of boxes and their names; ``confused`` is a missed object on which a prediction of another class lies."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of the picture."""

    left: float
    top: float
    width: float
    height: float
    kind: str
    """One of `KINDS`; an object with a right prediction has no box of its own. Of pictures without labels: ``found`` or
    ``doubtful``.
    """

    label: str
    """Name of the class, and the confidence of a prediction."""

    text: str = ""
    """Name to write in the picture; of two if one class is called another."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a mistake, written above or below its box."""

    box: Box
    size: float
    x: float
    """Where it begins, or where it ends if the box is at the right of the picture."""

    baseline: float
    is_at_right: bool

    def covers(self, other: "Name") -> bool:
        """Return whether any of it lies on another name."""
        (left, right), (other_left, other_right) = self.sides, other.sides
        return left < other_right and other_left < right and abs(self.baseline - other.baseline) < self.size

    @property
    def sides(self) -> tuple[float, float]:
        """The left and the right end."""
        width = LETTER_WIDTH * self.size * len(self.box.text)
        return (self.x - width, self.x) if self.is_at_right else (self.x, self.x + width)


@dataclass(frozen=True, slots=True)
class View:
    """The boxes of one model in one picture."""

    num_missed: int
    """Objects on which no prediction lies."""

    num_confused: int
    num_false_alarms: int
    """Predictions that lie on no missed object."""

    boxes: tuple[Box, ...]

    def names(self, width: int, height: int) -> list[Name]:
        """Return the names of mistakes for a picture of this size, confused classes first.

        One that has no place of its own is left out.
        """
        size, found = NAME_SIZE * width, list[Name]()
        mistakes = [box for kind in ("confused", "missed", "wrong") for box in self.boxes if box.kind == kind]
        for box in mistakes:
            is_at_right = box.left > 0.6 * width
            x = min(box.left + box.width, width) if is_at_right else max(box.left, 0)
            above, below = box.top - size / 4, box.top + box.height + size
            places = [
                name
                for baseline in ((below, above) if box.kind == "wrong" else (above, below))
                if size <= baseline <= height and len(found) < MAX_NAMED
                for name in [Name(box, size, x, baseline, is_at_right)]
                if not any(map(name.covers, found))
            ]
            found += places[:1]
        return found

    def __str__(self) -> str:
        counts = {"missed": self.num_missed, "of another class": self.num_confused}
        counts["false alarm" + "s" * (self.num_false_alarms != 1)] = self.num_false_alarms
        return ", ".join(f"{num} {name}" for name, num in counts.items() if num) or "no mistake"


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, before and after."""

    image: str
    """Its name in the dataset."""

    data: str
    """A JPEG as a ``data:`` address."""

    width: int
    height: int
    cut_from: tuple[int, int] | None
    """Width and height of the whole image, if this is a crop."""

    before: View | None
    """None if that evaluation did not keep the image."""

    after: View | None


def make_pictures(
    store: Store, dataset: PinnedDataset, before: Evaluation | None, after: Evaluation | None
) -> list[Picture]:
    """Return the images with the most mistakes after training, or of the start weights if it is not finished.

    Images that were deleted from the dataset are left out.
    """
    if (evaluation := after or before) is None:
        return []
    images_before = {image.image: image for image in before.images} if before else {}
    pictures = []
    moved, folder = moved_files(store, dataset.name, dataset.digest), f"datasets/{dataset.name}"
    for image in evaluation.images[:NUM_SHOWN]:
        if image.num_missed + image.num_false_alarms == 0:
            break
        views = (images_before.get(image.image), image if after else None)
        try:
            data = store.read(moved.get(image.image, f"{folder}/{image.image}"), MAX_BYTES)
            pictures.append(_picture(data, image, views, evaluation.names))
        except (ObjectNotFoundError, OversizedObjectError, DataError):
            continue
    return pictures


def _picture(
    data: bytes, evaluated: ImageEvaluation, views: Sequence[ImageEvaluation | None], names: Sequence[str]
) -> Picture:
    image = load_image(data)
    boxes: list[ObjectBox | PredictedBox] = [*evaluated.objects, *evaluated.predictions]
    mistakes = [((box.left + box.right) / 2, (box.top + box.bottom) / 2) for box in boxes if not box.is_right]
    window = find_window(image.size, mistakes)
    part = image.crop(window)
    written = io.BytesIO()
    part.save(written, "JPEG", quality=QUALITY, optimize=True)
    before, after = (_view(view, image.size, window, names) if view else None for view in views)
    return Picture(
        image=evaluated.image,
        data=data_address(written.getvalue()),
        width=part.width,
        height=part.height,
        cut_from=None if part.size == image.size else image.size,
        before=before,
        after=after,
    )


def data_address(jpeg: bytes) -> str:
    """Return a JPEG as a ``data:`` address, for a page in one file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def find_window(size: tuple[int, int], points: Sequence[tuple[float, float]]) -> tuple[int, int, int, int]:
    """Return the part of an image to show: all of a small one, the part with the most points of a large one.

    Args:
        size: Width and height.
        points: In shares of them.

    Returns:
        Left, top, right and bottom in pixels.
    """
    width, height = size
    across, down = min(width, MAX_PX), min(height, round(MAX_PX / ASPECT))
    if width <= MAX_PX and height <= MAX_PX:
        return 0, 0, width, height

    def around(x: float, y: float) -> tuple[int, int]:
        left = min(max(round(x * width - across / 2), 0), width - across)
        return left, min(max(round(y * height - down / 2), 0), height - down)

    def num_inside(corner: tuple[int, int]) -> int:
        left, top = corner
        return sum(left <= x * width <= left + across and top <= y * height <= top + down for x, y in points)

    left, top = max((around(x, y) for x, y in points), key=num_inside)
    return left, top, left + across, top + down


def _view(
    evaluated: ImageEvaluation, size: tuple[int, int], window: tuple[int, int, int, int], names: Sequence[str]
) -> View:
    """Return the boxes of one evaluation that lie in a part of an image; mistakes come last and are drawn on top."""
    pairs = confused_pairs(evaluated.objects, evaluated.predictions)
    drawn: list[tuple[str, str, str, ObjectBox | PredictedBox]] = []
    for number, prediction in sorted(enumerate(evaluated.predictions), key=lambda entry: -entry[1].is_right):
        name = _name(names, prediction)
        called = f"{name} {prediction.confidence:.2f}"
        if number in pairs:
            missed = evaluated.objects[pairs[number]]
            named = _name(names, missed)
            drawn.append(("confused", f"{named} called {called}", f"{named} → {name}", missed))
        else:
            drawn.append(("right" if prediction.is_right else "wrong", called, name, prediction))
    paired = set(pairs.values())
    drawn += [
        ("missed", _name(names, box), _name(names, box), box)
        for number, box in enumerate(evaluated.objects)
        if not box.is_right and number not in paired
    ]
    inside = []
    for kind, label, text, box in drawn:
        left, right = box.left * size[0] - window[0], box.right * size[0] - window[0]
        top, bottom = box.top * size[1] - window[1], box.bottom * size[1] - window[1]
        if right > 0 and bottom > 0 and left < window[2] - window[0] and top < window[3] - window[1]:
            corner, extent = (round(left, 1), round(top, 1)), (round(right - left, 1), round(bottom - top, 1))
            inside.append(Box(*corner, *extent, kind, label, text))
    num = len(pairs)
    return View(evaluated.num_missed - num, num, evaluated.num_false_alarms - num, tuple(inside))


def _name(names: Sequence[str], box: ObjectBox | PredictedBox) -> str:
    return names[box.category] if box.category < len(names) else str(box.category)
