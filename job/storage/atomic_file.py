"""Atomic writes of fetched files: a file appears under its name whole, or not at all.

A process that is killed leaves a hidden ``*.part`` and nothing else. Knows nothing of where bytes come from.
"""

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from job.errors import MachineError

PART = re.compile(r"\.[0-9a-f]{16}\.part")
"""Names of files that are being written."""


def write_atomically(target: Path, chunks: Iterable[bytes]) -> None:
    """Write a file, which appears once the last chunk has come without an error; its parents are made.

    Raises:
        MachineError: If it cannot be written: no permission, a full disk.
        Exception: What getting the chunks raises.
    """
    # Paths as text, because thousands of files land in a row.
    part = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.part")  # noqa: PTH118, PTH120
    try:
        descriptor = _create(part)
        try:
            for chunk in chunks:
                _write(descriptor, chunk)
        finally:
            os.close(descriptor)
        os.replace(part, target)  # noqa: PTH105
    except BaseException as error:
        with suppress(OSError):
            Path(part).unlink()
        if isinstance(error, OSError):
            raise MachineError(
                f"{target}: cannot be written, {error.strerror}; free some space, or choose another folder"
            ) from error
        raise


def leftovers(folder: Path) -> list[Path]:
    """Return the partial files that killed processes have left below a folder."""
    return [path for path in folder.rglob(".*.part") if PART.fullmatch(path.name)]


def _create(part: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(part, flags, 0o666)
    except FileNotFoundError:
        Path(part).parent.mkdir(parents=True, exist_ok=True)
        return os.open(part, flags, 0o666)


def _write(descriptor: int, data: bytes) -> None:
    num_written = os.write(descriptor, data)
    while num_written < len(data):
        num_written += os.write(descriptor, memoryview(data)[num_written:])
