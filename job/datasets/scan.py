"""Scan of a dataset's images and labels: each read once, in parallel, and cached by content.

Guarantees that every image was decoded to its end, here or where its hash is known from, and that an absent or damaged
cache costs time and nothing else.
"""

import hashlib
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from pydantic import TypeAdapter, ValidationError

from job.datasets import image, labels
from job.datasets.files import UNREADABLE, state_of
from job.datasets.image import check_image, quiet_decoder
from job.datasets.labels import Findings, check_label
from job.datasets.layout import Layout, is_image
from job.storage.cache_file import CacheFile
from job.training.cores import num_cores

NUM_CHANNELS = 3
"""Channels that Ultralytics reads by default."""

SCAN_CACHE = ".scan.sqlite"
"""Name of the cache in the folder of a dataset."""

SCHEMA = f"8, {image.DECODER}"
"""Findings cached under another schema are not used."""

_ROW = TypeAdapter(tuple[str, str, Findings])
"""Of the cache, by path: version of the file, digest, findings."""


class DatasetScan:
    """Findings in the files of a dataset, from a cache, if there is one, where a file or its bytes are known."""

    def __init__(
        self,
        layout: Layout,
        cache_file: Path | None,
        *,
        single_class: bool = False,
        known_hashes: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.findings: dict[str, Findings] = {}
        self.digests: dict[str, str] = {}
        self._layout = layout
        self._single_class = single_class
        self._known_hashes, self._asking = known_hashes, threading.Lock()
        self._cache = None if cache_file is None else CacheFile(cache_file, SCHEMA)
        self._cached: dict[str, tuple[str, str, Findings]] = {}
        for path, row in self._cache.read().items() if self._cache else ():
            with suppress(ValidationError):
                self._cached[path] = _ROW.validate_json(row)
        self._by_digest = {digest: findings for _, digest, findings in self._cached.values()}
        self._versions: dict[str, str] = {}
        self._unsaved: SimpleQueue[str] = SimpleQueue()

    def read(self, paths: list[str], progress: Callable[[int, int], None]) -> None:
        """Scan files, of which only those that are not in the cache are read, and only unknown images decoded."""
        unread = []
        for path in paths:
            version = self._version(path, self._status(path))
            cached_version, digest, findings = self._cached.get(path, ("", "", Findings()))
            if version and version == cached_version:
                self._versions[path], self.findings[path], self.digests[path] = version, findings, digest
            else:
                unread.append(path)
        try:
            with decoding_pool(num_cores()) as pool:
                for path, scanned in zip(unread, pool.map(self._scan, unread), strict=True):
                    self._add(path, *scanned)
                    progress(len(self.findings), len(paths))
        finally:
            self.save()
            if self._cache:
                self._cache.write(dict.fromkeys(self._cached.keys() - self.digests.keys()))

    def read_file(self, path: str) -> None:
        """Scan one file that is not in the cache, in any thread."""
        self._add(path, *self._scan(path))

    def save(self) -> None:
        """Add to the cache what was found since the last call."""
        paths = []
        with suppress(Empty):
            while True:
                paths.append(self._unsaved.get_nowait())
        rows = {path: (self._versions[path], self.digests[path], self.findings[path]) for path in paths}
        if self._cache:
            self._cache.write({path: _ROW.dump_json(row).decode() for path, row in rows.items()})

    def _scan(self, path: str) -> tuple[str, str, Findings]:
        status = self._status(path)
        return self._version(path, status), *self._read_file(path, status)

    def _add(self, path: str, version: str, digest: str, findings: Findings) -> None:
        self._versions[path], self.findings[path] = version, findings
        if digest:
            self.digests[path] = digest
            self._unsaved.put(path)

    def _rules(self, path: str) -> str:
        """Return everything but the bytes that decides the findings in a file, as text."""
        data = self._layout.data
        if is_image(path):
            # The default is left out, so that an image has its plain digest for any suffix.
            suffix = path.rpartition(".")[2].lower()
            decoder = f"{suffix} " if suffix in image.DECODED_BY_NAME else ""
            return decoder if data.num_channels == NUM_CHANNELS else f"{decoder}{data.num_channels} "
        return f"{len(data.names)} {data.num_keypoint_columns} {'single ' if self._single_class else ''}"

    def _status(self, path: str) -> os.stat_result | None:
        """Return the status of a file; None if it is no regular one."""
        with suppress(OSError):
            status = os.stat(f"{self._layout.folder}/{path}")  # noqa: PTH116 -- as text: thousands are named in a row
            if stat.S_ISREG(status.st_mode):
                return status
        return None

    def _version(self, path: str, status: os.stat_result | None) -> str:
        """Return the version of a file, and of the rules it is checked by; empty if it is no regular file."""
        return f"{self._rules(path)}{state_of(status)}" if status else ""

    def _read_file(self, path: str, status: os.stat_result | None) -> tuple[str, Findings]:
        """Return digest and findings of a file; no digest if it cannot be read."""
        most = image.MAX_BYTES if is_image(path) else labels.MAX_BYTES
        if status is None:
            return "", Findings.of(*UNREADABLE)
        if status.st_size > most:
            message = f"has {status.st_size:,} bytes, and at most {most:,} are read; leave it out"
            return "", Findings.of("large", message)
        try:
            with open(f"{self._layout.folder}/{path}", "rb", buffering=0) as opened:  # noqa: PTH123 -- as text, too
                data = opened.read()
        except OSError:
            return "", Findings.of(*UNREADABLE)
        digest = hashlib.sha256(self._rules(path).encode() + data).hexdigest()
        if (known := self._by_digest.get(digest)) is not None:
            return digest, known
        yaml, single = self._layout.data, self._single_class
        if is_image(path):
            with self._asking:
                known_hash = self._known_hashes().get(digest)
            return digest, check_image(data, path, yaml.num_channels, known_hash=known_hash)
        return digest, check_label(data, len(yaml.names), yaml.num_keypoint_columns, single_class=single)


@contextmanager
def decoding_pool(num_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads, since OpenCV decodes and hashlib hashes without the interpreter's lock; decoders warn of nothing."""
    with ThreadPoolExecutor(num_threads) as pool, warnings.catch_warnings(action="ignore"), quiet_decoder():
        yield pool
