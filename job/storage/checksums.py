"""CRC-32C and SHA-256 of files, and an index of checksums.

Guarantees that a checksum from the index belongs to a file of this inode, size and time of change, and that a lost or
damaged index costs time only. As with git's index, a file changed in place without any of the three is not noticed.
Knows nothing of stores.
"""

import base64
import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from job.storage.cache_file import CacheFile
from job.storage.regular_file import open_regular

CHUNK_BYTES = 1 << 20


def crc32c(data: bytes, before: int = 0) -> int:
    """Return the CRC-32C of `data`, appended to bytes whose CRC-32C is `before`."""
    value: int = google_crc32c.extend(before, data)
    return value


def read_crc32c(opened: BinaryIO) -> str:
    """Return the encoded CRC-32C of the rest of a file."""
    crc = 0
    for chunk in read_chunks(opened):
        crc = crc32c(chunk, crc)
    return encode_crc32c(crc)


def encode_crc32c(crc: int) -> str:
    """Encode a CRC-32C as Google Cloud Storage does: base64 of its four bytes in big-endian order."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def read_chunks(opened: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file, at most `CHUNK_BYTES` at a time."""
    while chunk := opened.read(CHUNK_BYTES):
        yield chunk


def file_version(status: os.stat_result) -> str:
    """Return the version of a file: inode, time of change and size."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


class ChecksumIndex:
    """Checksums of files by name and version, kept in a `CacheFile`; threads and processes may share one.

    With a prefix, it is read for the names that start so, and knows no others.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._cache, self._prefix = CacheFile(path), prefix
        self._unsaved: deque[tuple[str, str | None]] = deque()

    def known(self, name: str, version: str) -> str | None:
        """Return the checksum of a file at a version, if it is in the index."""
        known_version, checksum = self._entries.get(name, ("", ""))
        return checksum if known_version == version else None

    def checksum(self, name: str) -> str | None:
        """Return the checksum of a file at any version, if it is in the index."""
        return self._entries.get(name, ("", None))[1]

    def read(self, name: str, path: Path) -> tuple[os.stat_result, str]:
        """Return a file's status and checksum; reads the file only if its version is not in the index."""
        status = path.stat()
        if (known := self.known(name, file_version(status))) is not None:
            return status, known
        with open_regular(path, follow_links=True) as opened:
            status = os.fstat(opened.fileno())
            checksum = read_crc32c(opened)
            unchanged = file_version(os.fstat(opened.fileno())) == file_version(status)
        if unchanged:
            self.add(name, file_version(status), checksum)
        return status, checksum

    def add(self, name: str, version: str, checksum: str) -> None:
        """Add the checksum of a file at a version."""
        self._entries[name] = (version, checksum)
        self._unsaved.append((name, f"{version} {checksum}"))

    def remove(self, name: str) -> None:
        """Remove a file."""
        if self._entries.pop(name, None):
            self._unsaved.append((name, None))

    def names(self) -> list[str]:
        """Return the names of the files in the index."""
        return list(self._entries)

    def save(self) -> None:
        """Write added and removed entries, for the next process."""
        rows: dict[str, str | None] = {}
        with contextlib.suppress(IndexError):  # empty, perhaps because another thread saves too
            while True:
                name, row = self._unsaved.popleft()
                rows[name] = row
        if rows:
            self._cache.write(rows)

    @cached_property
    def _entries(self) -> dict[str, tuple[str, str]]:
        rows = ((name, row.partition(" ")) for name, row in self._cache.read(self._prefix).items())
        return {name: (version, checksum) for name, (version, _, checksum) in rows}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
