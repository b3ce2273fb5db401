"""YOLO layout of a dataset: splits, images and their labels.

Guarantees that all its paths lie in the dataset's folder, and that it sees the files that Ultralytics would see. Reads
no image and no label.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from job.datasets.data_yaml import DATA_YAML, DataYaml, quote, read_data_yaml
from job.datasets.files import list_files, real_name
from job.datasets.labels import Problem
from job.storage.keys import is_key

SUFFIXES = frozenset({"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"})
"""Suffixes of images; Ultralytics ignores other files."""

ANNOTATIONS = (".txt", ".xml", ".json")
"""Suffixes of labels elsewhere, in any case; Ultralytics reads ``.txt`` alone."""

NEEDED = ("train", "val")
"""Splits that training requires."""

RELATIVE = "write it from the folder of the data file on, such as images/train"

MAX_LIST_BYTES = 500_000_000
"""Limit of a list of images."""


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
    data: DataYaml
    splits: dict[str, Split] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    """All files that are not hidden."""
    images: list[str] = field(default_factory=list)
    """All images, in a split or not."""
    texts: set[str] = field(default_factory=set)
    """Text files: labels and lists of images."""
    annotations: list[str] = field(default_factory=list)
    """Labels of other formats, which Ultralytics does not read."""
    lists: dict[str, dict[int, str]] = field(default_factory=dict)
    """Lists of images: the image on each line that names one."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def report(self, kind: str, message: str, path: str | None = None, line: int | None = None) -> None:
        """Add a problem, by default of the data file."""
        self.problems.append(Problem(self.data.name if path is None else path, line, kind, message))

    def warn(self, message: str) -> None:
        """Add a warning about the data file."""
        self.warnings.append(f"{self.data.name}: {message}")


def read_layout(folder: Path, *, follow_links: bool = False) -> Layout:
    """Read the data file and list the files; links that lead out of the folder are problems unless followed."""
    folder = Path(os.path.realpath(folder))
    found = list_files(folder, follow_links=follow_links)
    data = read_data_yaml(folder, found.names)
    layout = Layout(folder, data, folders=found.folders, files=found.names, problems=found.refused)
    for name in found.names:
        if not is_key(name):
            layout.report("name", "has a name that no bucket takes; use no backslash and no control character", name)
        if is_image(name):
            layout.images.append(name)
        elif name.endswith(".txt"):
            layout.texts.add(name)
        elif name.lower().endswith(ANNOTATIONS):
            layout.annotations.append(name)
    for message in data.problems:
        layout.report(DATA_YAML, message)
    for message in data.warnings:
        layout.warn(message)
    if data.content:
        _read_splits(layout, data.content)
    return layout


def label_of(image: str) -> str:
    """Return the name of an image's label, existing or not, as Ultralytics' ``img2label_paths``."""
    head, found, tail = f"/{image}".rpartition("/images/")
    label = f"{head}/labels/{tail}" if found else f"/{image}"
    return label[1:].rpartition(".")[0] + ".txt"


def is_image(name: str) -> bool:
    """Whether Ultralytics reads a file of this name as an image."""
    return "." in name and name.rpartition(".")[2].lower() in SUFFIXES


def _read_splits(layout: Layout, data: Mapping[object, object]) -> None:
    path = data.get("path") or "."
    given = {name: data.get(name) or (name == "val" and data.get("validation")) for name in (*NEEDED, "test")}
    entries = {
        name: [_from(path, entry) for entry in (value if isinstance(value, list) else [value])]
        for name, value in given.items()
        if value
    }
    root = _read_root(layout, path, [entry for name in NEEDED for entry in entries.get(name, [])])
    for name in given:
        if name in entries:
            _read_split(layout, root, name, entries[name])
        elif name in NEEDED:
            layout.report(DATA_YAML, f"has no `{name}`; name the folder of its images, such as `images/{name}`")
    if "/images/" in f"{layout.folder}/" and not all("/images/" in f"/{image}" for image in layout.images):
        message = "the dataset is in a folder `images`, but its images are in none, so that their labels are looked for"
        layout.report("outside", f"{message} outside; put them into a folder `images` of the dataset")


