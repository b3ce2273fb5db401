"""Scan of a dataset's images and labels: each read once, in parallel, and cached by content.

Guarantees that every image was decoded to its end, and that an absent or damaged cache costs time and nothing else.
"""

import hashlib
import stat
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import PIL
from pydantic import TypeAdapter, ValidationError

from job.datasets import image, labels
from job.datasets.files import UNREADABLE
from job.datasets.image import check_image, quiet_decoder
from job.datasets.labels import Findings, check_label
from job.datasets.layout import Layout, is_image
from job.datasets.shared_findings import SharedFindings
from job.storage.cache_file import CacheFile

NUM_CHANNELS = 3
"""Channels that Ultralytics reads by default."""

SCAN_CACHE = ".scan.sqlite"
"""Name of the cache in the folder of a dataset."""

_SCHEMA = f"6, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
"""Findings cached under another schema are not used."""

_ROW = TypeAdapter(tuple[str, str, Findings])
"""Of the cache, by path: version of the file, digest, findings."""


class DatasetScan:
    """Findings in the files of a dataset, from a cache or of other machines where a file or its bytes are known."""

    def __init__(
        self,
        layout: Layout,
        cache_file: Path | None,
        *,
        single_class: bool = False,
        shared: SharedFindings | None = None,
    ) -> None:
        self.findings: dict[str, Findings] = {}
        self.digests: dict[str, str] = {}
        self._layout = layout
        self._single_class = single_class
        self._shared = shared
        self._cache = None if cache_file is None else CacheFile(cache_file, _SCHEMA)
        self._cached: dict[str, tuple[str, str, Findings]] = {}
        for path, row in self._cache.read().items() if self._cache else ():
            with suppress(ValidationError):
                self._cached[path] = _ROW.validate_json(row)
        self._by_digest = {digest: findings for _, digest, findings in self._cached.values()}
        self._versions: dict[str, str] = {}

    def read(self, paths: list[str], progress: Callable[[int, int], None]) -> None:
        """Scan files, of which only those that are not in the cache are read."""
        unread = []
        for path in paths:
            self._versions[path] = version = self._version(path)
            cached_version, digest, findings = self._cached.get(path, ("", "", Findings()))
            if version and version == cached_version:
                self.findings[path], self.digests[path] = findings, digest
            else:
                unread.append(path)
        if unread and self._shared:
            self._by_digest = self._shared.read(_SCHEMA) | self._by_digest
        try:
            # Threads, since Pillow decodes and hashlib hashes without the interpreter's lock.
            with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="ignore"), quiet_decoder():
                for path, (digest, findings) in zip(unread, pool.map(self._read_file, unread), strict=True):
                    self.findings[path] = findings
                    if digest:
                        self.digests[path] = digest
                    progress(len(self.findings), len(paths))
        finally:
            self._save()
        if self._shared and any(self.digests[path] not in self._by_digest for path in unread if path in self.digests):
            self._shared.write(_SCHEMA, {digest: self.findings[path] for path, digest in self.digests.items()})

    def _rules(self, path: str) -> str:
        """Return everything but the bytes that decides the findings in a file, as text."""
        data = self._layout.data
        if is_image(path):
            # The default is left out, so that an image has its plain digest for any suffix.
            suffix = path.rpartition(".")[2].lower()
            decoder = f"{suffix} " if suffix in image.DECODED_BY_NAME else ""
            return decoder if data.num_channels == NUM_CHANNELS else f"{decoder}{data.num_channels} "
        return f"{len(data.names)} {data.num_keypoint_columns} {'single ' if self._single_class else ''}"

    def _version(self, path: str) -> str:
        """Return the version of a file, and of the rules it is checked by; empty if it is no regular file."""
        with suppress(OSError):
            status = (self._layout.folder / path).stat()
            if stat.S_ISREG(status.st_mode):
                times = f"{status.st_mtime_ns}-{status.st_ctime_ns}"
                return f"{self._rules(path)}{status.st_ino}-{times}-{status.st_size}"
        return ""

    def _read_file(self, path: str) -> tuple[str, Findings]:
        """Return digest and findings of a file; no digest if it cannot be read."""
        file, most = self._layout.folder / path, image.MAX_BYTES if is_image(path) else labels.MAX_BYTES
        try:
            size = file.stat().st_size
            if size > most:
                message = f"has {size:,} bytes, and at most {most:,} are read; leave it out"
                return "", Findings.of("large", message)
            data = file.read_bytes() if self._versions[path] else None
        except OSError:
            data = None
        if data is None:
            return "", Findings.of(*UNREADABLE)
        digest = hashlib.sha256(self._rules(path).encode() + data).hexdigest()
        if (known := self._by_digest.get(digest)) is not None:
            return digest, known
        yaml, single = self._layout.data, self._single_class
        if is_image(path):
            return digest, check_image(data, path, yaml.num_channels)
        return digest, check_label(data, len(yaml.names), yaml.num_keypoint_columns, single_class=single)

    def _save(self) -> None:
        rows = {path: (self._versions[path], digest, self.findings[path]) for path, digest in self.digests.items()}
        changed = {path: _ROW.dump_json(row).decode() for path, row in rows.items() if row != self._cached.get(path)}
        if self._cache:
            self._cache.write(changed | dict.fromkeys(self._cached.keys() - rows.keys()))
