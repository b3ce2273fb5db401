"""Whole folders to and from a store: in parallel, verified, and only what is not there yet.

Guarantees that after a pull every listed object is in the folder with the bytes of its checksum, that a cut transfer
goes on where it was cut, and that no name leads out of the folder. Of the folder's other files a pull removes those
that an earlier one brought and that are unchanged; the rest is left alone. Knows nothing of what the files are.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.errors import MachineError, StoreError, UsageError
from job.store import Store, StoredObject
from job.store.arrival import leftovers
from job.store.checksums import ChecksumIndex, version_of
from job.store.keys import file_below

PULLED, PUSHED = ".pulled", ".pushed"
"""Remember a folder's checksums. There are two, because only what was pulled may be removed."""

NUM_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Done:
    """How far a transfer has come; what needed no transfer is done from the start."""

    num_objects: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a transfer did."""

    folder: Path
    objects: tuple[StoredObject, ...]
    """All that are now on both sides, with their checksums."""

    num_transferred: int
    bytes_transferred: int

    @property
    def num_total(self) -> int:
        """The number of objects that are now on both sides."""
        return len(self.objects)


def pull(
    store: Store,
    prefix: str,
    folder: Path,
    objects: Sequence[StoredObject],
    on_progress: Callable[[Done], None] = lambda _done: None,
) -> Transferred:
    """Bring objects into a folder.

    Args:
        store: Where they are.
        prefix: Ends in ``/``; the keys without it are the names in the folder.
        folder: Made if it is not there.
        objects: From ``store.list(prefix, checksums=True)``.
        on_progress: Called from any thread, one call at a time.

    Raises:
        StoreError: If the store fails, or names lead out of the folder; whole files stay for the next time.
        MachineError: If the folder cannot be written to.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = [stored.key.removeprefix(prefix) for stored in objects]
        paths = _paths(folder, names, f"{store.uri}/{prefix}")
        index = ChecksumIndex(folder / PULLED)
        for path in leftovers(folder):
            path.unlink()
        for name in set(index.names()).difference(names):
            _remove(index, name, folder / name)
        missing = [
            (stored, paths[name])
            for name, stored in zip(names, objects, strict=True)
            if not _is_here(index, name, paths[name], stored)
        ]
    counter = _Counter(on_progress, objects, [stored for stored, _ in missing])

    def on_done(stored: StoredObject) -> None:
        name = stored.key.removeprefix(prefix)
        with _explained(folder):
            index.remember(name, version_of(paths[name].stat()), str(stored.crc32c))
        counter.add(stored)

    try:
        store.get_many(missing, on_done)
    finally:
        index.save()
    return Transferred(folder, tuple(objects), len(missing), sum(stored.size_bytes for stored, _ in missing))


def push(
    folder: Path,
    names: Sequence[str],
    store: Store,
    prefix: str,
    on_progress: Callable[[Done], None] = lambda _done: None,
) -> Transferred:
    """Store files of a folder.

    Args:
        folder: Where they are.
        names: Their names in it, ``/``-separated.
        store: Where they go.
        prefix: Ends in ``/``; goes before the names.
        on_progress: As in `pull`.

    Raises:
        StoreError: If the store fails, or names are links or no keys; whole objects stay for the next time.
        MachineError: If a file cannot be read.
    """
    with _explained(folder):
        paths = _paths(folder, names, str(folder))
        index = ChecksumIndex(folder / PUSHED)
        looks = {name: index.look(name, path) for name, path in paths.items()}
        index.save()
    there = {stored.key: stored for stored in store.list(prefix, checksums=True)}
    here = [StoredObject(prefix + name, status.st_size, "", crc) for name, (status, crc) in looks.items()]
    missing = [stored for stored in here if not _is_same(stored, there.get(stored.key))]
    counter = _Counter(on_progress, here, missing)

    def on_done(stored: StoredObject) -> None:
        there[stored.key] = stored
        counter.add(stored)

    store.put_many([(paths[stored.key.removeprefix(prefix)], stored.key) for stored in missing], on_done)
    objects = tuple(there[stored.key] for stored in here)
    return Transferred(folder, objects, len(missing), sum(stored.size_bytes for stored in missing))


class _Counter:
    def __init__(
        self, on_progress: Callable[[Done], None], everything: Iterable[StoredObject], missing: Iterable[StoredObject]
    ) -> None:
        self._on_progress, self._lock = on_progress, threading.Lock()
        sizes, missing_sizes = ([stored.size_bytes for stored in some] for some in (everything, missing))
        self._num_objects, self._num_bytes = len(sizes) - len(missing_sizes), sum(sizes) - sum(missing_sizes)
        on_progress(Done(self._num_objects, self._num_bytes))

    def add(self, stored: StoredObject) -> None:
        with self._lock:
            self._num_objects += 1
            self._num_bytes += stored.size_bytes
            self._on_progress(Done(self._num_objects, self._num_bytes))


def _paths(folder: Path, names: Iterable[str], subject: str) -> dict[str, Path]:
    """Return the file of each name, if all of them are below the folder."""
    paths: dict[str, Path] = {}
    problems: list[str] = []
    for name in names:
        try:
            paths[name] = file_below(folder, name)
        except UsageError as error:
            problems.append(error.message)
        if name in {PULLED, PUSHED}:
            problems.append(f"{name}: is where checksums are kept")
    if problems:
        more = [f"... {len(problems) - NUM_SHOWN} more"] if len(problems) > NUM_SHOWN else []
        raise StoreError(
            f"{subject}: {len(problems)} names cannot be files of a folder; rename them",
            [*problems[:NUM_SHOWN], *more],
        )
    return paths


def _is_here(index: ChecksumIndex, name: str, path: Path, stored: StoredObject) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return path.stat().st_size == stored.size_bytes and index.look(name, path)[1] == stored.crc32c
    return False


def _is_same(one: StoredObject, other: StoredObject | None) -> bool:
    return other is not None and (one.size_bytes, one.crc32c) == (other.size_bytes, other.crc32c)


def _remove(index: ChecksumIndex, name: str, path: Path) -> None:
    """Remove a file that the store no longer has, unless it is not the one that was pulled."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if index.known(name, version_of(path.lstat())):
            path.unlink()
    index.forget(name)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{error.filename or folder}: cannot be used, {error.strerror}; correct its mode, or choose another folder"
        ) from error