def _from(path: object, entry: object) -> object:
    """Return an entry of a split relative to ``path``, which it may repeat."""
    if isinstance(path, str) and path.startswith("/") and isinstance(entry, str):
        return entry.removeprefix(f"{path.rstrip('/')}/")
    return entry


def _read_root(layout: Layout, path: object, entries: list[object]) -> str:
    """Return the folder to which the entries of splits are relative.

    Exporters write the path that the dataset had on their machine. If this folder has all entries, it is meant.
    """
    found = _find(layout, ".", path) if isinstance(path, str) else None
    if found in layout.folders and all(_find(layout, found, entry) for entry in entries):
        return found
    if isinstance(path, str) and entries and all(_find(layout, ".", entry) for entry in entries):
        layout.warn(f"`path` is {quote(path)}; what `train` and `val` name is in this folder, which is taken for it")
        return "."
    if found in layout.folders:
        return found
    layout.report("outside", f"`path` is {quote(path)}, which is no folder of the dataset; leave it out")
    return "."


def _read_split(layout: Layout, root: str, name: str, given: list[object]) -> None:
    sources: list[str] = []
    images: list[str] = []
    for entry in given:
        source = None if str(entry).startswith("/") else _find(layout, root, entry)
        if source is not None:
            sources.append(source)
            if source in layout.folders:
                images += [image for image in layout.images if source == "." or image.startswith(f"{source}/")]
            else:
                images += _listed(layout, source)
        elif isinstance(entry, str) and not real_name(layout.folder, layout.folder / root / entry.removeprefix("../")):
            message = f"`{name}` is {quote(entry)}, which lies outside the dataset; put the images inside"
            layout.report("outside", message)
        elif isinstance(entry, str) and entry.startswith("/"):
            layout.report(DATA_YAML, f"`{name}` is {quote(entry)}, which is there on this machine alone; {RELATIVE}")
        else:
            missing = f"`{name}` is {quote(entry)}, which is no folder and no list of the dataset"
            _report_split(layout, name, DATA_YAML, f"{missing}; name one, such as `images/{name}`")
    if sources and images:
        layout.splits[name] = Split(tuple(sources), tuple(images))
    elif sources:
        _report_split(layout, name, "empty split", f"`{name}` has no images; put some there, or name another folder")


def _report_split(layout: Layout, name: str, kind: str, message: str) -> None:
    """Add a problem of a split that training requires, a warning of another."""
    if name in NEEDED:
        layout.report(kind, message)
    else:
        layout.warn(message)


def _find(layout: Layout, root: str, entry: object) -> str | None:
    """Return the folder or text file of the dataset that an entry of the data file names.

    Roboflow writes ``../train/images`` for ``train/images``, and Ultralytics understands it.
    """
    if not isinstance(entry, str):
        return None
    for tried in (entry, entry.removeprefix("../")):
        path = layout.folder / root / tried
        for name in (os.path.relpath(path, layout.folder), real_name(layout.folder, path)):
            if name is not None and (name in layout.folders or name in layout.texts):
                return name
    return None


def _listed(layout: Layout, source: str) -> list[str]:
    """Return the images that a list names, as Ultralytics reads it."""
    layout.lists[source] = {}
    path = layout.folder / source
    try:
        if not path.is_file():
            return []  # `list_files` reports a pipe or a link
        if path.stat().st_size > MAX_LIST_BYTES:
            layout.report("list", f"has more than {MAX_LIST_BYTES:,} bytes; make it smaller", source)
            return []
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        layout.report("list", f"cannot be read, {error}; write one image a line, in UTF-8", source)
        return []
    there = set(layout.images)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        image = os.path.relpath(path.parent / line, layout.folder)
        if line.startswith("/") and image in there:
            problem = f"{line!r} is there on this machine alone; write it from this list on, such as ./images/1.jpg"
        elif line.startswith("/") or ".." in Path(line).parts:
            layout.report("outside", f"{line!r} lies outside the dataset; put the image inside", source, number)
            continue
        elif not line.startswith("./"):
            problem = f"{line!r} is looked for wherever training starts; write ./ before it, for beside this list"
        elif image not in there:
            problem = f"{line!r} is no image that is there; leave it out"
        else:
            layout.lists[source][number] = image
            continue
        layout.report("list", problem, source, number)
    return list(layout.lists[source].values())
