"""The machine at hand: what it is, and whether it can be worked on."""

import contextlib
import errno
import fcntl
import importlib.metadata
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from job.errors import MachineError

LIBRARIES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")
"""What decides the bits, besides the code of the job."""

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads() -> int:
    """Return how many threads torch is to use on the CPU: what ``OMP_NUM_THREADS`` says, else one for each core."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) > 0 else num_cores()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def about() -> dict[str, Any]:
    """Return what an attempt says of its machine and process."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cloud_job": os.environ.get("JOB_CLOUD_JOB"),  # the Batch job that this is an attempt of
        "machine": f"{platform.system()} {platform.machine()}, {num_cores()} cores",
    }


def process_age_s() -> float:
    """Return how long ago this process was started, in seconds; 0 where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # starttime of proc(5)
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


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
