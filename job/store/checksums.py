"""CRC-32C of files, remembered by size, time and inode as git's index does, so that nothing is read twice.

Losing the memory costs time and nothing else. A file that changes while keeping all three is not noticed here; what
must be certain is read.
"""

import base64
import contextlib
import json
import os
import tempfile
import threading
from pathlib import Path

import google_crc32c

CHUNK_BYTES = 1 << 20


def crc32c_of_bytes(data: bytes) -> str:
    """Return the CRC-32C of bytes, base64 in big-endian order."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def crc32c_of_file(path: Path) -> str:
    """Return the CRC-32C of a file's content, base64 in big-endian order."""
    value = 0
    with path.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            value = google_crc32c.extend(value, chunk)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


class ChecksumIndex:
    """The remembered checksums of the files below a folder; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError):
            loaded = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(loaded, dict):
                self._known = loaded

    def names(self) -> list[str]:
        """Return the files that were remembered."""
        return list(self._known)

    def crc32c(self, name: str, path: Path) -> str:
        """Return a file's checksum, reading it only if it is not known as it is."""
        stat = path.stat()
        state: list[int | str] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._known.get(name)
        if isinstance(known, list) and len(known) == 4 and known[:3] == state:  # noqa: PLR2004 -- three and the sum
            return str(known[3])
        found = crc32c_of_file(path)
        with self._lock:
            self._known[name] = [*state, found]
            self._changed = True
        return found

    def remember(self, name: str, path: Path, crc32c: str) -> None:
        """Note the checksum of a file that was verified while it was written."""
        stat = path.stat()
        with self._lock:
            self._known[name] = [stat.st_size, stat.st_mtime_ns, stat.st_ino, crc32c]
            self._changed = True

    def forget(self, name: str) -> None:
        """Drop a file."""
        with self._lock:
            self._changed |= self._known.pop(name, None) is not None

    def save(self) -> None:
        """Keep what is known for the next process, if there is room for it."""
        with self._lock:
            if not self._changed:
                return
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f"{self._path.name}.")
                with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                    json.dump(self._known, opened)
                Path(temporary).replace(self._path)
                self._changed = False
