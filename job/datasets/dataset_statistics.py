"""Statistics of a dataset that bound the recall of a training: small objects, crowded pictures, rare classes.

The size of an object is the square root of its box's area, as in an evaluation. Reads no file.
"""

import bisect
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from job.datasets.labels import Findings
from job.datasets.layout import label_of
from job.text import counted
from job.training.evaluation_record import SIZES_PX

IMGSZ = 2048
"""Image size of the shipped recipes."""

SMALL_PX = 16
"""Objects below this size are small."""

FEW_OBJECTS = {"train": 100, "val": 10}
"""A class with fewer objects in a split is rare; of fewer than 10, one object moves its recall by over 10 points."""

NUM_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatistics:
    """Statistics over the pictures of all splits."""

    imgsz: int
    """Image size of the training."""

    tiles: int
    """Width and height of the tiles that training cuts pictures into, px of the file; 0 for whole pictures."""

    side_px: int
    """Median of the longer sides of the files' pictures."""

    num_objects: int
    num_small: int
    """Objects below `SMALL_PX` as training sees them."""

    num_small_in_files: int
    """Objects below `SMALL_PX` in the files."""

    median_px: float
    """Median size of objects as training sees them."""

    median_in_files_px: float

    max_objects: int
    """Most objects in a picture."""

    most_objects_in: str
    """The first picture with so many."""

    num_alike: int
    """Pictures of val that look like one of train."""

    train: dict[str, list[int]]
    """Objects of the split train by class, in each of the ranges of size that begin at
    `job.training.evaluation_record.SIZES_PX`, as training sees them.
    """

    rare: dict[str, dict[str, int]]
    """Objects by class and split of classes with fewer than `FEW_OBJECTS`; none if all classes are."""

    def describe(self) -> dict[str, str]:
        """Return one sentence each by label, for people."""
        small, in_files = (f"{num / self.num_objects:.0%}" for num in (self.num_small, self.num_small_in_files))
        where = f"in tiles at {self.imgsz} px" if self.tiles else f"at {self.imgsz} px"
        found = {
            "sizes": f"{small} of objects are under {SMALL_PX} px {where}, {in_files} in the files ({self.side_px} px)",
            "most": f"{counted(self.max_objects, 'object')} in one picture, {self.most_objects_in}",
        }
        rare = [
            f"{name} {' and '.join(f'{num} in {split}' for split, num in counts.items())}"
            for name, counts in self.rare.items()
        ]
        if rare:
            more = (
                f", and {counted(len(rare) - NUM_SHOWN, 'more class', 'more classes')}" if len(rare) > NUM_SHOWN else ""
            )
            found["few"] = f"{', '.join(rare[:NUM_SHOWN])}{more}"
        return found

    def to_json(self) -> dict[str, object]:
        """Return the statistics as plain values."""
        return asdict(self)


def statistics_of(
    images: Iterable[str],
    train: Collection[str],
    found: Mapping[str, Findings],
    names: Sequence[str],
    instances: Mapping[str, Sequence[int]],
    *,
    num_alike: int,
    imgsz: int,
    tiles: int,
) -> DatasetStatistics | None:
    """Return the statistics of a dataset; None if nothing is labelled.

    Args:
        images: Of all splits, each once.
        train: Those of the split train.
        found: Findings in images and labels, by path.
        names: Of the classes, by number; none if all count as one.
        instances: Objects by split and class.
        num_alike: Pictures of val that look like one of train.
        imgsz: Image size of the training.
        tiles: Width and height of its tiles, or 0.
    """
    shapes = {image: shape for image in images if (shape := found[image].shape)}
    sizes = {image: found[label].sizes for image in shapes if (label := label_of(image)) in found}
    in_files, trained = [], []
    by_class = {name: [0] * len(SIZES_PX) for name in names or ("object",)}
    in_train = set(train)
    for image, shares in sizes.items():
        height, width = shapes[image]
        longer, root = max(height, width), math.sqrt(height * width)
        scale = imgsz / min(tiles or longer, longer)
        in_files += [share * root for share in shares]
        seen = [share * root * scale for share in shares]
        trained += seen
        if image in in_train:
            classes = [number for number, num in found[label_of(image)].instances for _ in range(num)]
            for number, size in zip(classes, seen, strict=True):
                by_class[names[number] if names else "object"][bisect.bisect(SIZES_PX, size) - 1] += 1
    if not in_files:
        return None
    most = max(sizes, key=lambda image: len(sizes[image]))
    return DatasetStatistics(
        imgsz=imgsz,
        tiles=tiles,
        side_px=round(statistics.median(max(shape) for shape in shapes.values())),
        num_objects=len(in_files),
        num_small=sum(size < SMALL_PX for size in trained),
        num_small_in_files=sum(size < SMALL_PX for size in in_files),
        median_px=round(statistics.median(trained), 1),
        median_in_files_px=round(statistics.median(in_files), 1),
        max_objects=len(sizes[most]),
        most_objects_in=most,
        num_alike=num_alike,
        train=by_class,
        rare=_rare_classes(names, instances),
    )


def _rare_classes(names: Sequence[str], instances: Mapping[str, Sequence[int]]) -> dict[str, dict[str, int]]:
    """Return the classes with few objects; none if all are rare, as in a tiny dataset."""
    splits = [split for split in FEW_OBJECTS if split in instances]
    counted = {name: {split: instances[split][number] for split in splits} for number, name in enumerate(names)}
    seen = {name: counts for name, counts in counted.items() if any(counts.values())}
    rare = {
        name: counts for name, counts in seen.items() if any(num < FEW_OBJECTS[split] for split, num in counts.items())
    }
    return rare if len(rare) < len(seen) else {}
