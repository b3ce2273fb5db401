"""The machine at hand: what it is, and whether it can be worked on."""

import contextlib
import importlib.metadata
import os
import platform
import socket
import time
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")
"""What decides the bits, besides the code of the job."""


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
