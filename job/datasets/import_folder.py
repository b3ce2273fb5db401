"""Import of a user's dataset where it lies: a YOLO folder, a Roboflow export, COCO annotations, or a ZIP of one.

Guarantees that the result is a YOLO folder which `plan_push` checks as any other, and that the user's files are not
touched: a complete YOLO folder is taken as it is, of any other one a folder of links and labels is made.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.datasets.archive import OTHER_SUFFIXES, SUFFIX, unpack
from job.datasets.coco import MAX_BYTES, is_coco, read_coco, split_of
from job.datasets.data_yaml import DATA_YAML, DataYaml, is_data_yaml
from job.datasets.dataset_report import DatasetReport
from job.datasets.dataset_statistics import IMGSZ
from job.datasets.files import FolderListing, list_files
from job.datasets.labels import MAX_BYTES as MAX_LABEL_BYTES
from job.datasets.labels import check_label, describe_problems
from job.datasets.layout import is_image, label_of, read_layout
from job.datasets.other_formats import describe_other
from job.datasets.push import DATASET_NAME, OwnFiles, PushResult, plan_push, require_name
from job.datasets.staging import Source, stage
from job.errors import DataError, MachineError
from job.storage.object_store import Store
from job.storage.paths import expanded, is_file, is_folder
from job.storage.workdir import locked, require_writable, translated_errors
from job.text import counted, shortened
from job.training.coco import CocoPicture, write_labels

log = logging.getLogger(__name__)

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
"""Lists of classes that labelling programs write beside YOLO labels."""

NUM_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ImportedFolder:
    """A YOLO folder to push."""

    folder: Path
    is_staged: bool
    """Its pictures are links to the user's files."""

    root: Path
    """The folder that has the user's files, or those of an archive; absolute and without links."""


def dataset_name(source: Path) -> str:
    """Return the name of a dataset for a path: ``photos`` for ``~/photos`` and for ``photos.zip``."""
    path = expanded(source).resolve()
    path = path.parent if path.suffix.lower() in {".json", ".yaml", ".yml"} else path
    stem = path.name[: -len(SUFFIX)] if path.name.lower().endswith(SUFFIX) else path.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")
    if not DATASET_NAME.fullmatch(name):
        raise DataError(f"{source}: gives the dataset no name; pass one with --dataset")
    return name


def push_source(
    store: Store,
    source: Path,
    name: str,
    workdir: Path,
    *,
    force: bool = False,
    single_class: bool = False,
    follow_links: bool = False,
    imgsz: int = IMGSZ,
) -> tuple[PushResult, DatasetReport]:
    """Import a dataset and push it, as `imported` and `plan_push`; return the result and the report of the check."""
    with imported(source, workdir, require_name(name), follow_links=follow_links) as found:
        plan = plan_push(
            *(store, found.folder, name),
            force=force,
            single_class=single_class,
            follow_links=follow_links or found.is_staged,
            imgsz=imgsz,
            own=OwnFiles(str(source), found.root),
        )
        if plan.left_out:
            log.warning("%s: %d .npy files are left out, which no training reads", source, len(plan.left_out))
        pushed = plan.send()
    return pushed, plan.report


@contextmanager
def imported(source: Path, workdir: Path, name: str, *, follow_links: bool = False) -> Iterator[ImportedFolder]:
    """Recognise a dataset, and convert it below ``imports/NAME`` of a working folder where that is needed.

    Within the block no other process of this machine changes the folder.

    Raises:
        DataError: If it is none that is read, with what to choose in the program that wrote it, or if its annotations
            are broken.
        MachineError: If it does not fit on the disk, or another process imports a dataset of this name.
    """
    source = require_source(source)
    folder = workdir / "imports" / name
    require_writable(folder)
    with translated_errors(folder), _own_files_explained(workdir), locked(folder / ".lock") as free:
        if not free:
            raise MachineError(f"{folder}: another process imports into it; wait until it ends, or pass --workdir")
        if source.is_file() and _is_zip(source):
            unpack(source, folder / "unpacked")
            source = _only_folder(folder / "unpacked")
        yield _import(source, folder / "staged", workdir / "ultralytics", follow_links=follow_links)


@contextmanager
def _own_files_explained(workdir: Path) -> Iterator[None]:
    """Raise `DataError` for a file that cannot be read and is none of the work folder, so one of the user's."""
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename).absolute().is_relative_to(workdir.absolute()):
            raise
        advice = "correct its owner or mode, and give the same command again"
        raise DataError(f"{error.filename}: cannot be read, {error.strerror}; {advice}") from error


