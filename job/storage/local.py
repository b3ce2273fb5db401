"""Store in a folder: its files are the objects.

Guarantees, among all processes that go through this module, that puts are atomic and create-only, and that a stored
object survives a loss of power. Links are not followed; the store's own files lie in one hidden folder, never listed.
Bytes that rotted since the file was put or first read are detected; an edited file is a new version.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from job.errors import CorruptObjectError, ObjectNotFoundError, PreconditionError, StoreError, UsageError
from job.storage.base import BaseStore, source_chunks
from job.storage.checksums import ChecksumIndex, crc32c, encode_crc32c, file_version, read_chunks
from job.storage.keys import file_below
from job.storage.object_store import StoredObject
from job.storage.paths import expanded
from job.storage.regular_file import open_regular, sync_folder

INTERNAL = ".store"
"""Folder of the lock, the checksums and the partial files; no key may start with it."""

NUM_PARTS = 100
"""Parts of the index that take about as long as all of it, where that is of 40,000 files."""

STALE_S = 24 * 3600
"""Age from which a partial file that is not locked was left by a killed process."""

ADVICE = {
    errno.EACCES: "permission denied; correct its owner or mode, or --bucket",
    errno.EPERM: "permission denied; correct its owner or mode, or --bucket",
    errno.EROFS: "the file system is read-only; correct --bucket",
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.ENOENT: "no such folder; create it or correct --bucket",
    errno.EEXIST: "there is a file where a folder is needed; rename one of the two",
    errno.ENOTDIR: "there is a file where a folder is needed; rename one of the two",
    errno.EISDIR: "there is a folder where a file is needed; rename one of the two",
    errno.ENAMETOOLONG: "the name is too long for this file system; shorten it",
}


class FolderStore(BaseStore):
    """A store in a folder, see `Store`; made by `open` or `create`."""

    num_downloads = num_uploads = 4

    def __init__(self, root: Path) -> None:
        self._root = root
        self._whole_index: ChecksumIndex | None = None
        self._num_parts = 0

    @classmethod
    def open(cls, location: str) -> "FolderStore":
        """Open an existing folder; raises `StoreError` if there is none, or it cannot be read."""
        root = expanded(location).absolute()
        with _translated_errors(f"bucket {root}"):
            root = root.resolve(strict=True)
            os.scandir(root).close()
            _remove_stale(root / INTERNAL / "partial")
        return cls(root)

    @classmethod
    def create(cls, location: str) -> "FolderStore":
        """Open a folder, making it if there is none; raises as `open` does."""
        root = expanded(location).absolute()
        with _translated_errors(f"bucket {root}"):
            root.mkdir(parents=True, exist_ok=True)
        return cls.open(location)

    @property
    def uri(self) -> str:
        """The absolute path."""
        return str(self._root)

    def put(self, key: str, source: Path | bytes, *, overwrite: bool = False) -> StoredObject:
        """Store a file or bytes; see `Store.put`."""
        path = self._path(key)
        with self._translated_errors(key), self._partial(source) as (partial, checksum), self._locked():
            _make_folders(self._root, path.parent)
            try:
                if overwrite:
                    partial.replace(path)
                else:
                    path.hardlink_to(partial)  # atomic, also against programs that do not take the lock
            except FileExistsError as error:
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, "Is a directory") from error
                for there in self._with_checksums([key], key):
                    if (there.crc32c, there.size_bytes) == (checksum, partial.stat().st_size):
                        return there
                raise PreconditionError(
                    f"{self._root}/{key}: exists already, with other bytes; choose another name"
                ) from error
            sync_folder(path.parent)
            stored = _describe(key, path.lstat(), checksum)
            index = self._index(key)
            index.add(key, stored.version, checksum)
        index.save()
        return stored

    def list(self, prefix: str = "", *, checksums: bool = False) -> list[StoredObject]:
        """Return the objects whose key starts with `prefix`, sorted; see `Store.list`."""
        folder, _, name = prefix.rpartition("/")
        start = self._path(folder) if folder else self._root
        with self._translated_errors(prefix):
            os.scandir(self._root).close()
            found = [_describe(key, status) for key, status in _walk(start, self._root, name)]
        found.sort(key=lambda stored: stored.key)
        return list(self._with_checksums([stored.key for stored in found], prefix)) if checksums else found

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Return the names of the folders directly below a prefix; see `Store.folders`."""
        folder = self._path(prefix.removesuffix("/"))
        with self._translated_errors(prefix):
            os.scandir(self._root).close()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                folders = (Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False))
                return tuple(sorted(path.name for path in folders if any(_walk(path, self._root))))
        return ()

    def stat(self, key: str) -> StoredObject:
        """Return one object's description; see `Store.stat`."""
        if not (found := self._with_checksums([key], key)):
            raise self._absent(key)
        return found[0]

    def delete(self, key: str) -> None:
        """Delete an object; see `Store.delete`."""
        path = self._path(key)
        with self._translated_errors(key):
            if _version(path) is None:  # where nothing can be written, something can still be absent
                return
            with self._locked(), contextlib.suppress(FileNotFoundError):  # another process was first
                path.unlink()
                sync_folder(path.parent)
                with contextlib.suppress(OSError):  # the first folder above that is not empty
                    while (path := path.parent) != self._root:
                        path.rmdir()
        index = self._index(key)
        index.remove(key)
        index.save()

    def _path(self, key: str) -> Path:
        if key.split("/", maxsplit=1)[0] == INTERNAL:
            raise UsageError(f"key {key!r}: {INTERNAL} has the store's own files; choose another name")
        return file_below(self._root, key)

    def _stream(self, stored: StoredObject) -> Iterator[bytes]:
        path, crc = self._path(stored.key), 0
        with self._translated_errors(stored.key):
            try:
                opened = path.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise self._absent(stored.key) from None
            with opened:
                if file_version(os.fstat(opened.fileno())) != stored.version:
                    raise ObjectNotFoundError(f"{path}: was replaced since it was listed; start again")
                for chunk in read_chunks(opened):
                    yield chunk
                    crc = crc32c(chunk, crc)
        if encode_crc32c(crc) != stored.crc32c:
            raise CorruptObjectError(
                f"{path}: its bytes are not those that were stored, CRC-32C is {encode_crc32c(crc)} and was "
                f"{stored.crc32c}; check the disk, and put the file again"
            )

    def _index(self, prefix: str) -> ChecksumIndex:
        """Return the part of the index for keys that start so; after `NUM_PARTS` of them, the whole, read once."""
        path = self._root / INTERNAL / "checksums"
        if self._whole_index is None and self._num_parts < NUM_PARTS:
            self._num_parts += 1
            return ChecksumIndex(path, prefix)
        self._whole_index = self._whole_index or ChecksumIndex(path)
        return self._whole_index

    def _with_checksums(self, keys: Iterable[str], prefix: str) -> tuple[StoredObject, ...]:
        """Return the objects that exist, with checksums; all keys start with the prefix."""
        found, index = [], self._index(prefix)
        for key in keys:
            path = self._path(key)
            with self._translated_errors(key), contextlib.suppress(FileNotFoundError):
                if _version(path) is not None:
                    found.append(_describe(key, *index.read(key, path)))
        index.save()
        return tuple(found)

    @contextmanager
    def _partial(self, source: Path | bytes) -> Iterator[tuple[Path, str]]:
        """Yield a durable copy of the source, beside the objects, and its checksum; remove it afterwards."""
        folder, crc = self._root / INTERNAL / "partial", 0
        _make_folders(self._root, folder)
        partial, opened = _begin(folder)
        try:
            with opened:
                for chunk in source_chunks(source):
                    opened.write(chunk)
                    crc = crc32c(chunk, crc)
                opened.flush()
                now = time.time_ns()  # finer than the clock of a file system, so that no version comes twice
                os.utime(opened.fileno(), ns=(now, now))
                os.fsync(opened.fileno())
                yield partial, encode_crc32c(crc)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store's lock: one thread of one process at a time changes objects."""
        with open_regular(self._root / INTERNAL / "lock", append=True) as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            try:
                yield
            finally:  # a process that was forked meanwhile, such as a loader's worker, still has it open
                fcntl.flock(opened, fcntl.LOCK_UN)

    @contextmanager
    def _translated_errors(self, key: str) -> Iterator[None]:
        with _translated_errors(f"{self._root}/{key}"):
            try:
                yield
            except FileNotFoundError as error:
                raise (self._gone() or error) from error

    def _gone(self) -> StoreError | None:
        return None if self._root.is_dir() else StoreError(f"bucket {self._root}: {ADVICE[errno.ENOENT]}")

    def _absent(self, key: str) -> StoreError:
        return self._gone() or ObjectNotFoundError(f"{self._root}/{key}: no such object; check its spelling")


