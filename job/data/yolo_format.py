"""The YOLO format: classes and splits of a dataset, and which label belongs to which image.

Guarantees that whatever it names lies in the dataset's folder, and that it sees what Ultralytics would see. Knows
nothing of images but their names.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.limited_yaml import UnreadableYamlError, load_yaml

DATA_YAML = "data.yaml"

SUFFIXES = frozenset({"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"})
"""What the names of images end in; Ultralytics passes over other files."""

NEEDED = ("train", "val")
"""The splits without which there is no training."""

NUM_SHOWN = 80
"""How many characters of a value are shown."""

PASSED_ON = ("channels", "kpt_shape")
"""Keys of ``data.yaml``, beside classes and splits, that change how Ultralytics reads a dataset."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something for which Ultralytics would stop, or silently train on less or on something else."""

    path: str
    """Below the dataset's folder."""
    line: int | None
    """From 1, where it is about a line."""
    kind: str
    message: str

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Split:
    """One of train, val and test."""

    sources: tuple[str, ...]
    """Folders of images, or lists of them."""
    images: tuple[str, ...]
    """As often as Ultralytics reads them."""


@dataclass(slots=True)
class Layout:
    """A dataset without its contents; all paths are relative to its folder."""

    folder: Path
    """Absolute and without links."""
    names: tuple[str, ...] = ()
    """Empty if they cannot be told."""
    splits: dict[str, Split] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    images: list[str] = field(default_factory=list)
    """Every image there is, whether or not it is in a split."""
    texts: list[str] = field(default_factory=list)
    """Everything that could be a label."""
    lists: dict[str, dict[int, str]] = field(default_factory=dict)
    """Lists of images: the image on each line that names one."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def report(self, kind: str, message: str, path: str = DATA_YAML, line: int | None = None) -> None:
        """Note a problem."""
        self.problems.append(Problem(path, line, kind, message))

    @property
    def num_keypoint_columns(self) -> int:
        """How many columns Ultralytics cuts off the rows of a dataset of poses."""
        num_points, num_dimensions = self.options.get("kpt_shape", (0, 0))
        return int(num_points * num_dimensions)


def read_layout(folder: Path) -> Layout:
    """Read ``data.yaml`` and list the files."""
    layout = Layout(Path(os.path.realpath(folder)))
    _list_files(layout, "")
    if data := _read_yaml(layout):
        layout.names = _names(data, lambda message: layout.report("data.yaml", message))
        _read_options(layout, data)
        _read_splits(layout, data)
    return layout


def label_of(image: str) -> str:
    """Return the name of an image's label, whether or not there is one: as Ultralytics' ``img2label_paths``."""
    head, found, tail = f"/{image}".rpartition("/images/")
    label = f"{head}/labels/{tail}" if found else f"/{image}"
    return label[1:].rpartition(".")[0] + ".txt"


def is_image(name: str) -> bool:
    """Tell whether Ultralytics takes a file of this name for an image."""
    return "." in name and name.rpartition(".")[2].lower() in SUFFIXES


def _is_inside(folder: Path, path: Path) -> bool:
    """Tell whether a path, with all links followed, is in a folder that is itself free of links."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(folder)
    except ValueError:  # a NUL character
        return False


def _list_files(layout: Layout, below: str) -> None:
    """List what Ultralytics' `glob` gives: nothing hidden. Links to folders are refused instead of followed."""
    layout.folders.add(below.rstrip("/") or ".")
    try:
        with os.scandir(layout.folder / below) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        layout.report("unreadable", f"cannot be listed, {error.strerror}; make it a folder that can be read", below)
        return
    for entry in entries:
        name = below + entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and Path(entry).is_dir():
            layout.report("link", "is a link to a folder, which no push follows; put the folder there", name)
        elif entry.is_symlink() and not _is_inside(layout.folder, Path(entry)):
            layout.report("outside", "is a link that leads out of the dataset; put the file there", name)
        if entry.is_dir(follow_symlinks=False):
            _list_files(layout, f"{name}/")
        elif is_image(name):
            layout.images.append(name)
        elif name.endswith(".txt"):
            layout.texts.append(name)


def _read_yaml(layout: Layout) -> dict[Any, Any]:
    """Read ``data.yaml``; empty if it cannot be used."""
    path = layout.folder / DATA_YAML
    if not _is_inside(layout.folder, path):
        return {}
    if not path.is_file():
        layout.report("data.yaml", "there is none; a dataset has images/, labels/ and data.yaml")
        return {}
    try:
        data = load_yaml(path.read_bytes())
    except (OSError, UnreadableYamlError) as error:
        layout.report("data.yaml", f"cannot be read, {error}; correct its syntax")
        return {}
    if isinstance(data, dict) and data:
        return data
    layout.report("data.yaml", f"is {_shown(data)}; write keys and values, such as `train: images/train`")
    return {}


