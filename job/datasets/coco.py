"""COCO annotations of a folder: read, matched with its pictures, checked.

Guarantees that a file name in an annotation leads to a picture of the folder and nowhere else, and that the sizes of
pictures are those that the annotations mean. Reads no pixels.
"""

from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from unicodedata import normalize

from PIL import Image
from PIL.Image import open as open_image  # Ultralytics replaces it by a function that installs packages
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, ValidationError

from job.datasets.data_yaml import MAX_CLASSES
from job.datasets.image import FORMATS
from job.datasets.labels import Problem, describe_problems
from job.errors import DataError
from job.text import counted, shortened, validation_problems
from job.training.coco import CocoPicture

MAX_BYTES = 1_000_000_000
"""Limit of a file of annotations: millions of boxes."""

MAX_PROBLEMS = 50

ROUNDING_PX = 2.0
"""How far a box may reach beyond its picture by the rounding of an exporter; it is cut at the edge."""

ORIENTATION, ON_ITS_SIDE = 0x0112, {5, 6, 7, 8}
"""Tag of EXIF, and its values that exchange width and height."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Words of names of folders and files, by which exporters tell splits apart."""

Id = int | str


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class CocoImage(_Part):
    """One picture."""

    id: Id
    file_name: str
    width: PositiveInt | None = None
    height: PositiveInt | None = None


class CocoAnnotation(_Part):
    """One object."""

    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    iscrowd: bool = False


class CocoCategory(_Part):
    """One class."""

    id: Id
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    supercategory: str | None = None


class CocoFile(_Part):
    """One file of annotations."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: Annotated[list[CocoCategory], Field(max_length=MAX_CLASSES)]


@dataclass(slots=True)
class CocoDataset:
    """Pictures of a folder and their boxes, from all files of annotations together."""

    names: list[str] = field(default_factory=list)
    """Classes in the order of their numbers."""

    pictures: dict[str, CocoPicture] = field(default_factory=dict)
    """By path in the folder."""

    splits: dict[str, str] = field(default_factory=dict)
    """By path; absent where neither folder nor file says one."""

    num_crowds: int = 0
    num_empty: int = 0
    """Boxes without width or height."""

    problems: list[Problem] = field(default_factory=list)

    def report(self, path: str, kind: str, message: str) -> None:
        """Add a problem of a picture or of a file of annotations."""
        self.problems.append(Problem(path, None, kind, message))


def is_coco(data: bytes) -> bool:
    """Whether a JSON file has the keys of COCO annotations."""
    return all(key in data for key in (b'"images"', b'"annotations"', b'"categories"'))


def read_coco(root: Path, files: Iterable[str], images: Iterable[str]) -> CocoDataset:
    """Read files of annotations, and match them with images; both are paths in the folder `root`.

    Raises `DataError` with every problem.
    """
    found, lookup = CocoDataset(), _Lookup(images)
    for name in files:
        try:
            content = CocoFile.model_validate_json((root / name).read_bytes().removeprefix(BOM_UTF8))
        except ValidationError as error:
            for text in validation_problems(error, CocoFile):
                found.report(name, "form", text)
            continue
        _add(found, root, name, content, lookup)
    if problems := list(dict.fromkeys(found.problems)):
        what = f"the COCO annotations have {counted(len(problems), 'problem')}"
        listed = shortened(describe_problems(problems), MAX_PROBLEMS)
        raise DataError(f"{root}: {what}; correct them, or export again", listed)
    return found


def split_of(name: str) -> str | None:
    """Return the split that folders, or else the words of an annotation file's name, say: ``instances_val.json``."""
    *folders, file = name.lower().split("/")
    words = "".join(letter if letter.isalpha() else " " for letter in file.rpartition(".")[0]).split()
    is_picture = not file.endswith(".json")
    return next((SPLITS[word] for word in [*folders, *([] if is_picture else words)] if word in SPLITS), None)


def _add(found: CocoDataset, root: Path, name: str, content: CocoFile, lookup: "_Lookup") -> None:
    numbers = _number_classes(found, name, content)
    by_image: dict[Id, list[CocoAnnotation]] = {}
    for annotation in content.annotations:
        by_image.setdefault(annotation.image_id, []).append(annotation)
    ids = {image.id for image in content.images}
    _report_doubled(found, name, "images", content.images)
    for image_id in [each for each in by_image if each not in ids]:
        message = f"has annotations of image {image_id}, which it does not list; list it, or leave them out"
        found.report(name, "no image", message)
    for path, image in _match(found, name, content, lookup).items():
        try:
            size = _size_of(root / path, image)
        except DataError as error:
            found.report(path, "picture", str(error))
            continue
        boxes = list(found.pictures[path].boxes if path in found.pictures else ())
        for annotation in by_image.get(image.id, []):
            box = _clipped(annotation.bbox, *size)
            if annotation.category_id not in numbers:
                message = f"category {annotation.category_id} is not among its categories; list it there"
                found.report(name, "category", message)
            elif annotation.iscrowd:
                found.num_crowds += 1
            elif min(box[2:]) <= 0:
                found.num_empty += 1
            else:
                boxes.append((numbers[annotation.category_id], box))
        found.pictures[path] = CocoPicture(*size, boxes)
        split = split_of(name) or split_of(path)
        if split and (before := found.splits.setdefault(path, split)) != split:
            found.report(path, "split", f"is in {before} and, by {name}, in {split}; list it in one of them")


