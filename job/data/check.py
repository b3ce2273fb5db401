"""Every problem of a dataset, found before training.

Guarantees that each label and image of a dataset that passes was read to its end, that Ultralytics will drop none of
them, and that none lies outside the folder. What was found in a file is remembered by its content, and the file not
read again until it changes. Knows nothing of buckets.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from job.data.contents import Contents
from job.data.label import Found
from job.data.yolo_format import Layout, Problem, is_image, label_of, read_layout
from job.errors import DataError

NUM_SHOWN = 50

BESIDE_LABELS = "classes.txt"
"""What tools for labelling put among the labels."""


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """What a split holds."""

    num_images: int
    num_labelled: int
    num_background: int
    """Images that show nothing: without a label, or with an empty one."""
    instances: tuple[int, ...]
    """For each class."""


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What a check found."""

    names: tuple[str, ...]
    """Of the classes, in the order of their numbers; empty if ``data.yaml`` does not tell."""
    splits: dict[str, SplitCounts]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    val: tuple[str, ...] = ()
    """Images of the validation split, and the labels that there are."""

    def raise_if_broken(self, subject: str) -> None:
        """Stop if there are problems.

        Raises:
            DataError: If there are; lists as many as a person can read.
        """
        if not self.problems:
            return
        listed = [str(problem) for problem in self.problems[:NUM_SHOWN]]
        if len(self.problems) > NUM_SHOWN:
            listed.append(f"... and {len(self.problems) - NUM_SHOWN} more")
        counted = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        raise DataError(
            f"{subject}: {counted} found; correct them, or pass --quarantine to set broken files aside", listed
        )


def check_dataset(
    folder: Path, *, cache_file: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> DatasetReport:
    """Read every label and image of a dataset's splits once.

    Args:
        folder: Has ``data.yaml``.
        cache_file: Where to remember what was found.
        progress: Called with how many files are done, and of how many.
    """
    layout = read_layout(folder)
    images = sorted({image for split in layout.splits.values() for image in split.images})
    labels = sorted({label_of(image) for image in images}.intersection(layout.texts))
    contents = Contents(layout, cache_file)
    contents.read([*images, *labels], progress or (lambda _done, _total: None))
    problems = [*layout.problems, *_pairing_problems(layout, images), *_shared_problems(layout, contents.digests)]
    notes: dict[str, list[str]] = {}
    for path, found in contents.found.items():
        problems += [Problem(path, *problem) for problem in found.problems]
        for text in found.warnings:
            notes.setdefault(text, []).append(path)
    splits = {name: _count(split.images, contents.found, len(layout.names)) for name, split in layout.splits.items()}
    if "train" in splits and splits["train"].num_labelled == 0:
        problems.append(Problem("data.yaml", None, "empty split", "`train` has images, but no labels; put them there"))
    problems.sort(key=lambda problem: (problem.path != "data.yaml", problem.path, problem.line or 0))
    noted = [f"{paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}: {text}" for text, paths in notes.items()]
    val_images = layout.splits["val"].images if "val" in layout.splits else ()
    val = (*val_images, *sorted({label_of(image) for image in val_images}.intersection(layout.texts)))
    return DatasetReport(layout.names, splits, tuple(problems), (*layout.warnings, *noted), val)


def quarantine_files(folder: Path, report: DatasetReport, into: Path) -> list[str]:
    """Set broken images and labels aside, each with its counterpart, and strike them from lists of images.

    Of a picture that is in train and in val, the copy in train is set aside. What no move can cure stays.

    Args:
        folder: The dataset.
        report: Of a check of it just now.
        into: Gets the files under the names they had; on the same disk it takes no time.

    Returns:
        The names of what was moved.
    """
    layout = read_layout(folder)
    broken = {_pair(problem.path) for problem in report.problems} - layout.lists.keys()
    moved = {name for name in (*layout.images, *layout.texts) if _pair(name) in broken}
    for name in moved:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(layout.folder / name, into / name)
    for source, named in layout.lists.items():
        lines = (layout.folder / source).read_bytes().decode("utf-8-sig", errors="replace").splitlines()
        kept = [lines[number - 1] for number, image in named.items() if image not in moved]
        if kept and kept != lines:
            (layout.folder / source).write_text("\n".join([*kept, ""]), encoding="utf-8")
    return sorted(moved)


def write_training_yaml(folder: Path, report: DatasetReport, target: Path) -> None:
    """Write the data file for Ultralytics: with an absolute path, and nothing that it would download or run.

    Args:
        folder: The dataset.
        report: Of a check that it passed.
        target: Replaced if it is there.
    """
    layout = read_layout(folder)
    data: dict[str, Any] = {"path": str(layout.folder)}
    data |= {name: list(split.sources) for name, split in layout.splits.items()}
    data |= {"names": dict(enumerate(report.names))} | layout.options
    target.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _pair(name: str) -> str:
    """Name what an image and its label have in common."""
    return label_of(name) if is_image(name) else name


def _pairing_problems(layout: Layout, images: list[str]) -> Iterator[Problem]:
    """Yield labels that belong to no image, and images that share one."""
    texts = set(layout.texts) - layout.lists.keys()
    used = {label_of(image) for image in layout.images}
    folders = {label.rpartition("/")[0] for label in used & texts}
    for text in sorted(texts - used):
        folder, _, name = text.rpartition("/")
        if name != BESIDE_LABELS and ("labels" in folder.split("/") or folder in folders):
            yield Problem(text, None, "orphan", "belongs to no image; add the image, or leave the label out")
    first: dict[str, str] = {}
    for image in images:
        if (other := first.setdefault(label_of(image), image)) != image and label_of(image) in texts:
            yield Problem(image, None, "shared label", f"has the same label as {other}; rename one, with its label")


def _shared_problems(layout: Layout, digests: dict[str, str]) -> Iterator[Problem]:
    """Yield pictures that are both in train and in val."""
    if not {"train", "val"} <= layout.splits.keys():
        return
    train, val = (set(layout.splits[name].images) for name in ("train", "val"))
    if both := sorted(train & val):
        message = f"`train` and `val` have {len(both)} images in common, such as {both[0]}; name separate folders"
        yield Problem("data.yaml", None, "overlap", message)
    seen = {digests[image]: image for image in sorted(val) if image in digests}
    for image in sorted(train - val):
        if image in digests and (other := seen.get(digests[image])):
            yield Problem(image, None, "duplicate", f"is the same picture as {other}; leave one of them out")


def _count(images: tuple[str, ...], found: dict[str, Found], num_classes: int) -> SplitCounts:
    labels = [found.get(label_of(image), Found()) for image in images]
    num_labelled = sum(bool(label.instances or label.problems) for label in labels)
    instances = Counter[int]()
    for label in labels:
        instances.update(dict(label.instances))
    counted = tuple(instances[number] for number in range(num_classes))
    return SplitCounts(len(images), num_labelled, len(images) - num_labelled, counted)
