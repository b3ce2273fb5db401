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
def arriving(target: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes; `target` appears when the block ends well, and its parents are made.

    Raises:
        MachineError: If it cannot be written: no permission, a full disk.
    """
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        descriptor = _create(part)
    except OSError as error:
        raise _refusal(target, error) from error

    def write(data: bytes) -> None:
        try:
            num_written = os.write(descriptor, data)
            while num_written < len(data):
                num_written += os.write(descriptor, memoryview(data)[num_written:])
        except OSError as error:
            raise _refusal(target, error) from error

    try:
        try:
            yield write
        finally:
            os.close(descriptor)
        try:
            part.replace(target)
        except OSError as error:
            raise _refusal(target, error) from error
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def leftovers(folder: Path) -> list[Path]:
    """Return what processes that were killed have left below a folder."""
    return list(folder.rglob(".*.part"))


def _create(part: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(part, flags, 0o666)
    except FileNotFoundError:
        part.parent.mkdir(parents=True, exist_ok=True)
        return os.open(part, flags, 0o666)


def _refusal(target: Path, error: OSError) -> MachineError:
    return MachineError(f"{target}: cannot be written, {error.strerror}; free some space, or choose another folder")
