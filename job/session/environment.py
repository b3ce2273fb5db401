"""This machine and process: cores, threads, library versions, age."""

import contextlib
import importlib.metadata
import os
import platform
import re
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.training.cores import num_cores

LIBRARIES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")
"""The libraries that decide the bits of a result."""


def num_threads() -> int:
    """Return the number of torch's threads on the CPU: ``OMP_NUM_THREADS``, else one for each core."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else num_cores()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def claim_fields() -> dict[str, Any]:
    """Return the machine and process fields of an attempt's claim."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cloud_job": os.environ.get("JOB_CLOUD_JOB"),  # the Batch job that this is an attempt of
        "machine": f"{platform.system()} {platform.machine()}, {num_cores()} cores",
        "booted_at": booted_at(),
        "image_pull_s": _image_pull_s(),
    }


def booted_at() -> str | None:
    """Return the start of this machine's kernel, also inside of a container; None where the system does not say."""
    try:
        found = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return datetime.fromtimestamp(int(found[1]), UTC).isoformat() if found else None


def _image_pull_s() -> float | None:
    """Return the seconds of pulling the image, which the VM's boot script measures; None if it has not."""
    given = os.environ.get("JOB_IMAGE_PULL_S", "")
    return float(given) if given.isdecimal() else None


def process_age_s() -> float:
    """Return the seconds since this process was started; 0 where the system does not know."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # starttime of proc(5)
    except OSError:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
