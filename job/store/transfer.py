"""Whole folders to and from a store, in parallel, verified, and only what is not there yet.

Guarantees that after a pull the folder holds exactly the listed objects with their checksums (files that never came
from the store are left alone), that a cut transfer goes on where it was cut, and that no name leads out of the folder.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.store import Store, StoredObject
from job.store.checksums import ChecksumIndex
from job.store.keys import file_below

INDEX = ".pulled.json"


@dataclass(frozen=True, slots=True)
class Done:
    """How far a transfer has come."""

    num_objects: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a transfer did."""

    folder: Path
    num_total: int
    num_transferred: int
    bytes_transferred: int


def pull(
    store: Store,
    prefix: str,
    folder: Path,
    objects: Sequence[StoredObject],
    on_progress: Callable[[Done], None] = lambda _done: None,
) -> Transferred:
    """Make a folder equal to the objects below a prefix.

    Args:
        store: Where they are.
        prefix: Ends in ``/``; keys without it are the names in the folder.
        folder: Made if it is not there.
        objects: From ``store.list(prefix, checksums=True)``.
        on_progress: Called from any thread, one call at a time.

    Raises:
        StoreError: If the store fails; complete files stay for the next time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = ChecksumIndex(folder / INDEX)
    targets = {stored.key.removeprefix(prefix): stored for stored in objects}
    paths = {name: file_below(folder, name) for name in targets}
    for name in set(index.names()) - set(targets):
        file_below(folder, name).unlink(missing_ok=True)
        index.forget(name)
    for leftover in folder.rglob("*.part"):
        leftover.unlink()
    missing = [
        (stored, paths[name])
        for name, stored in targets.items()
        if not (
            paths[name].is_file()
            and not paths[name].is_symlink()
            and paths[name].stat().st_size == stored.size_bytes
            and index.crc32c(name, paths[name]) == stored.crc32c
        )
    ]
    counter = _Counter(on_progress, start=_size(objects) - _size([stored for stored, _ in missing]))

    def on_done(stored: StoredObject) -> None:
        name = stored.key.removeprefix(prefix)
        index.remember(name, paths[name], str(stored.crc32c))
        counter.add(stored)

    try:
        store.get_many(missing, on_done)
    finally:
        index.save()
    return Transferred(folder, len(targets), len(missing), _size([stored for stored, _ in missing]))


def push(
    folder: Path, names: Sequence[str], store: Store, prefix: str, on_progress: Callable[[Done], None] = lambda _done: None
) -> Transferred:
    """Store files of a folder below a prefix, those that are not there with the same bytes.

    Args:
        folder: Where the files are.
        names: Their names in it, ``/``-separated.
        store: Where they go.
        prefix: Ends in ``/``.
        on_progress: As in `pull`.

    Raises:
        StoreError: If the store fails; complete objects stay for the next time.
    """
    there = {stored.key: stored.crc32c for stored in store.list(prefix, checksums=True)}
    index = ChecksumIndex(folder / INDEX)
    paths = {name: file_below(folder, name) for name in names}
    missing = [name for name, path in paths.items() if there.get(prefix + name) != index.crc32c(name, path)]
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    counter = _Counter(on_progress, start=sum(sizes.values()) - sum(sizes[name] for name in missing))
    store.put_many(((paths[name], prefix + name) for name in missing), counter.add)
    return Transferred(folder, len(paths), len(missing), sum(sizes[name] for name in missing))


class _Counter:
    def __init__(self, on_progress: Callable[[Done], None], start: int) -> None:
        self._on_progress, self._lock = on_progress, threading.Lock()
        self._num_objects, self._num_bytes = 0, start

    def add(self, stored: StoredObject) -> None:
        with self._lock:
            self._num_objects += 1
            self._num_bytes += stored.size_bytes
            self._on_progress(Done(self._num_objects, self._num_bytes))


def _size(objects: Sequence[StoredObject]) -> int:
    return sum(stored.size_bytes for stored in objects)
