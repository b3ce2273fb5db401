"""Working folder: one locked folder for each attempt, checks of permissions and disk space.

Guarantees that no two attempts share a folder, that an attempt which ends leaves nothing, and that the next one removes
the folder of a killed one.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from job.errors import MachineError

LOCK = ".lock"
"""Lock file in the folder of an attempt, held until the attempt ends."""

NAME = re.compile(r".+-[0-9a-f]{8}")
"""Name of the folder of an attempt."""


@contextlib.contextmanager
def attempt_folder(workdir: Path, owner: str) -> Iterator[Path]:
    """Make a folder below ``workdir/runs``, named after its owner; remove it afterwards."""
    runs = workdir / "runs"
    name = f"{owner}-{secrets.token_hex(4)}"
    with translated_errors(workdir), contextlib.ExitStack() as held:
        runs.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(runs):
            for left in runs.iterdir():
                is_begun = left.name.startswith(".")  # it has no lock yet, and is of a process that was killed
                if NAME.fullmatch(left.name) and (is_begun or (left / LOCK).is_file()):  # else the user's
                    with locked(left / LOCK) as free:
                        if free:  # its process was killed: the system releases its locks
                            shutil.rmtree(left, ignore_errors=True)
            begun = runs / f".{name}"
            begun.mkdir()
            held.enter_context(locked(begun / LOCK))
            folder = begun.rename(runs / name)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "the disk is full: free some space, or pass another --workdir"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT),
        "pass a --workdir that this user can write to",
    ),
}


def require_writable(folder: Path) -> None:
    """Make a folder if it does not exist; raises `MachineError` if it is not writable."""
    probe = folder / f".probe-{os.getpid()}"
    with translated_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()


def require_space(
    folder: Path, needed_bytes: int, spare_bytes: int, make_room: Callable[[int], None] = lambda _num_bytes: None
) -> None:
    """Raise `MachineError` unless the disk has room until a folder holds `needed_bytes`, and for `spare_bytes`.

    `make_room` is called first, with the bytes that have to be free.
    """
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    missing = max(needed_bytes - present, 0) + spare_bytes
    make_room(missing)
    free = shutil.disk_usage(folder).free
    if free < missing:
        raise MachineError(
            f"{folder}: the disk is too full, {missing / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; free "
            "some space, or pass another --workdir"
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file; yield false if another process holds it. Creates the file if its folder exists."""
    with contextlib.ExitStack() as stack:
        held = False
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
            opened = stack.enter_context(path.open("w"))
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        yield held


@contextlib.contextmanager
def translated_errors(workdir: Path) -> Iterator[None]:
    """Translate `OSError` into `MachineError`, with advice."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "correct that, or pass another --workdir")
        raise MachineError(
            f"{error.filename or workdir}: cannot be used, {error.strerror or error}; {advice}"
        ) from error
