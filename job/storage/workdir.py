"""A folder for one attempt's files, which no other attempt on the machine uses.

Guarantees that nothing is left of an attempt that ended, and that what a killed one left is removed by the next.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from job.errors import MachineError

LOCK = ".lock"
"""In the folder of an attempt; held while it lives."""

NAME = re.compile(r".+-[0-9a-f]{8}")
"""Of the folder of an attempt."""


@contextlib.contextmanager
def folder_of_its_own(workdir: Path, owner: str) -> Iterator[Path]:
    """Work in a folder under ``workdir`` that is named after its owner and gone afterwards."""
    runs = workdir / "runs"
    name = f"{owner}-{secrets.token_hex(4)}"
    with explained(workdir):
        runs.mkdir(parents=True, exist_ok=True)
        for left in runs.glob("[!.]*"):
            if not (NAME.fullmatch(left.name) and (left / LOCK).is_file()):
                continue  # a folder of the user's own
            with locked(left / LOCK) as free:
                if free:  # whoever made it was killed: the system takes the locks of a process that ends
                    shutil.rmtree(left, ignore_errors=True)
        unlocked = runs / f".{name}"
        unlocked.mkdir()
        with locked(unlocked / LOCK):
            folder = unlocked.rename(runs / name)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


def require_writable(folder: Path) -> None:
    """Check that files can be made in a folder, and make it if it is not there.

    Raises:
        MachineError: If they cannot.
    """
    probe = folder / f".probe-{os.getpid()}"
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()


def require_space(folder: Path, needed_bytes: int, spare_bytes: int) -> None:
    """Check that a folder has room until it holds so many bytes, with some to spare.

    Raises:
        MachineError: If it has not, with both figures.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    missing = max(needed_bytes - there, 0) + spare_bytes
    free = shutil.disk_usage(folder).free
    if free < missing:
        raise MachineError(
            f"{folder}: the disk is too full, {missing / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; free "
            "some space, or pass another --workdir"
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a file's lock; false if another process holds it. The file is made if its folder exists."""
    with contextlib.ExitStack() as stack:
        held = False
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
            opened = stack.enter_context(path.open("w"))
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        yield held


@contextlib.contextmanager
def explained(workdir: Path) -> Iterator[None]:
    """Turn errors of the file system into advice."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise MachineError(f"{workdir}: the disk is full; free some space, or pass another --workdir") from error
        to_do = "pass a --workdir that this user can write to" if error.errno in NOT_WRITABLE else "see to the machine"
        raise MachineError(f"{error.filename or workdir}: {error.strerror or error}; {to_do}") from error
