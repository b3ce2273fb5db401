"""Scan of a dataset while its files are pulled: in a process of its own, since a pull takes the interpreter's lock.

Guarantees that no pull waits for the scan, or fails with it: files that are not scanned at the end of the pull are left
to the check, which reports what was found.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from job.datasets.data_yaml import DataYaml, is_data_yaml, read_data_yaml
from job.datasets.layout import Layout, is_image, label_of
from job.datasets.scan import SCAN_CACHE, DatasetScan, decoding_pool
from job.storage.object_store import StoredObject
from job.training.cores import num_cores
from job.training.signals import notices_blocked

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MIN_BYTES = 50_000_000
"""How much has to arrive: less is checked after the pull, in less time than the process takes to start."""

NUM_SAVED = 2_000
"""Findings that are written to the cache at once."""


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
        if num_bytes >= MIN_BYTES:
            decided.set()

    def pass_on() -> None:
        decided.wait()
        if num_bytes >= MIN_BYTES and (first := waiting.get()) is not None:
            names = chain([first], iter(waiting.get, None))
            _scan_in_process(names, known_hashes, folder, data, single_class=single_class)

    with ThreadPoolExecutor(1) as pool:
        passed_on = pool.submit(pass_on)
        try:
            yield arrived
        finally:
            waiting.put(None)
            decided.set()
            passed_on.result()


def _scan_in_process(
    names: Iterator[str],
    known_hashes: Callable[[], Mapping[str, str]],
    folder: Path,
    data: DataYaml,
    *,
    single_class: bool,
) -> None:
    """Scan files until the last name; a process that cannot be started, or is killed, scans no more."""
    spawning = get_context("spawn")
    receiver, sender = spawning.Pipe(duplex=False)
    process = spawning.Process(
        target=scan_received, args=(receiver, folder, data), kwargs={"single_class": single_class}
    )
    with sender, suppress(OSError):
        with receiver, notices_blocked():
            process.start()
        sender.send(known_hashes())
        for name in names:
            sender.send(name)
    if process.pid is not None:
        process.join()


def scan_received(receiver: "Connection[None, Any]", folder: Path, data: DataYaml, *, single_class: bool) -> None:
    """Scan files whose names are received, after the known hashes, until the sender is closed or its process gone."""
    waiting: SimpleQueue[str | None] = SimpleQueue()
    received = _received(receiver)
    known: Mapping[str, str] = next(received, {})
    scan = DatasetScan(Layout(folder, data), folder / SCAN_CACHE, single_class=single_class, known_hashes=lambda: known)
    is_over, num_threads = False, max(1, num_cores() - 1)  # the pull needs one

    def read_waiting() -> None:
        for number, name in enumerate(iter(waiting.get, None), 1):
            if is_over:
                return
            scan.read_file(name)
            if number % NUM_SAVED == 0:
                scan.save()

    with decoding_pool(num_threads) as pool:
        for _ in range(num_threads):  # a task for each file would add a fifth to the CPU time
            pool.submit(read_waiting)
        for name in received:
            waiting.put(name)
        is_over = True
        for _ in range(num_threads):
            waiting.put(None)
    scan.save()


def _received(receiver: "Connection[None, Any]") -> Iterator[Any]:
    with suppress(EOFError, OSError):
        while True:
            yield receiver.recv()
