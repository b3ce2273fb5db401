"""CRC-32C of files, and an index that remembers them.

Guarantees that a checksum out of the index belongs to a file of this inode, size and time of change, and that an index
that is lost, cut or damaged costs time and nothing else. As with git's index, a file that is changed in place without
any of the three is not noticed. Knows nothing of stores.
"""

import base64
import contextlib
import hashlib
import os
import secrets
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from job.storage.regular_file import open_regular, read_regular

CHUNK_BYTES = 1 << 20

NUM_SPARE_LINES = 1000
"""How many outdated lines an index may have, beside one for each that counts."""


def crc32c(data: bytes, before: int = 0) -> int:
    """Return the CRC-32C of `data`, or that of the bytes whose own is `before` and `data` after them."""
    value: int = google_crc32c.extend(before, data)
    return value


def encode(crc: int) -> str:
    """Write a CRC-32C as Google Cloud Storage does: base64 of its four bytes in big-endian order."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def chunks_of(opened: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a file, at most `CHUNK_BYTES` at a time."""
    while chunk := opened.read(CHUNK_BYTES):
        yield chunk


def version_of(status: os.stat_result) -> str:
    """Name a state of a file by its inode, time of change and size."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


class ChecksumIndex:
    """The checksums of files by name, in a file of lines to which threads and processes may append.

    Args:
        path: Where `save` keeps them; its folder may be absent or unwritable, then nothing is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unsaved: deque[tuple[str, str, str]] = deque()

    def known(self, name: str, version: str) -> str | None:
        """Return what is remembered of a file at a version, if anything is."""
        remembered, checksum = self._entries.get(name, ("", ""))
        return checksum if remembered == version else None

    def checksum(self, name: str) -> str | None:
        """Return the checksum that is remembered of a file at whatever version, if there is one."""
        return self._entries.get(name, ("", None))[1]

    def look(self, name: str, path: Path) -> tuple[os.stat_result, str]:
        """Return a file's status and checksum; a file that is remembered as it is is not read.

        Raises:
            OSError: If it cannot be read.
        """
        status = path.stat()
        if (remembered := self.known(name, version_of(status))) is not None:
            return status, remembered
        with open_regular(path, follow_links=True) as opened:
            status, crc = os.fstat(opened.fileno()), 0
            for chunk in chunks_of(opened):
                crc = crc32c(chunk, crc)
            unchanged = version_of(os.fstat(opened.fileno())) == version_of(status)
        if unchanged:
            self.remember(name, version_of(status), encode(crc))
        return status, encode(crc)

    def remember(self, name: str, version: str, checksum: str) -> None:
        """Note the checksum of a file at a version."""
        self._entries[name] = (version, checksum)
        self._unsaved.append((name, version, checksum))

    def forget(self, name: str) -> None:
        """Drop a file."""
        if self._entries.pop(name, None):
            self._unsaved.append((name, "", ""))

    def names(self) -> list[str]:
        """Return the names of the files that are remembered."""
        return list(self._entries)

    def save(self) -> None:
        """Keep what was remembered and forgotten, for the next process."""
        lines = bytearray()
        with contextlib.suppress(IndexError):  # none left, perhaps because another thread saves too
            while True:
                lines += _line(*self._unsaved.popleft())
        if lines:
            with contextlib.suppress(OSError), open_regular(self._path, append=True) as opened:
                opened.write(lines)

    @cached_property
    def _entries(self) -> dict[str, tuple[str, str]]:
        try:
            lines = read_regular(self._path).splitlines()
        except OSError:
            return {}
        entries: dict[str, tuple[str, str]] = {}
        for name, version, checksum in filter(None, map(_parse, lines)):
            entries[name] = (version, checksum)
        entries = {name: entry for name, entry in entries.items() if entry != ("", "")}
        if len(lines) > 2 * len(entries) + NUM_SPARE_LINES:
            self._rewrite(entries)
        return entries

    def _rewrite(self, entries: dict[str, tuple[str, str]]) -> None:
        """Keep only what counts; a line that another process appends at this moment may be lost."""
        fresh = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            fresh.write_bytes(b"".join(_line(name, *entry) for name, entry in entries.items()))
            fresh.replace(self._path)


def _line(name: str, version: str, checksum: str) -> bytes:
    body = f"{checksum}\t{version}\t{name}".encode()
    return b"%s\t%s\n" % (encode(crc32c(body)).encode(), body)


def _parse(line: bytes) -> tuple[str, str, str] | None:
    """Take a line apart, unless it is not as it was written."""
    seal, _, body = line.partition(b"\t")
    if encode(crc32c(body)).encode() != seal:
        return None
    try:
        checksum, version, name = body.decode().split("\t")
    except ValueError:  # not of this format
        return None
    return name, version, checksum


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
