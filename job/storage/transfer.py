"""Pull of whole folders from a store: parallel, verified, incremental.

Guarantees that after a pull every listed object is in the folder with the bytes of its checksum, that an interrupted
transfer resumes, and that no name leads out of the folder. Of other files, a pull removes those that an earlier pull
fetched and that are unchanged. A file that no pull fetched is not replaced; one that was edited after a pull is moved
to a folder beside. A shard is fetched once for all its files, each of which is verified by itself. Knows nothing of
YOLO.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from job.errors import MachineError, StoreError, UsageError
from job.storage.atomic_file import partial_files, partial_name, write_atomically
from job.storage.checksums import ChecksumIndex, file_version
from job.storage.keys import file_below
from job.storage.object_store import Store, StoredObject
from job.storage.regular_file import open_regular, sync_folder
from job.storage.shards import PackedFile, read_packed
from job.storage.workdir import translated_errors
from job.text import counted, shortened

log = logging.getLogger(__name__)

PULLED, PUSHED = ".pulled", ".pushed"
"""Checksum indexes of the files that were pulled, and of all others. Only pulled files are replaced or removed."""

NUM_SHOWN = 10


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """Progress of a transfer; objects that are in the folder already count from the start."""

    num_objects: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class TransferResult:
    """Result of a transfer."""

    folder: Path
    objects: tuple[StoredObject, ...]
    """All requested objects; their bytes are in the folder."""

    num_transferred: int
    bytes_transferred: int

    @property
    def num_total(self) -> int:
        """Number of requested objects."""
        return len(self.objects)


def pull(
    store: Store,
    objects: Mapping[str, StoredObject],
    folder: Path,
    on_progress: Callable[[TransferProgress], None] = lambda _done: None,
    before_change: Callable[[], None] = lambda: None,
    *,
    on_fetched: Callable[[str], None] = lambda _name: None,
) -> TransferResult:
    """Fetch objects into a folder.

    Args:
        store: Has the objects.
        objects: From ``store.list(prefix, checksums=True)``, by their names in the folder; several may share one, and
            files may be packed in one.
        folder: Made if it does not exist.
        on_progress: Called from any thread, one call at a time.
        before_change: Called once, before the first file is added, replaced or removed; may raise.
        on_fetched: Called with the name of each file that has come, from any thread, one call at a time.

    Raises:
        StoreError: If the store fails, or names lead out of the folder; fetched files stay for the next pull.
        MachineError: If the folder cannot be written to, or other files, which no pull fetched, have these names.
    """
    with translated_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        paths = _paths(folder, objects, store.uri)
        index = ChecksumIndex(folder / PULLED)
        missing = _plan(folder, index, objects, paths, before_change)
    fetched, lock = sum(objects[name].size_bytes for name in missing), threading.Lock()
    progress = TransferProgress(
        len(objects) - len(missing), sum(stored.size_bytes for stored in objects.values()) - fetched
    )
    on_progress(progress)

    def arrived(name: str) -> None:
        nonlocal progress
        stored = objects[name]
        with translated_errors(folder):
            index.add(name, file_version(paths[name].stat()), str(stored.crc32c))
        with lock:
            progress = TransferProgress(progress.num_objects + 1, progress.num_bytes + stored.size_bytes)
            on_progress(progress)
            on_fetched(name)

    left = {name: objects[name] for name in missing}
    try:
        while left:
            left = _fetch(store, left, folder, paths, arrived)
    finally:
        index.save()
    return TransferResult(folder, tuple(objects.values()), len(missing), fetched)


def is_pulled(folder: Path, objects: Mapping[str, StoredObject]) -> bool:
    """Whether a pull of these objects would change nothing, by the index of earlier pulls; reads no file."""
    index = ChecksumIndex(folder / PULLED)
    if not objects or set(index.names()) != objects.keys():
        return False
    with contextlib.suppress(OSError):
        return all(
            index.known(name, file_version(os.lstat(f"{folder}/{name}"))) == stored.crc32c
            for name, stored in objects.items()
        )
    return False


def mark_replaceable(folder: Path, names: Iterable[str]) -> None:
    """Mark files of a pulled folder that the job itself has changed: the next pull replaces them."""
    index = ChecksumIndex(folder / PULLED)
    with translated_errors(folder):
        for name in names:
            index.read(name, folder / name)
    index.save()


def _fetch(
    store: Store,
    files: Mapping[str, StoredObject],
    folder: Path,
    paths: Mapping[str, Path],
    arrived: Callable[[str], None],
) -> dict[str, StoredObject]:
    """Fetch each object of files once, for one of them, or for all that are packed in it; return the files left."""
    targets: dict[StoredObject, Path] = {}
    alone: dict[StoredObject, str] = {}
    packed: dict[StoredObject, dict[str, PackedFile]] = {}
    left: dict[str, StoredObject] = {}
    for name, stored in files.items():
        if isinstance(stored, PackedFile):
            targets.setdefault(stored.shard, folder / partial_name())
            packed.setdefault(stored.shard, {})[name] = stored
        elif stored in alone:
            left[name] = stored
        else:
            targets[stored], alone[stored] = paths[name], name

    def on_done(stored: StoredObject) -> None:
        if stored in alone:
            arrived(alone[stored])
        else:
            _unpack(targets[stored], packed[stored], paths, arrived, store.uri)

    store.get_many(list(targets.items()), on_done)
    return left


def _unpack(
    shard: Path,
    files: Mapping[str, PackedFile],
    paths: Mapping[str, Path],
    arrived: Callable[[str], None],
    uri: str,
) -> None:
    """Write the files of a fetched shard, and remove it."""
    with contextlib.ExitStack() as held:
        held.callback(shard.unlink, missing_ok=True)
        with translated_errors(shard):
            opened = held.enter_context(shard.open("rb"))
        for name, file in files.items():
            write_atomically(paths[name], read_packed(opened, file, name, uri))
            arrived(name)


def _paths(folder: Path, names: Iterable[str], subject: str) -> dict[str, Path]:
    """Return the path of each name; all are below the folder."""
    paths: dict[str, Path] = {}
    problems: list[str] = []
    for name in names:
        try:
            paths[name] = file_below(folder, name)
        except UsageError as error:
            problems.append(error.message)
        if name in {PULLED, PUSHED}:
            problems.append(f"{name}: is the name of the checksum index")
    if problems:
        raise StoreError(
            f"{subject}: has {counted(len(problems), 'name')} that no folder can have; rename such files",
            shortened(problems, NUM_SHOWN),
        )
    return paths


def _plan(
    folder: Path,
    index: ChecksumIndex,
    objects: Mapping[str, StoredObject],
    paths: Mapping[str, Path],
    before_change: Callable[[], None],
) -> list[str]:
    """Return the names of files to fetch; move edited files away, remove those that the store has no more."""
    was_pulled, pushed = (folder / PULLED).is_file(), ChecksumIndex(folder / PUSHED)
    missing, foreign, edited = [], [], []
    for name, stored in objects.items():
        before = index.checksum(name)
        is_pulled = before is not None or (was_pulled and pushed.checksum(name) is None)
        found = _checksum(index if is_pulled else pushed, name, paths[name])
        if found == (stored.size_bytes, stored.crc32c):
            continue
        missing.append(name)
        if found is not None and not is_pulled:
            foreign.append(name)
        elif found is not None and found[1] != before:
            edited.append(name)
    if foreign:
        raise MachineError(
            f"{folder}: has {counted(len(foreign), 'file')} unlike those to be pulled, which no pull brought; move the "
            "folder away, or choose another --workdir",
            shortened(foreign, NUM_SHOWN),
        )
    surplus = set(index.names()).difference(objects)
    stale = {name for name in surplus if _is_unchanged(index, name, folder / name)}
    if missing or stale:
        before_change()
    _create_index(folder)
    pushed.save()
    _move_edited(folder, edited)
    for path in partial_files(folder):
        path.unlink()
    for name in stale:
        (folder / name).unlink()
    for name in surplus:
        index.remove(name)
    return missing


def _is_unchanged(index: ChecksumIndex, name: str, path: Path) -> bool:
    """Whether a file exists, and is as it was pulled."""
    try:
        return index.known(name, file_version(path.lstat())) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False


def _checksum(index: ChecksumIndex, name: str, path: Path) -> tuple[int, str] | None:
    """Return the size and checksum of a file; `None` if there is no file."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        status, checksum = index.read(name, path)
        return status.st_size, checksum
    return None


def _create_index(folder: Path) -> None:
    if not (folder / PULLED).exists():  # durable before the first file, so that no pulled file is without it
        with open_regular(folder / PULLED, append=True) as opened:
            os.fsync(opened.fileno())
        sync_folder(folder)


def _move_edited(folder: Path, names: Collection[str]) -> None:
    """Move files that were edited after a pull to the folder ``NAME.edited``, each to a free name."""
    edited = folder.with_name(f"{folder.name}.edited")
    for name in names:
        target, number = edited / name, 1
        while os.path.lexists(target):
            number += 1
            target = edited / f"{name}.{number}"
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(target)
    if names:
        listed = "\n".join(f"  - {name}" for name in shortened(names, NUM_SHOWN))
        moved = counted(len(names), "file")
        log.warning("%s: had %s that changed after a pull, now in %s:\n%s", folder, moved, edited, listed)