@contextmanager
def _translated_errors(subject: str) -> Iterator[None]:
    """Translate `OSError` into `StoreError`, with advice."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, f"{error.strerror}; check the disk")
        raise StoreError(f"{subject}: {advice}") from error


def _describe(key: str, status: os.stat_result, checksum: str | None = None) -> StoredObject:
    return StoredObject(key, status.st_size, file_version(status), checksum)


def _version(path: Path) -> str | None:
    """Return an object's version; `None` for a folder, or if there is no file."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return file_version(status) if stat.S_ISREG(status.st_mode) else None


def _walk(folder: Path, root: Path, start: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield the key and status of every file below, in no order; in the folder itself, of names that start so."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(start):
                continue
            if entry.is_dir(follow_symlinks=False):
                if folder != root or entry.name != INTERNAL:
                    yield from _walk(folder / entry.name, root)
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # deleted since
                    yield (folder / entry.name).relative_to(root).as_posix(), entry.stat(follow_symlinks=False)


def _make_folders(root: Path, folder: Path) -> None:
    """Make a folder below the root durably; the root must exist."""
    if folder.is_dir():
        return
    for part in folder.relative_to(root).parts:
        root /= part
        with contextlib.suppress(FileExistsError):
            root.mkdir()
            sync_folder(root.parent)


def _begin(folder: Path) -> tuple[Path, BinaryIO]:
    """Create a partial file, locked while it is open, so that `_remove_stale` leaves it alone."""
    while True:
        partial = folder / secrets.token_hex(8)
        opened = partial.open("xb")
        fcntl.flock(opened, fcntl.LOCK_EX)
        if os.fstat(opened.fileno()).st_nlink:
            return partial, opened
        opened.close()  # removed before it was locked, by a process with another clock


def _remove_stale(folder: Path) -> None:
    """Remove the partial files of killed processes, if permitted.

    They are both old and unlocked: a clock may leap, and earlier versions of the job write without a lock.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if time.time() - path.lstat().st_mtime > STALE_S:
                with contextlib.suppress(OSError), open_regular(path, append=True) as opened:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
