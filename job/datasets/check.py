"""Check of a dataset before training: all problems at once, quarantine, and the data file for Ultralytics.

Guarantees that each label and image of a dataset that passes was read to its end, that Ultralytics drops none of them,
and that none lies outside the folder. Knows nothing of buckets.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from job.datasets.dataset_report import DatasetReport, SplitCounts
from job.datasets.dataset_statistics import IMGSZ, statistics_of
from job.datasets.labels import Findings, Problem
from job.datasets.layout import NEEDED, Layout, is_image, label_of, read_layout
from job.datasets.near_duplicates import find_near_duplicates
from job.datasets.scan import DatasetScan
from job.log import Progress
from job.text import counted

CLASSES_FILE = "classes.txt"
"""List of classes that labelling tools write among the labels."""


def check_dataset(
    folder: Path,
    *,
    single_class: bool = False,
    follow_links: bool = False,
    cache_file: Path | None = None,
    known_hashes: Callable[[], Mapping[str, str]] = dict,
    imgsz: int = IMGSZ,
    tiles: int = 0,
) -> DatasetReport:
    """Check every label and image of a dataset's splits.

    Args:
        folder: Has ``data.yaml``.
        single_class: All classes count as class 0.
        follow_links: Follow links that lead out of the dataset.
        cache_file: Cache of the scan; none if left out.
        known_hashes: Called if an image is not in the cache. Returns the hashes of images that were decoded elsewhere,
            by the digests of `DatasetScan`; they are not decoded again.
        imgsz: Image size of the training, for the sizes of objects.
        tiles: Width and height of its tiles, px of the files; 0 for whole pictures.
    """
    layout = read_layout(folder, follow_links=follow_links)
    names, texts = layout.data.names, layout.texts
    images = sorted({image for split in layout.splits.values() for image in split.images})
    labels = sorted({label_of(image) for image in images} & texts)
    misplaced = _misplaced_labels(layout, images)
    candidates = sorted({name for found in misplaced.values() for name in found if name.lower().endswith(".txt")})
    scan = DatasetScan(layout, cache_file, single_class=single_class, known_hashes=known_hashes)
    with Progress(f"checking {layout.folder.name}", 1, "file") as progress:
        scan.read([*images, *labels, *candidates], progress.to)
    problems, notes = _told_of(layout, scan, images, labels, misplaced)
    splits = {name: _count(split.images, texts, scan.findings, len(names)) for name, split in layout.splits.items()}
    problems += _empty_splits(layout, splits, scan.findings)
    unique = dict.fromkeys(problems)  # a file that cannot be read is reported by layout and scan
    alike = find_near_duplicates({name: split.images for name, split in layout.splits.items()}, scan.findings)
    return DatasetReport(
        names,
        splits,
        problems=tuple(sorted(unique, key=lambda found: (found.path != layout.data.name, found.path, found.line or 0))),
        warnings=(*layout.warnings, *_unlabelled(splits), *_counted(notes)),
        val=_files_of(layout, "val"),
        test=_files_of(layout, "test"),
        files=frozenset((layout.data.name, *layout.lists, *images, *labels)).intersection(layout.files),
        statistics=statistics_of(
            *(images, layout.splits["train"].images if "train" in layout.splits else ()),
            *(scan.findings, () if single_class else names),
            {name: counts.instances for name, counts in splits.items()},
            num_alike=sum(each.num_pictures for each in alike if (each.split, each.other) == ("val", "train")),
            imgsz=imgsz,
            tiles=tiles,
        ),
        near_duplicates=alike,
        hashes={scan.digests[image]: known for image in images if (known := scan.findings[image].hash)},
        digests={image: scan.digests[image] for image in images if scan.findings[image].hash},
        shapes={image: shape for image in images if (shape := scan.findings[image].shape)},
        sources={name: split.sources for name, split in layout.splits.items()},
        options=dict(layout.data.options),
    )


def _files_of(layout: Layout, split: str) -> tuple[str, ...]:
    """Return images and labels of a split."""
    images = layout.splits[split].images if split in layout.splits else ()
    return *images, *sorted({label_of(image) for image in images} & layout.texts)


def broken_files(folder: Path, report: DatasetReport) -> list[str]:
    """Return the broken images and labels by a fresh report, each with its counterpart, for `set_aside`.

    Of an image that is in train and in val, that is the copy in train. Problems of the data file, and of lists of
    images, remain.
    """
    layout = read_layout(folder)
    broken = {_pair(problem.path) for problem in report.problems} - layout.lists.keys()
    return sorted({name for name in (*layout.images, *layout.texts) if _pair(name) in broken})


def set_aside(
    folder: Path, names: Iterable[str], into: Path, before_change: Callable[[], None] = lambda: None
) -> list[str]:
    """Move files into a quarantine folder, and strike them from lists of images; return those lists.

    Files that do not exist are ignored. `before_change` is called once, before the first change; it may raise.
    """
    layout, moved, struck = read_layout(folder), set(names), {}
    for source, named in layout.lists.items():
        lines = (layout.folder / source).read_bytes().decode("utf-8-sig", errors="replace").splitlines()
        remaining = [lines[number - 1] for number, image in named.items() if image not in moved]
        if remaining and remaining != lines:
            struck[source] = "\n".join([*remaining, ""])
    present = moved.intersection(layout.files)
    if present or struck:
        before_change()
    for name in present:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(layout.folder / name, into / name)
    for source, text in struck.items():
        (layout.folder / source).write_text(text, encoding="utf-8")
    return list(struck)


def write_training_yaml(folder: Path, report: DatasetReport, target: Path) -> None:
    """Write the data file for Ultralytics: an absolute path, and no key that it would download or run."""
    sources = {name: list(sources) for name, sources in report.sources.items()}
    data = {"path": os.path.realpath(folder), **sources, "names": dict(enumerate(report.names)), **report.options}
    target.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _pair(name: str) -> str:
    """Return the name of an image's label; of another file, its name."""
    return label_of(name) if is_image(name) else name


