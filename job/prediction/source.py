"""Source of pictures: a folder, files, or a prefix of a bucket; only read.

Guarantees that nothing is written where the user keeps pictures, that names are sorted, and that the same pictures have
the same digest on every machine.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from job.datasets.files import list_files
from job.datasets.image import MAX_BYTES
from job.datasets.layout import is_image
from job.errors import CorruptObjectError, DataError, InvalidInputError, ObjectNotFoundError, UsageError
from job.storage.object_store import Store
from job.storage.open_store import open_store
from job.storage.paths import is_file, is_folder
from job.text import counted, shortened

NUM_SHOWN = 10


class SourceChangedError(InvalidInputError):
    """A picture vanished during the prediction."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the source."""

    name: str
    """Relative and ``/``-separated; bytes that are no text are spelt out."""

    size_bytes: int
    key: str
    """Where the source has it."""

    failure: str | None = None
    """Why the listing says already that it cannot be read."""


class Source(ABC):
    """The pictures below one place, sorted by name.

    Args:
        uri: The place.
        pictures: In any order.
        num_others: Files that are no pictures by their names, such as videos.
        whole: Whether everything below the place belongs to the source.
    """

    def __init__(self, uri: str, pictures: Iterable[Picture], num_others: int, *, whole: bool) -> None:
        self.uri, self._whole = uri, whole
        self.pictures = sorted(pictures, key=lambda picture: picture.name)
        self.num_others = num_others
        if not self.pictures:
            others = f", and {counted(num_others, 'other file')}" if num_others else ""
            raise DataError(f"source {uri}: has no pictures{others}; name a folder, files, or gs://BUCKET/PREFIX")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and sizes."""
        listed = "".join(f"{picture.name}\t{picture.size_bytes}\n" for picture in self.pictures)
        return hashlib.sha256(listed.encode()).hexdigest()

    def read(self, picture: Picture) -> bytes:
        """Return the bytes of a picture.

        Raises:
            DataError: If the file cannot be read; the message is the reason alone.
            SourceChangedError: If the picture is gone since it was listed.
            StoreError: If the bucket refuses, or does not answer.
        """
        if picture.failure is not None:
            raise DataError(picture.failure)
        if picture.size_bytes > MAX_BYTES:
            raise DataError(f"is larger than {MAX_BYTES / 1e9:g} GB")
        try:
            return self._read(picture.key)
        except (FileNotFoundError, ObjectNotFoundError) as error:
            raise SourceChangedError(
                f"{self.uri}: the picture {picture.name} is gone since it was listed; put it back, or choose another "
                "--out"
            ) from error
        except OSError as error:
            raise DataError(f"cannot be read, {error.strerror}") from error
        except CorruptObjectError as error:
            raise DataError("cannot be read, its bytes are damaged in the bucket") from error

    def contains(self, uri: str) -> bool:
        """Whether a picture that is written below a place becomes one of the source."""
        return self._whole and f"{uri}/".startswith(f"{self.uri}/")

    @abstractmethod
    def _read(self, key: str) -> bytes:
        """Return the bytes under a key."""


class _Files(Source):
    def _read(self, key: str) -> bytes:
        return Path(key).read_bytes()


class _Objects(Source):
    def __init__(self, store: Store, prefix: str = "") -> None:
        self._store = store
        found = [stored for stored in store.list(prefix) if not prefix or stored.key == prefix]
        pictures = [Picture(stored.key, stored.size_bytes, stored.key) for stored in found if is_image(stored.key)]
        super().__init__(store.uri, pictures, len(found) - len(pictures), whole=not prefix)

    def _read(self, key: str) -> bytes:
        return self._store.read(key, MAX_BYTES)


def open_source(words: Sequence[str]) -> Source:
    """List the pictures of a folder with its folders, of files, or of a bucket's prefix.

    Raises:
        UsageError: If several places are named of which one is no file.
        DataError: If there is no such place, it has no pictures, or a part of it cannot be listed.
        StoreError: If the bucket cannot be read.
    """
    if len(words) == 1 and "://" in words[0]:
        parent, _, name = words[0].rstrip("/").rpartition("/")
        if is_image(name) and parent.count("/") > 1:
            return _Objects(open_store(parent), name)
        return _Objects(open_store(words[0]))
    if len(words) == 1 and is_folder(words[0]):
        return _folder(Path(words[0]))
    if odd := [word for word in words if "://" in word or is_folder(word)]:
        raise UsageError(f"source {odd[0]}: stands beside others; pass one folder, one gs:// prefix, or files")
    if missing := [word for word in words if not is_file(word)]:
        raise DataError(
            f"source: {len(missing)} of {len(words)} names lead to no file or folder; correct them",
            shortened(missing, NUM_SHOWN),
        )
    return _files(words)


def _folder(folder: Path) -> Source:
    root = folder.resolve()
    listed = list_files(root, follow_links=True)
    if problems := [str(problem) for problem in listed.refused if not is_image(problem.path)]:
        raise DataError(f"source {folder}: a part of it cannot be listed", shortened(problems, NUM_SHOWN))
    refused = {problem.path for problem in listed.refused}
    names = [name for name in listed.names if is_image(name)]
    pictures = [
        Picture(_as_text(name), 0, name, "is no file that can be read")  # a pipe, which blocks its reader
        if name in refused
        else Picture(_as_text(name), (root / name).stat().st_size, str(root / name))
        for name in names
    ]
    return _Files(str(root), pictures, len(listed.names) - len(names), whole=True)


def _files(words: Sequence[str]) -> Source:
    paths = sorted({os.path.abspath(word) for word in words})  # noqa: PTH100 -- links stay: the name counts
    parent = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120 -- as text, like the name
    pictures = [
        Picture(_as_text(os.path.relpath(path, parent)), os.stat(path).st_size, path)  # noqa: PTH116 -- as text
        for path in paths
        if is_image(path)
    ]
    return _Files(parent, pictures, len(paths) - len(pictures), whole=False)


def _as_text(name: str) -> str:
    """Return a file name with the bytes that are no text spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()
