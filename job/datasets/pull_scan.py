"""Scan of a dataset while its files are pulled: in a process of its own, since a pull takes the interpreter's lock.

Guarantees that no pull fails with the scan, or waits for it for more than some seconds: files that are not scanned at
the end of the pull are left to the check, which reports what was found. ``python -m job.datasets.pull_scan`` is the
process.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from job.datasets.data_yaml import is_data_yaml, read_data_yaml
from job.datasets.layout import Layout, is_image, label_of
from job.datasets.scan import SCAN_CACHE, DatasetScan, decoding_pool
from job.storage.object_store import StoredObject
from job.training.cores import num_cores
from job.training.signals import notices_blocked

MIN_BYTES = 200_000_000
"""How much has to arrive: less is checked after the pull, in less time than the process takes to start and to end."""

SAVED_S = 5.0
"""How often findings are written to the cache."""

END_S = 10.0
"""How long the process may take for what it is at when the pull has ended."""

PROGRAM = ("-m", "job.datasets.pull_scan")

PACKAGE = Path(__file__).parents[1]


@contextmanager
def scan_arriving(
    folder: Path,
    files: Mapping[str, StoredObject],
    known_hashes: Callable[[], Mapping[str, str]],
    *,
    single_class: bool = False,
) -> Iterator[Callable[[str], None]]:
    """Scan images and labels of a dataset while its files are pulled, into the cache of the check that follows.

    Yields a function to call with the name of each file that has arrived, one call at a time. Files that come before
    the data file are left to the check.
    """
    folder = Path(os.path.realpath(folder))
    data, num_bytes = read_data_yaml(folder, files), 0
    images = set(filter(is_image, files))
    scanned = images | set(map(label_of, images))
    waiting: SimpleQueue[str | None] = SimpleQueue()
    decided = threading.Event()

    def arrived(name: str) -> None:
        nonlocal data, num_bytes
        if is_data_yaml(name):
            data = read_data_yaml(folder, files)
        elif name in scanned and data.content:
            waiting.put(name)
        num_bytes += files[name].size_bytes
        if num_bytes >= MIN_BYTES and data.content:
            decided.set()

    process: subprocess.Popen[bytes] | None = None

    def pass_on() -> None:
        nonlocal process
        decided.wait()
        if num_bytes >= MIN_BYTES and data.content:
            try:
                with suppress(OSError):  # it cannot be started, or was killed
                    process = _start()
                    _send(process, [[str(folder), data.name, single_class, dict(known_hashes())]])
                    _send(process, iter(waiting.get, None))
            finally:
                if process is not None:
                    process.communicate()

    with ThreadPoolExecutor(1) as pool:
        passed_on = pool.submit(pass_on)
        try:
            yield arrived
        finally:
            waiting.put(None)
            decided.set()
            _end(passed_on, lambda: process)


def _start() -> subprocess.Popen[bytes]:
    with notices_blocked():  # to the process group; the end of the pull ends it
        return subprocess.Popen(  # noqa: S603 -- this program itself
            [sys.executable, *PROGRAM],
            cwd=PACKAGE.parent,  # ``-m`` imports from there first, and not from where the user is
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what it could tell, the check tells
        )


def _send(process: subprocess.Popen[bytes], messages: Iterable[object]) -> None:
    """Write each message in a line; raises `OSError` if the process is gone."""
    if (pipe := process.stdin) is not None:
        for message in messages:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()


def _end(passed_on: "Future[None]", process: Callable[[], subprocess.Popen[bytes] | None]) -> None:
    """Wait for the process until a limit, then kill it, also if this is interrupted; the check meets its errors."""
    try:
        wait([passed_on], END_S)
    finally:
        if (started := process()) is not None:
            started.kill()


def scan_received(messages: Iterator[str]) -> None:
    """Scan files until the last message: after folder, data file, rules and known hashes, each is the name of one."""
    folder, data_yaml, single_class, known = json.loads(next(messages))
    layout = Layout(Path(folder), read_data_yaml(Path(folder), [data_yaml]))
    scan = DatasetScan(layout, layout.folder / SCAN_CACHE, single_class=single_class, known_hashes=lambda: known)
    waiting: SimpleQueue[str | None] = SimpleQueue()
    is_over, num_threads = False, max(1, num_cores() - 1)  # the pull needs one

    def read_waiting() -> None:
        saved_s = time.monotonic()
        for name in iter(waiting.get, None):
            if is_over:
                return
            scan.read_file(name)
            if time.monotonic() - saved_s >= SAVED_S:
                scan.save()
                saved_s = time.monotonic()

    with decoding_pool(num_threads) as pool:
        for _ in range(num_threads):  # a task for each file would add a fifth to the CPU time
            pool.submit(read_waiting)
        with suppress(json.JSONDecodeError):  # the process that pulls is gone
            for message in messages:
                waiting.put(json.loads(message))
        is_over = True
        for _ in range(num_threads):
            waiting.put(None)
    scan.save()


if __name__ == "__main__":
    scan_received(iter(sys.stdin))
