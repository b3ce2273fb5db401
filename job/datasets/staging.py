"""Staged dataset: a folder in YOLO form whose pictures are links to the user's own files.

Guarantees that no picture is copied and that the user's files are not touched. Knows nothing of buckets.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from job.datasets.data_yaml import DATA_YAML
from job.datasets.val_split import choose_val
from job.errors import DataError
from job.text import shortened

log = logging.getLogger(__name__)

DROPPED = {"images", "labels", "obj_train_data", "data"}
"""Folders of exports that say nothing of their pictures."""

NUM_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Source:
    """A labelled dataset in any form."""

    root: Path
    """Absolute and without links."""

    names: Sequence[str]
    """Classes in the order of their numbers."""

    has_objects: Mapping[str, bool]
    """By path of a picture below `root`."""

    splits: Mapping[str, str]
    """train, val or test by path; absent where nothing says one."""

    options: Mapping[str, object]
    """Further entries of the data file."""


def stage(source: Source, folder: Path, write_labels: Callable[[Mapping[str, str]], None]) -> None:
    """Write a source as a YOLO folder, which replaces what an earlier call has staged there.

    Args:
        source: The dataset.
        folder: The job's own; files of the job in it, whose names begin with a dot, stay.
        write_labels: Writes the labels of pictures, given by path below ``images``, into a folder ``labels`` that does
            not exist: ``labels/train/1.txt`` for ``train/1.jpg``.

    Raises:
        DataError: If pictures of different folders would have one name, or if there are none for training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("images", "labels"):
        shutil.rmtree(folder / name, ignore_errors=True)
    splits = _complete_splits(source)
    staged = _staged_names(source, splits)
    for path, name in staged.items():
        target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.root / path)
    write_labels(staged)
    there = {split: f"images/{split}" for split in ("train", "val", "test") if split in splits.values()}
    data = {**there, "names": dict(enumerate(source.names)), **source.options}
    (folder / DATA_YAML).write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _complete_splits(source: Source) -> dict[str, str]:
    """Return the split of each picture; without a val, some of the pictures that are in no test become it."""
    splits = {path: source.splits.get(path, "train") for path in source.has_objects}
    if "val" not in splits.values():
        chosen = choose_val({path: source.has_objects[path] for path, split in splits.items() if split == "train"})
        log.info("%s: has no validation split, so %s", source.root, chosen.how)
        splits |= dict.fromkeys(chosen.pictures, "val")
    if "train" not in splits.values():
        found = ", ".join(f"{count} in {split}" for split, count in sorted(Counter(splits.values()).items())) or "none"
        raise DataError(f"{source.root}: has no pictures for training, {found}; add some, or pass their folder too")
    return splits


def _staged_names(source: Source, splits: Mapping[str, str]) -> dict[str, str]:
    """Return the path below ``images`` by path in the source, without folders that say nothing."""
    names = {path: f"{split}/{_shortened(path, split)}" for path, split in splits.items()}
    taken: dict[str, str] = {}
    doubled = []
    for path, name in names.items():
        stem = name.rpartition(".")[0]
        if (other := taken.setdefault(stem, path)) != path:
            doubled.append(f"{path}: would have the same label as {other}; rename one")
    if doubled:
        raise DataError(f"{source.root}: pictures cannot be told apart", shortened(doubled, NUM_SHOWN))
    return names


def _shortened(path: str, split: str) -> str:
    *folders, file = path.split("/")
    dropped = DROPPED | {split, "valid", "validation"}
    return "/".join([*(part for part in folders if part.lower() not in dropped), file])
