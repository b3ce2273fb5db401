"""Whole folders from a store: in parallel, verified, and only what is not there yet.

Guarantees that after a pull every listed object is in the folder with the bytes of its checksum, that a cut transfer
goes on where it was cut, and that no name leads out of the folder. Of the folder's other files a pull removes those
that an earlier one brought and that are unchanged; the rest is left alone. A file that no pull brought is not replaced,
and one that was changed since it was pulled is kept beside the folder. Knows nothing of what the files are.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.errors import MachineError, StoreError, UsageError
from job.storage.atomic_file import leftovers
from job.storage.checksums import ChecksumIndex, file_version
from job.storage.keys import file_below
from job.storage.object_store import Store, StoredObject
from job.storage.regular_file import open_regular
from job.text import shortened

log = logging.getLogger(__name__)

PULLED, PUSHED = ".pulled", ".pushed"
"""The checksums of files that were pulled, and of others. Only what was pulled may be replaced or removed."""

NUM_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Done:
    """Progress of a transfer; objects that are there already count as done from the start."""

    num_objects: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """Result of a transfer."""

    folder: Path
    objects: tuple[StoredObject, ...]
    """All objects that were asked for; their bytes are in the folder now."""

    num_transferred: int
    bytes_transferred: int

    @property
    def num_total(self) -> int:
        """The number of objects that are now on both sides."""
        return len(self.objects)


def pull(
    store: Store,
    objects: Mapping[str, StoredObject],
    folder: Path,
    on_progress: Callable[[Done], None] = lambda _done: None,
) -> Transferred:
    """Bring objects into a folder.

    Args:
        store: Where they are.
        objects: From ``store.list(prefix, checksums=True)``, by the names that they get in the folder; several names
            may share an object.
        folder: Made if it is not there.
        on_progress: Called from any thread, one call at a time.

    Raises:
        StoreError: If the store fails, or names lead out of the folder; whole files stay for the next time.
        MachineError: If the folder cannot be written to, or has other files in the places of those to be pulled.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        paths = _paths(folder, objects, store.uri)
        index = ChecksumIndex(folder / PULLED)
        missing = _make_way(folder, index, objects, paths)
    counter = _Counter(on_progress, objects.values(), [objects[name] for name in missing])
    left = missing
    try:
        while left:
            turn = {objects[name].key: name for name in left}  # one name for each object

            def on_done(stored: StoredObject, turn: dict[str, str] = turn) -> None:
                name = turn[stored.key]
                with _explained(folder):
                    index.add(name, file_version(paths[name].stat()), str(stored.crc32c))
                counter.add(stored)

            store.get_many([(objects[name], paths[name]) for name in turn.values()], on_done)
            left = [name for name in left if turn[objects[name].key] != name]
    finally:
        index.save()
    fetched = sum(objects[name].size_bytes for name in missing)
    return Transferred(folder, tuple(objects.values()), len(missing), fetched)


def mark_own(folder: Path, names: Iterable[str]) -> None:
    """Note files of a pulled folder that the job itself has changed, which the next pull may replace."""
    index = ChecksumIndex(folder / PULLED)
    with _explained(folder):
        for name in names:
            index.read(name, folder / name)
    index.save()


class _Counter:
    def __init__(
        self,
        on_progress: Callable[[Done], None],
        everything: Collection[StoredObject],
        missing: Collection[StoredObject],
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
        raise StoreError(
            f"{subject}: {len(problems)} names cannot be files of a folder; rename them", shortened(problems, NUM_SHOWN)
        )
    return paths


def _make_way(
    folder: Path, index: ChecksumIndex, objects: Mapping[str, StoredObject], paths: Mapping[str, Path]
) -> list[str]:
    """Return the names of files to fetch, once nothing but what earlier pulls brought is in their places.

    Raises:
        MachineError: If files that no pull brought are there; nothing was changed then.
    """
    is_own, pushed = (folder / PULLED).is_file(), ChecksumIndex(folder / PUSHED)
    missing, foreign, edited = [], [], []
    for name, stored in objects.items():
        before = index.checksum(name)
        brought = before is not None or (is_own and pushed.checksum(name) is None)
        found = _checksum(index if brought else pushed, name, paths[name])
        if found == (stored.size_bytes, stored.crc32c):
            continue
        missing.append(name)
        if found is not None and not brought:
            foreign.append(name)
        elif found is not None and found[1] != before:
            edited.append(name)
    if foreign:
        raise MachineError(
            f"{folder}: {len(foreign)} files there differ from those to be pulled, and no pull brought them; move the "
            "folder away, or choose another --workdir",
            shortened(foreign, NUM_SHOWN),
        )
    _mark(folder)
    pushed.save()
    if edited:
        _keep(folder, edited)
    for path in leftovers(folder):
        path.unlink()
    for name in set(index.names()).difference(objects):
        _remove(index, name, folder / name)
    return missing


def _checksum(index: ChecksumIndex, name: str, path: Path) -> tuple[int, str] | None:
    """Return the size and checksum of a file; nothing where there is no file."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        status, checksum = index.read(name, path)
        return status.st_size, checksum
    return None


def _mark(folder: Path) -> None:
    """Make the index durable before the first file comes, so that a loss of power leaves no pulled file without it."""
    if (folder / PULLED).exists():
        return
    with open_regular(folder / PULLED, append=True) as opened:
        os.fsync(opened.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep(folder: Path, names: Collection[str]) -> None:
    """Move files that were changed since they were pulled out of the way, each to a name that is free."""
    kept = folder.with_name(f"{folder.name}.edited")
    for name in names:
        target, number = kept / name, 1
        while os.path.lexists(target):
            number += 1
            target = kept / f"{name}.{number}"
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(target)
    listed = "\n".join(f"  - {name}" for name in shortened(names, NUM_SHOWN))
    log.warning("%s: %d files were changed after a pull; they are in %s now:\n%s", folder, len(names), kept, listed)


def _remove(index: ChecksumIndex, name: str, path: Path) -> None:
    """Remove a file that the store no longer has, unless it is not the one that was pulled."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if index.known(name, file_version(path.lstat())):
            path.unlink()
    index.remove(name)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{error.filename or folder}: cannot be used, {error.strerror}; correct its mode, or choose another folder"
        ) from error