def require_source(source: Path) -> Path:
    """Return the path of a dataset; raises `DataError` if nothing is there, or an archive of another kind than ZIP."""
    source = expanded(source)
    if not is_file(source) and not is_folder(source):
        raise DataError(f"{source}: no such file or folder; pass a YOLO folder, a ZIP of one, or a COCO file")
    if source.is_file() and source.name.lower().endswith(OTHER_SUFFIXES):
        raise DataError(f"{source}: is an archive of another kind than ZIP; unpack it, and pass the folder")
    return source


def _is_zip(source: Path) -> bool:
    """Whether a file is a ZIP archive by its name or its first bytes."""
    with source.open("rb") as opened:
        return source.name.lower().endswith(SUFFIX) or opened.read(4) == b"PK\x03\x04"


def _only_folder(folder: Path) -> Path:
    """Return the folder below which an archive has everything."""
    while len(inside := [path for path in folder.iterdir() if not path.name.startswith(".")]) == 1:
        if not inside[0].is_dir():
            break
        folder = inside[0]
    return folder


def _import(source: Path, staged: Path, settings: Path, *, follow_links: bool) -> ImportedFolder:
    root = (source.parent if source.is_file() else source).resolve()
    if source.is_file() and source.suffix.lower() not in {".json", ".yaml", ".yml"}:
        raise DataError(f"{source}: {describe_other(root, [source.name])}")
    listing = list_files(root, follow_links=follow_links)
    named = [source.name] if source.suffix.lower() == ".json" and source.is_file() else listing.names
    if any(map(is_data_yaml, named)) or source.suffix.lower() in {".yaml", ".yml"}:
        return _from_data_yaml(source, root, listing, staged, follow_links=follow_links)
    _require_own_files(root, listing)
    if annotations := [name for name in named if name.lower().endswith(".json") and _is_coco(root / name)]:
        return _from_coco(root, annotations, listing, staged, settings)
    if classes := [name for name in listing.names if name.rpartition("/")[2] in NAME_FILES]:
        return _from_labels(root, classes, listing, staged)
    if not {label_of(name) for name in listing.names if is_image(name)}.isdisjoint(listing.names):
        what = "has YOLO labels, but no names of the classes"
        raise DataError(f"{root}: {what}; write them into classes.txt there, one a line in the order of their numbers")
    if not any(map(is_image, listing.names)):
        raise DataError(f"{root}: has no pictures; pass the folder that has the pictures and their labels")
    if above := _labelled_above(root):
        raise DataError(f"{root}: has pictures without their labels, which are in {above}/labels; pass {above}")
    raise DataError(f"{root}: {describe_other(root, named)}")


def _labelled_above(root: Path) -> Path | None:
    """Return the YOLO folder whose ``images`` a folder is, or is in."""
    found = (folder.parent for folder in (root, *root.parents) if folder.name.lower() == "images")
    return next((folder for folder in found if is_folder(folder / "labels")), None)


def _is_coco(path: Path) -> bool:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: has more than {MAX_BYTES:,} bytes; split the annotations")
    return is_coco(path.read_bytes())


def _require_own_files(root: Path, listing: FolderListing) -> None:
    """Refuse links that lead out of a folder: what they lead to would be pushed."""
    if listing.refused:
        num_found = counted(len(listing.refused), "problem")
        raise DataError(f"{root}: {num_found} found; correct them", describe_problems(listing.refused))


def _from_data_yaml(
    source: Path, root: Path, listing: FolderListing, staged: Path, *, follow_links: bool
) -> ImportedFolder:
    """Take a YOLO folder as it is if it has both splits, or is broken, which its push reports."""
    layout = read_layout(root, follow_links=follow_links)
    if source.is_file() and source.name != layout.data.name:
        raise DataError(f"{source}: {layout.data.name} beside it would be read; rename the right one to {DATA_YAML}")
    images = {name: set(split.images) for name, split in layout.splits.items()}
    train, val, test = (images.get(name, set()) for name in ("train", "val", "test"))
    is_named = bool(layout.data.content.get("val") or layout.data.content.get("validation"))
    is_empty = any(problem.kind == "empty split" for problem in layout.problems)
    is_mistaken = not val and is_named and (is_empty or not set(layout.images) <= train | test)
    if not layout.data.names or not train or is_mistaken or (val and val != train):
        return ImportedFolder(root, is_staged=False, root=root)
    _require_own_files(root, listing)
    splits = dict.fromkeys(sorted(train), "train") | dict.fromkeys(sorted(test), "test")
    labels = {image: label_of(image) for image in splits if label_of(image) in layout.texts}
    return _stage_yolo(layout.data, root, splits, labels, staged)