def _match(found: CocoDataset, name: str, content: CocoFile, lookup: "_Lookup") -> dict[str, CocoImage]:
    """Return a file's images by the picture that each one means."""
    by_path: dict[str, CocoImage] = {}
    for image in content.images:
        if (path := lookup.find(name, image.file_name)) is None:
            message = f"{image.file_name!r} is no picture that is there, or is several; correct the name"
            found.report(name, "no picture", message)
        elif (other := by_path.setdefault(path, image)) is not image:
            two = f"{other.file_name!r} and {image.file_name!r}"
            found.report(path, "two images", f"is meant by two images of {name}, {two}; correct one, or leave it out")
    return by_path


def _number_classes(found: CocoDataset, name: str, content: CocoFile) -> dict[Id, int]:
    """Return the numbers of a file's classes by id, new names appended.

    Without the class that some exporters add, the parent of all others, which has no objects.
    """
    used = {annotation.category_id for annotation in content.annotations}
    _report_doubled(found, name, "categories", content.categories)
    num_children = Counter(each.supercategory for each in content.categories if each.supercategory != each.name)
    numbers = {}
    for category in sorted(content.categories, key=lambda category: (str(type(category.id)), category.id)):
        if category.id not in used and 0 < num_children[category.name] == len(content.categories) - 1:
            continue
        if category.name not in found.names:
            found.names.append(category.name)
        numbers[category.id] = found.names.index(category.name)
    return numbers


def _report_doubled(found: CocoDataset, name: str, what: str, entries: Iterable[CocoImage | CocoCategory]) -> None:
    for number, count in Counter(entry.id for entry in entries).items():
        if count > 1:
            found.report(name, f"doubled {what}", f"has {count} {what} with the id {number!r}; give each its own")


def _size_of(path: Path, image: CocoImage) -> tuple[int, int]:
    """Return width and height as annotated; raises `DataError` if the picture has another shape."""
    try:
        with open_image(path, formats=FORMATS) as opened:
            width, height = opened.size
            if opened.getexif().get(ORIENTATION) in ON_ITS_SIDE:
                width, height = height, width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot be read, {error}; replace it, or leave it out") from error
    if image.width is None or image.height is None:
        return width, height
    if abs(image.width * height - image.height * width) > max(width, height, image.width, image.height):
        annotated = f"{image.width} x {image.height} px"
        raise DataError(f"is {width} x {height} px, and annotated as {annotated}; export picture and boxes together")
    return image.width, image.height


def _clipped(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    """Return a box cut at the picture's edges, where it reaches beyond them by rounding."""
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    left, right = _at_edge(left, width), _at_edge(right, width)
    top, bottom = _at_edge(top, height), _at_edge(bottom, height)
    return left, top, right - left, bottom - top


def _at_edge(value: float, size: int) -> float:
    inside = min(max(value, 0.0), float(size))
    return inside if abs(inside - value) <= ROUNDING_PX else value


class _Lookup:
    """Pictures of a folder by the names that annotations give them."""

    def __init__(self, images: Iterable[str]) -> None:
        self._images = {normalize("NFC", image): image for image in images}  # macOS takes letters apart
        self._by_base: dict[str, list[str]] = {}
        for image in sorted(self._images):
            self._by_base.setdefault(image.rpartition("/")[2], []).append(image)

    def find(self, annotations: str, file_name: str) -> str | None:
        """Return the picture that a file of annotations names.

        That is the one beside it, or below the folder, or else the only one whose path ends like the name.
        """
        found = self._find(*(normalize("NFC", name) for name in (annotations, file_name)))
        return None if found is None else self._images[found]

    def _find(self, annotations: str, file_name: str) -> str | None:
        parts = [part for part in file_name.replace("\\", "/").split("/") if part not in {"", ".", ".."}]
        near = annotations.split("/")[:-1]
        for folder in (near, [*near, "images"], []):
            if (path := "/".join([*folder, *parts])) in self._images:
                return path
        candidates = self._by_base.get(parts[-1] if parts else "", [])
        for ending in ("/".join(["", *parts]), *self._of_split(annotations, parts)):
            if len(ends := [path for path in candidates if f"/{path}".endswith(ending)]) == 1:
                return ends[0]
        return candidates[0] if len(candidates) == 1 else None

    @staticmethod
    def _of_split(annotations: str, parts: list[str]) -> Iterator[str]:
        """Yield ``/train2017/a.jpg`` for ``annotations/instances_train2017.json``."""
        yield "/".join(["", annotations.rpartition("/")[2].rpartition(".")[0].rpartition("_")[2], *parts])