def _shown(value: object) -> str:
    """Show a value of ``data.yaml``, which can be built to fill the memory when it is written out."""
    return repr(value)[:NUM_SHOWN] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _names(data: dict[Any, Any], report: Callable[[str], None]) -> tuple[str, ...]:
    found = data.get("names")
    if not found:
        report("has no `names`; list the classes in the order of their numbers")
        return ()
    if not isinstance(found, list | dict):
        report(f"`names` is {_shown(found)}; list the classes in the order of their numbers")
        return ()
    try:
        names = dict(enumerate(found)) if isinstance(found, list) else {int(key): found[key] for key in found}
    except (TypeError, ValueError, OverflowError):
        report("`names` has keys that are no numbers; number the classes from 0")
        return ()
    missing = next((number for number in range(len(found)) if number not in names), None)
    if missing is not None:
        report(f"`names` has {len(found)} classes, but no number {missing}; number them from 0 without a gap")
        return ()
    if wrong := [number for number, name in names.items() if name is None or isinstance(name, list | dict)]:
        report(f"`names` has no text for the classes {wrong}; name each class")
        return ()
    num_classes = _shown(data.get("nc", len(names))).strip("'")
    if num_classes.removesuffix(".0") != str(len(names)):
        report(f"`nc` is {num_classes}, but there are {len(names)} `names`; correct one of them, or leave `nc` out")
    return tuple(str(names[number]) for number in range(len(names)))


def _read_options(layout: Layout, data: dict[Any, Any]) -> None:
    shape, channels = data.get("kpt_shape", [0, 0]), data.get("channels", 3)
    if not isinstance(shape, list) or [type(number) for number in shape] != [int, int] or min(shape) < 0:
        layout.report(
            "data.yaml", f"`kpt_shape` is {_shown(shape)}; write two numbers, such as [17, 3], or leave it out"
        )
    elif not isinstance(channels, int) or channels < 1:
        layout.report("data.yaml", f"`channels` is {_shown(channels)}; write a number, or leave it out")
    else:
        layout.options = {key: data[key] for key in PASSED_ON if key in data}


def _read_splits(layout: Layout, data: dict[Any, Any]) -> None:
    root = data.get("path") or "."
    if not isinstance(root, str) or _find(layout, ".", root) not in layout.folders:
        layout.report("outside", f"`path` is {_shown(root)}, which is no folder of the dataset; leave it out")
        root = "."
    for name in (*NEEDED, "test"):
        given = data.get(name) or (name == "val" and data.get("validation"))
        if given:
            _read_split(layout, root, name, given if isinstance(given, list) else [given])
        elif name in NEEDED:
            layout.report("data.yaml", f"has no `{name}`; name the folder of its images, such as `images/{name}`")
    if "/images/" in f"{layout.folder}/" and not all("/images/" in f"/{image}" for image in layout.images):
        message = "the dataset is in a folder `images`, but its images are in none, so that their labels are looked for"
        layout.report("outside", f"{message} outside; put them into a folder `images` of the dataset")


def _read_split(layout: Layout, root: str, name: str, given: list[Any]) -> None:
    sources: list[str] = []
    images: list[str] = []
    for entry in given:
        source = _find(layout, root, entry) if isinstance(entry, str) else None
        if source is not None:
            sources.append(source)
            images += _below(layout.images, source) if source in layout.folders else _listed(layout, source)
        elif isinstance(entry, str) and not _is_inside(layout.folder, layout.folder / root / entry.removeprefix("../")):
            message = f"`{name}` is {_shown(entry)}, which lies outside the dataset; put the images inside"
            layout.report("outside", message)
        else:
            missing = f"`{name}` is {_shown(entry)}, which is no folder and no list of the dataset"
            _report_split(layout, name, "data.yaml", f"{missing}; name one, such as `images/{name}`")
    if sources and images:
        layout.splits[name] = Split(tuple(sources), tuple(images))
    elif sources:
        _report_split(layout, name, "empty split", f"`{name}` has no images; put some there, or name another folder")


def _report_split(layout: Layout, name: str, kind: str, message: str) -> None:
    """Note a problem of a split that training needs, a warning of one that it does not read."""
    if name in NEEDED:
        layout.report(kind, message)
    else:
        layout.warnings.append(f"{DATA_YAML}: {message}")


def _find(layout: Layout, root: str, entry: str) -> str | None:
    """Return the folder or text file of the dataset to which an entry of ``data.yaml`` leads.

    Roboflow writes ``../train/images`` for ``train/images``, and Ultralytics understands it.
    """
    for tried in (entry, entry.removeprefix("../")):
        path = layout.folder / root / tried
        if _is_inside(layout.folder, path):
            found = Path(os.path.realpath(path)).relative_to(layout.folder).as_posix()
            if found in layout.folders or found in layout.texts:
                return found
    return None


def _below(images: list[str], source: str) -> list[str]:
    return [image for image in images if source == "." or image.startswith(f"{source}/")]


def _listed(layout: Layout, source: str) -> list[str]:
    """Return the images that a list names, as Ultralytics reads it."""
    layout.lists[source] = {}
    try:
        lines = (layout.folder / source).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        layout.report("list", f"cannot be read, {error}; write one image a line, in UTF-8", source)
        return []
    there = set(layout.images)
    for number, line in enumerate(lines, 1):
        path = (layout.folder / source).parent / line
        if not line.strip():
            continue
        if not line.startswith(("./", "/")):
            message = f"{line!r} is looked for wherever training starts; write ./ before it, for beside this list"
            layout.report("list", message, source, number)
        elif ".." in path.parts or not _is_inside(layout.folder, path.parent):
            layout.report("outside", f"{line!r} lies outside the dataset; put the image inside", source, number)
        else:
            image = (Path(os.path.realpath(path.parent)) / path.name).relative_to(layout.folder).as_posix()
            if image in there:
                layout.lists[source][number] = image
            else:
                layout.report("list", f"{line!r} is no image that is there; leave it out", source, number)
    return list(layout.lists[source].values())