def _from_labels(root: Path, classes: list[str], listing: FolderListing, staged: Path) -> ImportedFolder:
    """Stage pictures and labels without a data file; lists of classes are there."""
    data = DataYaml(classes[0], names=_read_classes(root, classes))
    texts = {name for name in listing.names if name.endswith(".txt")}
    images = [name for name in listing.names if is_image(name)]
    labels = {image: label for image in images for label in _possible_labels(image)[::-1] if label in texts}
    return _stage_yolo(data, root, {image: split_of(image) or "train" for image in images}, labels, staged)


def _read_classes(root: Path, files: list[str]) -> tuple[str, ...]:
    """Return the classes of the longest list; raises `DataError` if another list numbers them in another way.

    Some programs write a list into the folder of each split, with the classes that there were at that time.
    """
    if large := [file for file in files if (root / file).stat().st_size > MAX_LABEL_BYTES]:
        raise DataError(f"{root}: {large[0]} has more than {MAX_LABEL_BYTES:,} bytes; list the classes, one a line")
    texts = {file: (root / file).read_text(encoding="utf-8-sig", errors="replace").rstrip() for file in files}
    lists = {file: [line.strip() for line in text.splitlines()] for file, text in texts.items()}
    longest = max(lists, key=lambda file: len(lists[file]))
    names = lists[longest]
    problems = [f"{file}: differs from {longest}" for file, found in lists.items() if found != names[: len(found)]]
    problems += [f"{longest}:{number}: names no class" for number, name in enumerate(names, 1) if not name]
    if problems:
        what = "the class on line 1 is number 0, and so on"
        raise DataError(f"{root}: lists of classes are wrong, {what}; correct them", shortened(problems, NUM_SHOWN))
    return tuple(names)


def _possible_labels(image: str) -> tuple[str, ...]:
    beside = f"{image.rpartition('.')[0]}.txt"
    return label_of(image), beside, f"labels/{beside}"


def _stage_yolo(
    data: DataYaml, root: Path, splits: Mapping[str, str], labels: Mapping[str, str], staged: Path
) -> ImportedFolder:
    """Stage pictures by split, and the labels of those that have one."""
    has_objects = {image: image in labels and _has_rows(root / labels[image]) for image in splits}

    def link_labels(names: Mapping[str, str]) -> None:
        for image, label in labels.items():
            target = (staged / "labels" / names[image]).with_suffix(".txt")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(root / label)

    stage(Source(root, data.names, has_objects, splits, data.options), staged, link_labels)
    return ImportedFolder(staged, is_staged=True, root=root)


def _has_rows(label: Path) -> bool:
    if label.stat().st_size > MAX_LABEL_BYTES:
        return True
    return check_label(label.read_bytes(), 0).has_rows


def _from_coco(
    root: Path, annotations: list[str], listing: FolderListing, staged: Path, settings: Path
) -> ImportedFolder:
    images = [name for name in listing.names if is_image(name)]
    found = read_coco(root, annotations, images)
    if left := len(images) - len(found.pictures):
        log.warning("%s: leaves out %s in no annotation file", root, counted(left, "picture"))
    if found.num_crowds:
        log.warning("%s: leaves out %s of crowds, as YOLO has none", root, counted(found.num_crowds, "annotation"))
    if found.num_empty:
        log.warning("%s: leaves out %s without width or height", root, counted(found.num_empty, "box", "boxes"))
    has_objects = {path: bool(picture.boxes) for path, picture in found.pictures.items()}

    def convert(names: Mapping[str, str]) -> None:
        pictures: dict[str, CocoPicture] = {name: found.pictures[path] for path, name in names.items()}
        write_labels(pictures, staged / "labels", settings)

    stage(Source(root, found.names, has_objects, found.splits, {}), staged, convert)
    num_boxes = sum(len(picture.boxes) for picture in found.pictures.values())
    converted = f"{counted(num_boxes, 'box', 'boxes')} of {counted(len(found.pictures), 'picture')}"
    log.info("%s: %s converted from COCO", root, converted)
    return ImportedFolder(staged, is_staged=True, root=root)
