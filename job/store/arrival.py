"""How fetched bytes land on this machine: a file appears under its name whole, or not at all.

A process that is killed leaves a hidden ``*.part`` and nothing else. Knows nothing of where bytes come from.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from job.errors import MachineError


@contextmanager
def arriving(target: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that writes; `target` appears when the block ends well, and its parents are made.

    Raises:
        MachineError: If it cannot be written: no permission, a full disk.
    """
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with _explained(target):
            opened = os.fdopen(_create(part), "wb", buffering=0)

        def write(data: bytes) -> None:
            with _explained(target):
                left = memoryview(data)
                while left:
                    left = left[opened.write(left) :]

        with opened:
            yield write
        with _explained(target):
            part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def is_stale_part(name: str) -> bool:
    """Tell whether a file of this name was left by a process that was killed."""
    return name.startswith(".") and name.endswith(".part")


def _create(part: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(part, flags, 0o666)
    except FileNotFoundError:
        part.parent.mkdir(parents=True, exist_ok=True)
        return os.open(part, flags, 0o666)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{target}: cannot be written, {error.strerror}; free some space, or choose another folder"
        ) from error