def _pairing_problems(layout: Layout, images: list[str]) -> Iterator[Problem]:
    """Yield labels that belong to no image, and images that share one."""
    texts = layout.texts - layout.lists.keys()
    used = {label_of(image) for image in layout.images}
    folders = {label.rpartition("/")[0] for label in used & texts}
    for text in sorted(texts - used):
        folder, _, name = text.rpartition("/")
        if name != CLASSES_FILE and ("labels" in folder.split("/") or folder in folders):
            yield Problem(text, None, "orphan", "belongs to no image; add the image, or leave the label out")
    first: dict[str, str] = {}
    for image in images:
        if (other := first.setdefault(label_of(image), image)) != image and label_of(image) in texts:
            yield Problem(image, None, "shared label", f"has the same label as {other}; rename one, with its label")


def _misplaced_labels(layout: Layout, images: list[str]) -> dict[str, list[str]]:
    """Return, by image without a label, misplaced or misnamed files that could be its label."""
    used = {label_of(image) for image in layout.images} | layout.lists.keys()
    by_stem: dict[str, list[str]] = {}
    for name in (*sorted(layout.texts), *layout.annotations):
        if name not in used:
            by_stem.setdefault(_stem(name), []).append(name)
    unlabelled = [image for image in images if label_of(image) not in layout.texts]
    return {image: by_stem[_stem(image)] for image in unlabelled if _stem(image) in by_stem}


def _told_of(
    layout: Layout, scan: DatasetScan, images: list[str], labels: list[str], misplaced: dict[str, list[str]]
) -> tuple[list[Problem], dict[str, list[str]]]:
    """Return the problems of all files, and warnings with the files that they are about."""
    problems = [*layout.problems, *_pairing_problems(layout, images), *_shared_problems(layout, scan.digests)]
    notes: dict[str, list[str]] = {}
    for path in (*images, *labels):
        problems += [Problem(path, *problem) for problem in scan.findings[path].problems]
        for text in scan.findings[path].warnings:
            notes.setdefault(text, []).append(path)
    for image, found in misplaced.items():
        _report_misplaced(image, found, scan.findings, problems, notes)
    if unread := _labels_beside(images, layout.texts):
        notes["is not read, since the label lies in another folder"] = unread
    return problems, notes


