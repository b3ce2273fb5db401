"""Push of a folder as a version of a dataset, checked as before training.

Guarantees that an interrupted push resumes, that a version appears with its lock, which is written last, and that no
object is replaced: bytes under a taken path go to ``objects/<sha256>``. Knows nothing of runs.
"""

import logging
import os
import re
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from job.datasets.check import NUM_SHOWN, DatasetReport, check_dataset
from job.datasets.dataset_statistics import IMGSZ
from job.datasets.files import list_files
from job.datasets.lockfile import (
    LOCK,
    DatasetListing,
    DatasetLock,
    DatasetVersion,
    dataset_digest,
    is_dataset_file,
    list_dataset,
    same_bytes,
    version_lock,
)
from job.datasets.scan import SCAN_CACHE
from job.errors import DataError, MachineError, PreconditionError
from job.log import Progress, one_line
from job.storage.checksums import ChecksumIndex, sha256_of
from job.storage.keys import is_key
from job.storage.object_store import Store, StoredObject
from job.storage.paths import is_folder
from job.storage.transfer import PUSHED

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PushResult:
    """Result of a push."""

    version: int
    num_total: int
    num_sent: int
    bytes_sent: int


@dataclass(frozen=True)
class Push:
    """A planned push; nothing is written before `send`."""

    listing: DatasetListing
    current: DatasetVersion
    """The newest version; without files if none exists."""

    paths: dict[str, Path]
    """Local path of each file."""

    files: dict[str, StoredObject]
    """Object of each file."""

    sha256: dict[str, str]
    left_out: tuple[str, ...]
    """Files of the folder that no dataset includes."""

    report: DatasetReport

    @cached_property
    def changes(self) -> list[str]:
        """Changes since the newest version: ``path: new``, ``gone`` or ``changed``."""
        before = self.current.files
        found = [f"{path}: new" for path in self.files.keys() - before.keys()]
        found += [f"{path}: gone" for path in before.keys() - self.files.keys()]
        both = self.files.keys() & before.keys()
        found += [f"{path}: changed" for path in both if not same_bytes(self.files[path], before[path])]
        return sorted(found)

    @property
    def replaces(self) -> bool:
        """Whether a version with other content exists."""
        return bool(self.current.files and self.changes)

    def send(self) -> PushResult:
        """Store the missing objects, then the lock; stored objects stay for the next push if that fails.

        Raises `DataError` if a file changes meanwhile, or another push finishes first.
        """
        store, prefix, number = self.listing.store, self.listing.prefix, self.current.number
        missing = {
            stored.key: path
            for path, stored in self.files.items()
            if not same_bytes(stored, self.listing.there.get(stored.key))
        }
        is_pinned = number > 0 and self.files == self.current.files
        marks = set(self.listing.begun)
        try:
            unlocked = {} if number else self.current.pinned
            if unlocked and dataset_digest(self.files) != dataset_digest(unlocked):
                # Runs may be pinned to the files that were copied without a lock.
                store.put(prefix + LOCK, DatasetLock.make(1, unlocked, {}, prefix).to_json())
                number = 1
            if not is_pinned:
                number += 1
                mark = f"{prefix}versions/{number:04d}.begun"
                marks.add(mark)
                store.put(mark, b"{}\n", overwrite=True)
            self._send(missing)
            if not is_pinned:
                lock = DatasetLock.make(number, self.files, self.sha256, prefix)
                store.put(prefix + version_lock(number), lock.to_json())
        except PreconditionError as error:
            raise DataError(f"dataset {self.listing.name}: another push came in between; push again") from error
        for mark in marks:
            store.delete(mark)
        sent = sum(self.files[path].size_bytes for path in missing.values())
        return PushResult(number, len(self.files), len(missing), sent)

    def _send(self, missing: dict[str, str]) -> None:
        done, lock = 0, threading.Lock()
        total = sum(self.files[path].size_bytes for path in missing.values())
        with Progress(f"pushing {self.listing.name}", total, "B") as progress:

            def on_done(stored: StoredObject) -> None:
                nonlocal done
                path = missing[stored.key]
                if not same_bytes(stored, self.files[path]):
                    raise DataError(f"{self.paths[path]}: was changed while it was pushed; push again")
                with lock:
                    done += stored.size_bytes
                    progress.to(done)

            for key in missing:  # differs: written by an interrupted push, and in no lock
                if key in self.listing.there:
                    self.listing.store.delete(key)
            self.listing.store.put_many([(self.paths[path], key) for key, path in missing.items()], on_done)


