"""A store in a folder, with the guarantees of a bucket.

An object is a file below the folder under its key. Writes go to a hidden folder beside, are synced, and appear by one
rename or link; replacing a version is guarded by a lock on the folder, so several processes may use it at once.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from job.errors import CorruptObjectError, ObjectNotFoundError, PreconditionError, StoreError, UsageError
from job.store import StoredObject
from job.store.checksums import ChecksumIndex, crc32c_of_bytes, crc32c_of_file
from job.store.keys import check_key, file_below

OWN = ".store"
"""Hidden folder for writes in progress, the lock and the checksums."""

NUM_THREADS = 8


class FolderStore:
    """Objects as files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._checksums = ChecksumIndex(root / OWN / "checksums.json")

    @classmethod
    def open(cls, location: str) -> "FolderStore":
        """Open an existing folder.

        Raises:
            StoreError: If there is none, or it cannot be read.
            UsageError: If the location is an address of something else.
        """
        if "://" in location:
            raise UsageError(f"bucket {location}: is neither gs://BUCKET nor a folder; pass one of these")
        root = Path(location).absolute()
        if not root.is_dir():
            raise StoreError(f"bucket {root}: there is no such folder; make it, or correct --bucket")
        if not os.access(root, os.R_OK | os.X_OK):
            raise StoreError(f"bucket {root}: no permission to read it; change its mode, or correct --bucket")
        return cls(root)

    @property
    def uri(self) -> str:
        """The folder, absolute."""
        return str(self._root)

    def put(
        self, key: str, source: Path | bytes, *, overwrite: bool = False, if_version: str | None = None
    ) -> StoredObject:
        """Store an object; see `Store.put`."""
        target = file_below(self._root, key)
        with self._explained(key), self._written(source) as written:
            crc32c = crc32c_of_bytes(source) if isinstance(source, bytes) else crc32c_of_file(written)
            with self._locked():  # also against `delete`, which removes empty folders
                target.parent.mkdir(parents=True, exist_ok=True)
                if if_version is not None and (not target.exists() or _version(target) != if_version):
                    raise PreconditionError(f"{self.uri}/{key}: is no longer the version that was to be replaced")
                if overwrite or if_version is not None:
                    written.replace(target)
                else:
                    try:
                        os.link(written, target)
                    except FileExistsError as error:
                        raise PreconditionError(f"{self.uri}/{key}: exists already") from error
            _sync(target.parent)
            self._checksums.remember(key, target, crc32c)
            return self._describe(key, target, crc32c)

    def get(self, key: str, target: Path) -> StoredObject:
        """Fetch an object; see `Store.get`."""
        source = file_below(self._root, key)
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        with self._explained(key):
            if not source.is_file():
                raise ObjectNotFoundError(f"{self.uri}/{key}: there is no such object")
            found = self._describe(key, source, self._checksums.crc32c(key, source))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, partial)
                if crc32c_of_file(partial) != found.crc32c:
                    raise CorruptObjectError(f"{self.uri}/{key}: its bytes do not match its CRC-32C")
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            return found

    def read(self, key: str) -> bytes:
        """Return an object's bytes; see `Store.read`."""
        source = file_below(self._root, key)
        with self._explained(key):
            return source.read_bytes()

    def list(self, prefix: str = "", *, checksums: bool = False) -> list[StoredObject]:
        """Return objects by prefix; see `Store.list`."""
        folder = self._root.joinpath(*prefix.split("/")[:-1])
        if ".." in prefix.split("/"):
            return []
        found = []
        with self._explained(prefix):
            for path in _files(folder):
                key = path.relative_to(self._root).as_posix()
                if key.startswith(prefix) and not key.startswith(f"{OWN}/"):
                    with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                        crc32c = self._checksums.crc32c(key, path) if checksums else None
                        found.append(self._describe(key, path, crc32c))
        if checksums:
            self._checksums.save()
        return sorted(found, key=lambda stored: stored.key)

    def stat(self, key: str) -> StoredObject:
        """Return an object's description; see `Store.stat`."""
        path = file_below(self._root, key)
        with self._explained(key):
            if not path.is_file():
                raise ObjectNotFoundError(f"{self.uri}/{key}: there is no such object")
            return self._describe(key, path, self._checksums.crc32c(key, path))

    def delete(self, key: str, *, if_version: str | None = None) -> None:
        """Delete an object; see `Store.delete`."""
        path = file_below(self._root, key)
        with self._explained(key), self._locked(), contextlib.suppress(FileNotFoundError):
            if if_version is not None and path.exists() and _version(path) != if_version:
                raise PreconditionError(f"{self.uri}/{key}: is no longer the version that was to be deleted")
            path.unlink()
            self._checksums.forget(key)
            with contextlib.suppress(OSError):  # a folder that is not empty stays
                for parent in path.relative_to(self._root).parents[:-1]:
                    (self._root / parent).rmdir()

    def get_many(
        self, objects: Sequence[tuple[StoredObject, Path]], on_done: Callable[[StoredObject], None] | None = None
    ) -> None:
        """Fetch many objects; see `Store.get_many`."""

        def fetch(item: tuple[StoredObject, Path]) -> None:
            stored, target = item
            found = self.get(stored.key, target)
            if stored.crc32c not in {None, found.crc32c}:
                target.unlink()
                raise CorruptObjectError(f"{self.uri}/{stored.key}: has changed since it was listed; start again")
            if on_done is not None:
                on_done(stored)

        _in_parallel(fetch, objects)

    def put_many(
        self, files: Iterable[tuple[Path, str]], on_done: Callable[[StoredObject], None] | None = None
    ) -> None:
        """Store many files; see `Store.put_many`."""

        def send(item: tuple[Path, str]) -> None:
            stored = self.put(item[1], item[0], overwrite=True)
            if on_done is not None:
                on_done(stored)

        _in_parallel(send, files)
        self._checksums.save()

    def _describe(self, key: str, path: Path, crc32c: str | None) -> StoredObject:
        return StoredObject(check_key(key), path.stat().st_size, _version(path), crc32c)

    @contextlib.contextmanager
    def _written(self, source: Path | bytes) -> Iterator[Path]:
        """Write the bytes beside the objects, durably, and remove what is left of it."""
        folder = self._root / OWN / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / uuid.uuid4().hex
        try:
            if isinstance(source, bytes):
                partial.write_bytes(source)
            else:
                shutil.copyfile(source, partial)
            with partial.open("rb") as opened:
                os.fsync(opened.fileno())
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._root / OWN
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn errors of the file system into those of a store."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if not self._root.is_dir():
                raise StoreError(f"bucket {self.uri}: the folder is gone; put it back") from error
            raise ObjectNotFoundError(f"{self.uri}/{key}: there is no such object") from error
        except OSError as error:
            what = {errno.ENOSPC: "the disk is full; free some space", errno.EDQUOT: "the quota is used up; free some"}
            advice = what.get(error.errno or 0, f"{error.strerror}; check the folder's permissions")
            raise StoreError(f"{self.uri}/{key}: cannot be read or written, {advice}") from error


def _version(path: Path) -> str:
    """Every write makes a new file, so inode and time tell versions apart."""
    stat = path.stat()
    return f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"


def _files(folder: Path) -> Iterator[Path]:
    """Walk the files below a folder, without following links to folders."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _in_parallel(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
