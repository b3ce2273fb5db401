"""The validation images with the most mistakes: small enough for a page, with boxes before and after.

Guarantees that each picture is a part of the stored image at its own resolution or below, and that boxes lie where they
lie in the image.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from job.datasets.image import load_image
from job.datasets.lockfile import moved_files
from job.errors import DataError, ObjectNotFoundError
from job.runs.records import PinnedDataset
from job.storage.object_store import Store

NUM_SHOWN = 6

MAX_PX = 800
"""Longer sides are cut to the part with the most mistakes, so that small objects stay visible."""

QUALITY = 75

ASPECT = 4 / 3
"""Width to height of the part that is cut out."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of the picture."""

    left: float
    top: float
    width: float
    height: float
    kind: str
    """``missed`` of an object, ``right`` or ``wrong`` of a prediction; where one is right the object is not drawn."""

    label: str


@dataclass(frozen=True, slots=True)
class View:
    """One image as one model sees it."""

    num_missed: int
    num_false_alarms: int
    boxes: tuple[Box, ...]


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
    """Width and height of the whole image, if this is a part of it."""

    before: View | None
    """Nothing if the image was not among those kept of that validation."""

    after: View | None


def make_pictures(
    store: Store,
    dataset: PinnedDataset,
    names: Sequence[str],
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> list[Picture]:
    """Return the images with the most mistakes after training, or before it if there is no after yet.

    Args:
        store: The bucket.
        dataset: The run's dataset; an image that is not there any more is left out.
        names: The names of the classes.
        before: What the validation of the start weights saw.
        after: The same of the best weights.
    """
    seen = after or before
    if seen is None:
        return []
    others = {entry["image"]: entry for entry in (before or {}).get("images", [])}
    pictures = []
    moved, folder = moved_files(store, dataset.name, dataset.digest), f"datasets/{dataset.name}"
    for entry in seen["images"][:NUM_SHOWN]:
        if entry["num_missed"] + entry["num_false_alarms"] == 0:
            break
        views = (others.get(entry["image"]), entry if after else None)
        try:
            data = store.read(moved.get(entry["image"], f"{folder}/{entry['image']}"))
            pictures.append(_picture(data, entry, views, names))
        except (ObjectNotFoundError, DataError):
            continue
    return pictures


def _picture(
    data: bytes,
    entry: dict[str, Any],
    views: tuple[dict[str, Any] | None, dict[str, Any] | None],
    names: Sequence[str],
) -> Picture:
    image = load_image(data)
    window = _window(image.size, _mistakes(entry))
    part = image.crop(window)
    written = io.BytesIO()
    part.save(written, "JPEG", quality=QUALITY, optimize=True)
    before, after = (_view(view, image.size, window, names) if view else None for view in views)
    return Picture(
        image=entry["image"],
        data="data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode(),
        width=part.width,
        height=part.height,
        cut_from=None if part.size == image.size else image.size,
        before=before,
        after=after,
    )


def _mistakes(entry: dict[str, Any]) -> list[tuple[float, float]]:
    """Return the centres of the boxes that are wrong, in shares of the image."""
    rows = [row for kind in ("objects", "predictions") for row in entry[kind] if not row[5]]
    return [((row[0] + row[2]) / 2, (row[1] + row[3]) / 2) for row in rows]


def _window(size: tuple[int, int], mistakes: list[tuple[float, float]]) -> tuple[int, int, int, int]:
    """Return the part of an image to show: all of a small one, of a large one that with the most mistakes."""
    width, height = size
    across, down = min(width, MAX_PX), min(height, round(MAX_PX / ASPECT))
    if width <= MAX_PX and height <= MAX_PX:
        return 0, 0, width, height

    def around(x: float, y: float) -> tuple[int, int]:
        left = min(max(round(x * width - across / 2), 0), width - across)
        return left, min(max(round(y * height - down / 2), 0), height - down)

    def num_inside(corner: tuple[int, int]) -> int:
        left, top = corner
        return sum(left <= x * width <= left + across and top <= y * height <= top + down for x, y in mistakes)

    left, top = max((around(x, y) for x, y in mistakes), key=num_inside)
    return left, top, left + across, top + down


def _view(
    entry: dict[str, Any], size: tuple[int, int], window: tuple[int, int, int, int], names: Sequence[str]
) -> View:
    boxes = [_box(row, ("wrong", "right")[row[5]], size, window, names) for row in entry["predictions"]]
    boxes += [_box(row, "missed", size, window, names) for row in entry["objects"] if not row[5]]
    inside = sorted((box for box in boxes if box), key=lambda box: box.kind != "right")  # mistakes are drawn over it
    return View(entry["num_missed"], entry["num_false_alarms"], tuple(inside))


def _box(
    row: Sequence[float], kind: str, size: tuple[int, int], window: tuple[int, int, int, int], names: Sequence[str]
) -> Box | None:
    width, height = size
    left, top, right, bottom = row[0] * width, row[1] * height, row[2] * width, row[3] * height
    if right <= window[0] or bottom <= window[1] or left >= window[2] or top >= window[3]:
        return None
    name = names[int(row[4])] if int(row[4]) < len(names) else str(int(row[4]))
    label = name if len(row) == 6 else f"{name} {row[6]:.2f}"  # noqa: PLR2004 -- a prediction has a confidence, too
    return Box(
        round(left - window[0], 1),
        round(top - window[1], 1),
        round(right - left, 1),
        round(bottom - top, 1),
        kind,
        label,
    )
