"""What is in the images and labels of a dataset: read once, in parallel, and remembered by content.

Guarantees that every image was decoded to its end, and that a memory that is absent or broken costs time and nothing
else.
"""

import hashlib
import io
import json
import os
import stat
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import PIL
from PIL import Image, UnidentifiedImageError

from job.data.label import Found, check_label
from job.data.yolo_format import SUFFIXES, Layout, is_image

MIN_PX = 10

_SCHEMA = f"1, Pillow {PIL.__version__}"
"""What was found under another one is found again."""


def check_image(data: bytes) -> Found:
    """Check that an image can be decoded to its end, and that Ultralytics accepts it."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.verify()  # reads the checksums of a PNG, but makes it unusable
        with Image.open(io.BytesIO(data)) as opened:
            kind, (width, height) = str(opened.format).lower(), opened.size
            opened.draft("L", (1, 1))  # a JPEG is read to its end all the same, but not turned into pixels
            opened.load()
    except UnidentifiedImageError:
        return Found(((None, "unreadable", "is no image; replace it" if data else "is empty; replace it"),))
    except Exception as error:  # noqa: BLE001 -- decoders raise anything on broken data
        return Found(((None, "unreadable", f"cannot be decoded, {error}; replace it"),))
    if kind not in {*SUFFIXES, "jpeg2000"}:
        return Found(((None, "unreadable", f"is a {kind.upper()}, which Ultralytics does not read; convert it"),))
    if min(width, height) < MIN_PX:
        message = f"is {width} x {height} px, and Ultralytics takes none below {MIN_PX}; leave it out"
        return Found(((None, "small", message),))
    if kind == "jpeg" and not data.endswith(b"\xff\xd9"):
        return Found((), ("has bytes after the picture, for which Ultralytics will compress it anew before training",))
    return Found()


class Contents:
    """What is in the files of a dataset, read now or remembered.

    Args:
        layout: The dataset.
        cache_file: One that is absent or broken, or cannot be written, costs time and nothing else.
    """

    def __init__(self, layout: Layout, cache_file: Path | None) -> None:
        self.found: dict[str, Found] = {}
        self.digests: dict[str, str] = {}
        self._layout = layout
        self._cache_file = cache_file
        self._versions: dict[str, str] = {}
        self._known_files: dict[str, tuple[str, str]] = {}
        self._known_contents: dict[str, Found] = {}
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            self._recall()

    def read(self, paths: list[str], progress: Callable[[int, int], None]) -> None:
        """Find out what is in these files."""
        unread = []
        for path in paths:
            self._versions[path] = version = self._version(path)
            known, digest = self._known_files.get(path, ("", ""))
            if version and version == known and digest in self._known_contents:
                self.found[path], self.digests[path] = self._known_contents[digest], digest
            else:
                unread.append(path)
        try:
            # Threads, since Pillow decodes and hashlib hashes without the interpreter's lock.
            with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="ignore"):
                for path, (digest, found) in zip(unread, pool.map(self._read_file, unread), strict=True):
                    self.found[path] = found
                    if digest:
                        self.digests[path] = digest
                    progress(len(self.found), len(paths))
        finally:
            self._remember()

    def _rules(self, path: str) -> str:
        """Name what decides, beside its bytes, what is found in a file."""
        return "" if is_image(path) else f"{len(self._layout.names)} {self._layout.num_keypoint_columns} "

    def _version(self, path: str) -> str:
        """Name the state of a file; empty if it is none that can be read."""
        try:
            status = (self._layout.folder / path).stat()
        except OSError:
            return ""
        version = f"{self._rules(path)}{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_size}"
        return version if stat.S_ISREG(status.st_mode) else ""

    def _read_file(self, path: str) -> tuple[str, Found]:
        """Return digest and contents of a file."""
        try:
            data = (self._layout.folder / path).read_bytes() if self._versions[path] else None
        except OSError:
            data = None
        if data is None:
            return "", Found(((None, "unreadable", "is no file that can be read; replace it"),))
        digest = hashlib.sha256(self._rules(path).encode() + data).hexdigest()
        if (known := self._known_contents.get(digest)) is not None:
            return digest, known
        if is_image(path):
            return digest, check_image(data)
        return digest, check_label(data, len(self._layout.names), self._layout.num_keypoint_columns)

    def _recall(self) -> None:
        if self._cache_file is None:
            return
        remembered = json.loads(self._cache_file.read_bytes())
        if remembered["schema"] != _SCHEMA:
            return
        contents = {
            str(digest): Found(
                tuple(
                    (None if line is None else int(line), str(kind), str(message)) for line, kind, message in problems
                ),
                tuple(str(text) for text in notes),
                tuple((int(number), int(count)) for number, count in instances),
            )
            for digest, (problems, notes, instances) in remembered["contents"].items()
        }
        files = {str(path): (str(version), str(digest)) for path, (version, digest) in remembered["files"].items()}
        self._known_contents, self._known_files = contents, files

    def _remember(self) -> None:
        files = {path: (self._versions[path], digest) for path, digest in self.digests.items()}
        if self._cache_file is None or files == self._known_files:
            return
        contents = {digest: astuple(self.found[path]) for path, digest in self.digests.items()}
        fresh = self._cache_file.with_name(f"{self._cache_file.name}.{os.getpid()}")
        with suppress(OSError):
            fresh.write_text(json.dumps({"schema": _SCHEMA, "files": files, "contents": contents}), encoding="utf-8")
            fresh.replace(self._cache_file)