def plan_push(
    store: Store,
    folder: Path,
    name: str,
    *,
    force: bool = False,
    single_class: bool = False,
    follow_links: bool = False,
    imgsz: int = IMGSZ,
) -> Push:
    """Check a folder as `check_dataset`, and plan its push as a dataset of this name.

    With `force`, problems are logged instead of refusing the folder.

    Raises `DataError` with every problem of the folder or the name, `MachineError` if a file cannot be read.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise DataError(f"dataset {name!r}: is not a name; use letters, digits, '.', '-' and '_'")
    if not is_folder(folder) or not any(folder.glob("*.y*ml")):
        raise DataError(f"{folder}: has no data.yaml; push the folder that has images/, labels/ and data.yaml")
    report = check_dataset(
        folder,
        single_class=single_class,
        follow_links=follow_links,
        cache_file=folder / SCAN_CACHE,
        imgsz=imgsz,
    )
    _require_sound(folder, report, force=force)
    folder = Path(os.path.realpath(folder))
    found = list_files(folder, follow_links=follow_links)
    refused = {problem.path for problem in found.refused}
    names = [path for path in found.names if is_dataset_file(path) and path not in refused]
    if bad := [path for path in names if not is_key(f"datasets/{name}/{path}")]:
        raise DataError(f"{folder}: has files whose names no bucket takes; rename them", [repr(path) for path in bad])
    listing = list_dataset(store, name)
    paths = {path: folder / path for path in names}
    current = listing.newest
    files, sha256 = _assign_keys(folder, paths, listing, current)
    left_out = tuple(path for path in found.names if path.endswith(".npy"))
    return Push(listing, current, paths, files, sha256, left_out, report)


def push_dataset(store: Store, folder: Path, name: str, *, single_class: bool = False) -> PushResult:
    """Push a folder as `plan_push` under a name that is free, or has the same content; else raises `DataError`."""
    plan = plan_push(store, folder, name, single_class=single_class)
    if plan.replaces:
        raise DataError(f"dataset {name}: is there with other content; choose another name", plan.changes[:NUM_SHOWN])
    return plan.send()


def _require_sound(folder: Path, report: DatasetReport, *, force: bool) -> None:
    for warning in report.warnings:
        log.warning("%s: %s", folder, one_line(warning))
    if not force:
        report.raise_if_broken(str(folder), "correct them, or pass --force to push all the same")
    elif report.problems:
        log.warning("%s: is pushed with %d problems, for which training will refuse it:", folder, len(report.problems))
        for problem in report.problems[:NUM_SHOWN]:
            log.warning("  - %s", one_line(str(problem)))


def _assign_keys(
    folder: Path, paths: dict[str, Path], listing: DatasetListing, current: DatasetVersion
) -> tuple[dict[str, StoredObject], dict[str, str]]:
    """Return the object of each file, and its SHA-256."""
    index, before, files, sha256 = ChecksumIndex(folder / PUSHED), current.files, {}, {}
    try:
        for name, path in paths.items():
            status, crc = index.read(name, path)
            file, known = StoredObject(listing.prefix + name, status.st_size, "", crc), before.get(name)
            unchanged = known is not None and same_bytes(file, known)
            sha256[name] = (current.sha256.get(name) if unchanged else None) or sha256_of(path)
            keys = [known.key, file.key] if known is not None and unchanged else [file.key]
            free = (key for key in keys if key not in listing.there or same_bytes(file, listing.there[key]))
            key = next(free, f"{listing.prefix}objects/{sha256[name]}")
            files[name] = replace(file, key=key)
    except OSError as error:
        raise MachineError(f"{error.filename}: cannot be read, {error.strerror}; correct its mode") from error
    finally:
        index.save()
    return files, sha256