def _labels_beside(images: list[str], texts: set[str]) -> list[str]:
    """Return labels beside images whose label lies in another folder."""
    beside = {image: f"{image.rpartition('.')[0]}.txt" for image in images}
    return [text for image, text in beside.items() if label_of(image) != text and {text, label_of(image)} <= texts]


def _stem(name: str) -> str:
    """Return the stem that an image shares with its label: ``a`` of ``x/a.jpg`` and of ``y/A.jpg.TXT``."""
    stem = name.rpartition("/")[2].rpartition(".")[0].casefold()
    return stem.rpartition(".")[0] if is_image(stem) else stem


def _report_misplaced(
    image: str, names: list[str], found: dict[str, Findings], problems: list[Problem], notes: dict[str, list[str]]
) -> None:
    """Report a possible label of an image: a problem if it has rows, otherwise a warning."""
    if labels := [name for name in names if name in found and found[name].has_rows]:
        where = f"has no label in {label_of(image)}, where Ultralytics looks"
        problems.append(Problem(image, None, "unused label", f"{where}, but {labels[0]} could be it; move it there"))
    elif others := [name for name in names if name not in found]:
        text = f"has no label, but a file in {others[0].rpartition('.')[2]} has its name; Ultralytics reads .txt alone"
        notes.setdefault(text, []).append(image)


def _counted(notes: dict[str, list[str]]) -> Iterator[str]:
    """Yield each note with the first of its files, and how many more there are."""
    for text, paths in notes.items():
        yield f"{paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}: {text}"


def _unlabelled(splits: dict[str, SplitCounts]) -> Iterator[str]:
    """Yield a note for each split with images that have no label file."""
    for name, counts in splits.items():
        if num := counts.num_without_label:
            of_all = f"{num} of {counted(counts.num_images, 'image')}"
            yield f"{name}: {of_all} without a label file, counted as background"


def _empty_splits(layout: Layout, splits: dict[str, SplitCounts], found: dict[str, Findings]) -> Iterator[Problem]:
    """Yield splits without a labelled instance that has an area."""
    for name in NEEDED:
        if name not in splits:
            continue
        labels = [found.get(label_of(image), Findings()) for image in layout.splits[name].images]
        if splits[name].num_labelled == 0:
            message = f"`{name}` has images, but no labels with a row; put them there"
            yield Problem(layout.data.name, None, "empty split", message)
        elif not any(label.has_area or label.problems for label in labels):
            message = f"`{name}` has labels, but no row with an area; give them boxes with a width and a height"
            yield Problem(layout.data.name, None, "empty split", message)


def _shared_problems(layout: Layout, digests: dict[str, str]) -> Iterator[Problem]:
    """Yield images that are in both train and val."""
    if not {"train", "val"} <= layout.splits.keys():
        return
    train, val = (set(layout.splits[name].images) for name in ("train", "val"))
    if both := sorted(train & val):
        message = (
            f"`train` and `val` have {counted(len(both), 'image')} in common, such as {both[0]}; name separate folders"
        )
        yield Problem(layout.data.name, None, "overlap", message)
    seen = {digests[image]: image for image in sorted(val) if image in digests}
    for image in sorted(train - val):
        if image in digests and (other := seen.get(digests[image])):
            yield Problem(image, None, "duplicate", f"is the same picture as {other}; leave one of them out")


def _count(images: tuple[str, ...], texts: set[str], found: dict[str, Findings], num_classes: int) -> SplitCounts:
    labels = [found.get(label_of(image), Findings()) for image in images]
    num_labelled = sum(bool(label.instances or label.problems) for label in labels)
    instances = Counter[int]()
    for label in labels:
        instances.update(dict(label.instances))
    counted = tuple(instances[number] for number in range(num_classes))
    num_without_label = sum(label_of(image) not in texts for image in images)
    return SplitCounts(len(images), num_labelled, len(images) - num_labelled, num_without_label, counted)
