"""What is in the images and labels of a dataset: read once, in parallel, and remembered by content.

Guarantees that every image was decoded to its end, and that a memory that is absent or broken costs time and nothing
else.
"""

import hashlib
import json
import os
import stat
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import cv2
import PIL

from job.datasets import image, labels
from job.datasets.files import UNREADABLE
from job.datasets.image import check_picture, quiet_decoder
from job.datasets.labels import Found, check_label
from job.datasets.layout import Layout, is_image
from job.storage.regular_file import read_regular

NUM_CHANNELS = 3
"""What Ultralytics reads of a picture if nothing else is asked for."""

_SCHEMA = f"3, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
"""What was found under another one is found again."""


class Contents:
    """What is in the files of a dataset, read now or remembered.

    Args:
        layout: The dataset.
        cache_file: One that is absent or broken, or cannot be written, costs time and nothing else.
        single_class: All classes count as class 0.
    """

    def __init__(self, layout: Layout, cache_file: Path | None, *, single_class: bool = False) -> None:
        self.found: dict[str, Found] = {}
        self.digests: dict[str, str] = {}
        self._layout = layout
        self._single_class = single_class
        self._cache_file = cache_file
        self._versions: dict[str, str] = {}
        self._known_files: dict[str, tuple[str, str]] = {}
        self._known_contents: dict[str, Found] = {}
        with suppress(OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
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
            with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="ignore"), quiet_decoder():
                for path, (digest, found) in zip(unread, pool.map(self._read_file, unread), strict=True):
                    self.found[path] = found
                    if digest:
                        self.digests[path] = digest
                    progress(len(self.found), len(paths))
        finally:
            self._remember()

    def _rules(self, path: str) -> str:
        """Name what decides, beside its bytes, what is found in a file."""
        data = self._layout.data
        if is_image(path):
            # The usual is not named, so that a picture has its plain digest whatever its name ends in.
            suffix = path.rpartition(".")[2].lower()
            decoder = f"{suffix} " if suffix in image.DECODED_BY_NAME else ""
            return decoder if data.num_channels == NUM_CHANNELS else f"{decoder}{data.num_channels} "
        return f"{len(data.names)} {data.num_keypoint_columns} {'single ' if self._single_class else ''}"

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
            most = image.MAX_BYTES if is_image(path) else labels.MAX_BYTES
            size = (self._layout.folder / path).stat().st_size
            if size > most:
                return "", Found(((None, "large", f"has {size:,} bytes, and at most {most:,} are read; leave it out"),))
            data = (self._layout.folder / path).read_bytes() if self._versions[path] else None
        except OSError:
            data = None
        if data is None:
            return "", Found(((None, *UNREADABLE),))
        digest = hashlib.sha256(self._rules(path).encode() + data).hexdigest()
        if (known := self._known_contents.get(digest)) is not None:
            return digest, known
        yaml = self._layout.data
        if is_image(path):
            return digest, check_picture(data, path, yaml.num_channels)
        single = self._single_class
        return digest, check_label(data, len(yaml.names), yaml.num_keypoint_columns, single_class=single)

    def _recall(self) -> None:
        if self._cache_file is None:
            return
        remembered = json.loads(read_regular(self._cache_file))
        if remembered["schema"] != _SCHEMA:
            return
        contents = {
            str(digest): Found(
                tuple(
                    (None if line is None else int(line), str(kind), str(message)) for line, kind, message in problems
                ),
                tuple(str(text) for text in notes),
                tuple((int(number), int(count)) for number, count in instances),
                has_area=bool(has_area),
            )
            for digest, (problems, notes, instances, has_area) in remembered["contents"].items()
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
