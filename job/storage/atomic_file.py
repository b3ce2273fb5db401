"""Atomic writes: a file appears under its name whole, or not at all.

A killed process leaves a hidden ``*.part`` and nothing else.
"""

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from job.errors import MachineError

PART = re.compile(r"\.[0-9a-f]{16}\.part")
"""Names of partial files."""


def write_atomically(target: Path, chunks: Iterable[bytes]) -> None:
    """Write chunks to a partial file, then rename it to `target`; makes its parents.

    Raises `MachineError` if it cannot be written (no permission, a full disk), and any error of `chunks`.
    """
    # Paths as text, because thousands of files are written in a row.
    part = os.path.join(os.path.dirname(target), partial_name())  # noqa: PTH118, PTH120 -- fast
    try:
        descriptor = _create(part)
        try:
            for chunk in chunks:
                _write(descriptor, chunk)
        finally:
            os.close(descriptor)
        os.replace(part, target)  # noqa: PTH105 -- fast
    except BaseException as error:
        with suppress(OSError):
            Path(part).unlink()
        if isinstance(error, OSError):
            raise MachineError(
                f"{target}: cannot be written, {error.strerror}; free some space, or choose another folder"
            ) from error
        raise


def partial_name() -> str:
    """Return a new name for a partial file."""
    return f".{secrets.token_hex(8)}.part"


def partial_files(folder: Path) -> list[Path]:
    """Return the partial files below a folder, left by killed processes."""
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
