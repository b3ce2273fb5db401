"""Push of a folder as a version of a dataset, checked as before training.

Guarantees that an interrupted push resumes, that a version appears with its lock, which is written last, that no object
is replaced (bytes under a taken path go to ``objects/<sha256>``, many labels to shards), and that of pushes at the same
time each becomes a version. Knows nothing of runs.
"""

import contextlib
import hashlib
import logging
import os
import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from job.datasets.check import check_dataset
from job.datasets.dataset_report import DatasetReport
from job.datasets.dataset_statistics import IMGSZ
from job.datasets.decoded_images import DecodedImages
from job.datasets.files import list_files
from job.datasets.labels import Problem, describe_problems
from job.datasets.lockfile import (
    LOCK,
    DatasetListing,
    DatasetLock,
    DatasetVersion,
    count_changes,
    dataset_digest,
    is_dataset_file,
    list_dataset,
    same_bytes,
    version_lock,
)
from job.datasets.scan import SCAN_CACHE
from job.datasets.upload import Upload
from job.errors import DataError, MachineError, PreconditionError
from job.log import one_line
from job.storage.checksums import ChecksumIndex, sha256_of
from job.storage.keys import is_key
from job.storage.object_store import Store, StoredObject
from job.storage.paths import is_folder
from job.storage.shards import PackedFile
from job.storage.transfer import PUSHED
from job.text import counted

log = logging.getLogger(__name__)


DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

NUM_TRIES = 10
"""How often a push begins again because another one came in between."""

NUM_DIGITS = 16
"""Digits of the mark of a push, by machine and folder: the same push, repeated, removes what a killed one has left."""


@dataclass(frozen=True, slots=True)
class PushResult:
    """Result of a push."""

    version: int
    num_total: int
    num_sent: int
    bytes_sent: int
    changes: str
    """Differences from the version before, counted; empty if there is none."""

    def __str__(self) -> str:
        changed = f" ({self.changes})" if self.changes else ""
        sent = f"{self.num_sent} of them sent now ({self.bytes_sent / 1e6:.1f} MB)"
        return f"version {self.version}{changed}, {counted(self.num_total, 'file')}, {sent}"


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """The user's files that a folder to push is of, or leads to by links."""

    source: str
    """What the user has named."""

    root: Path
    """The folder that has them, absolute and without links."""

    def problem(self, folder: Path, found: Problem) -> Problem:
        """Return a problem of a file of `folder` as one of the file that it leads to."""
        link = folder / found.path
        target = link.readlink() if link.is_symlink() else link
        if not target.is_relative_to(self.root):
            return found
        return replace(found, path=target.relative_to(self.root).as_posix())


@dataclass(frozen=True)
class Push:
    """A planned push; nothing is written before `send`."""

    folder: Path
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

    @property
    def changes(self) -> str:
        """Differences from the newest version, as text; empty if there is none, or no version yet."""
        return count_changes(self.current.files, self.files) if self.current.files else ""

    @property
    def _is_done(self) -> bool:
        """Whether the newest version has these files, all its objects are there, and nothing was cut off."""
        is_cut_off = bool(self.listing.begun or self.listing.locked & self.listing.deleted)
        is_newest = self.current.number > 0 and self.files == self.current.files and not is_cut_off
        return is_newest and all(map(self.listing.listed, self.files.values()))

    def send(self) -> PushResult:
        """Store the missing objects, then the lock; stored objects stay for the next push if that fails.

        If another push comes in between, its version counts as the one before. The images that the check has decoded
        are recorded, so that no machine decodes them again. Raises `DataError` if a file changes meanwhile, or if a
        version is being deleted.
        """
        store, name = self.listing.store, self.listing.name
        if self._is_done:
            return PushResult(self.current.number, len(self.files), 0, 0, "")
        own = hashlib.sha256(os.fsencode(f"{socket.gethostname()} {self.folder}")).hexdigest()[:NUM_DIGITS]
        mark = f"{self.listing.prefix}versions/{own}.begun"
        unlocked = {} if self.current.number else self.current.pinned
        if unlocked and dataset_digest(self.files) != dataset_digest(unlocked):
            # Runs may be pinned to the files that were copied without a lock.
            lock = DatasetLock.make(1, unlocked, {}, self.listing.prefix)
            with contextlib.suppress(PreconditionError):  # another push has just done that
                store.put(self.listing.prefix + LOCK, lock.to_json())
        for _ in range(NUM_TRIES):
            store.put(mark, b"{}\n", overwrite=True)
            listing = list_dataset(store, name)  # after the mark, which holds deletions off
            if half_deleted := listing.locked & listing.deleted:
                store.delete(mark)
                delete = f"`job data delete {name}@{min(half_deleted)}`"
                raise DataError(
                    f"dataset {name}: version {min(half_deleted)} is half deleted; repeat {delete}, then push"
                )
            try:
                result = _send_version(_plan(self, listing))
            except PreconditionError:
                continue
            before = [mark for mark in listing.begun if len(mark.rpartition("/")[2]) < NUM_DIGITS]  # of older versions
            for left in {mark, *before}:
                store.delete(left)
            decoded = DecodedImages(store, name)
            decoded.hashes()
            decoded.add(self.report.hashes)
            return result
        raise DataError(f"dataset {name}: other pushes came in between, {NUM_TRIES} times; push again")


def require_name(name: str) -> str:
    """Return the name of a dataset to push; raises `DataError` if it is none."""
    if not DATASET_NAME.fullmatch(name):
        raise DataError(f"dataset {name!r}: is not a name; use letters, digits, '.', '-' and '_'")
    return name


def plan_push(
    store: Store,
    folder: Path,
    name: str,
    *,
    force: bool = False,
    single_class: bool = False,
    follow_links: bool = False,
    imgsz: int = IMGSZ,
    own: OwnFiles | None = None,
) -> Push:
    """Check a folder as `check_dataset`, and plan its push as a dataset of this name.

    With `force`, problems are logged instead of refusing the folder. Of a folder of links to the user's `own` files,
    problems name those.

    Raises `DataError` with every problem of the folder or the name, `MachineError` if a file cannot be read.
    """
    require_name(name)
    if not is_folder(folder) or not any(folder.glob("*.y*ml")):
        raise DataError(f"{folder}: has no data.yaml; push the folder that has images/, labels/ and data.yaml")
    report = check_dataset(
        folder,
        single_class=single_class,
        follow_links=follow_links,
        cache_file=folder / SCAN_CACHE,
        imgsz=imgsz,
    )
    _require_sound(own or OwnFiles(str(folder), folder), folder, report, force=force)
    folder = Path(os.path.realpath(folder))
    found = list_files(folder, follow_links=follow_links)
    refused = {problem.path for problem in found.refused}
    names = [path for path in found.names if is_dataset_file(path) and path not in refused]
    if bad := [path for path in names if not is_key(f"datasets/{name}/{path}")]:
        raise DataError(f"{folder}: has files whose names no bucket takes; rename them", [repr(path) for path in bad])
    paths = {path: folder / path for path in names}
    left_out = tuple(path for path in found.names if path.endswith(".npy"))
    empty = DatasetVersion(0, {}, {})
    listing = list_dataset(store, name)
    return _plan(Push(folder, listing, empty, paths, {}, {}, left_out, report), listing)


def _plan(push: Push, listing: DatasetListing) -> Push:
    """Return a push as of a listing; digests that it has are not computed again."""
    current = listing.newest
    files, sha256 = _assign_keys(push, listing, current)
    return replace(push, listing=listing, current=current, files=files, sha256=sha256)


def _send_version(push: Push) -> PushResult:
    """Store what is missing of the planned version; raises `PreconditionError` if another push was first."""
    store, prefix, number = push.listing.store, push.listing.prefix, push.current.number
    upload = Upload(push.listing, push.files, push.paths, push.current.files)
    upload.send()
    push = replace(push, files=upload.files)
    if not number or push.files != push.current.files:
        number = max(number, push.listing.last_number) + 1
        lock = DatasetLock.make(number, push.files, push.sha256, prefix)
        store.put(prefix + version_lock(number), lock.to_json())
    return PushResult(number, len(push.files), upload.num_sent, upload.bytes_sent, push.changes)


def _require_sound(own: OwnFiles, folder: Path, report: DatasetReport, *, force: bool) -> None:
    report = replace(report, problems=tuple(own.problem(folder, found) for found in report.problems))
    for warning in report.warnings:
        log.warning("%s: %s", own.source, one_line(warning))
    if not force:
        report.raise_if_broken(own.source, "correct them, or pass --force to push all the same")
    elif report.problems:
        problems = counted(len(report.problems), "problem")
        log.warning("%s: is pushed with %s, for which training will refuse it:", own.source, problems)
        for line in describe_problems(report.problems):
            log.warning("  - %s", one_line(line))


def _assign_keys(
    push: Push, listing: DatasetListing, current: DatasetVersion
) -> tuple[dict[str, StoredObject], dict[str, str]]:
    """Return the object of each file, and its SHA-256; bytes of the newest version are kept under any path."""
    index, before, files, sha256 = ChecksumIndex(push.folder / PUSHED), current.files, {}, {}
    by_digest = {digest: before[path] for path, digest in current.sha256.items() if path in before}
    try:
        for name, path in push.paths.items():
            status, crc = index.read(name, path)
            file, known = StoredObject(listing.prefix + name, status.st_size, "", crc), before.get(name)
            unchanged = known is not None and same_bytes(file, known)
            if not same_bytes(file, push.files.get(name, file)):
                raise DataError(f"{path}: was changed while it was pushed; push again")
            digest = (current.sha256.get(name) if unchanged else None) or push.sha256.get(name) or sha256_of(path)
            sha256[name] = digest
            places = [known] if known is not None and unchanged else []
            places += [file] if file.key in listing.there else []
            places += [by_digest[digest]] if digest in by_digest else []
            found = (_placed(file, place, listing) for place in [*places, file])
            other = replace(file, key=f"{listing.prefix}objects/{digest}")
            files[name] = next(filter(None, found), other)
    except OSError as error:
        raise MachineError(f"{error.filename}: cannot be read, {error.strerror}; correct its mode") from error
    finally:
        index.save()
    return files, sha256


def _placed(file: StoredObject, place: StoredObject, listing: DatasetListing) -> StoredObject | None:
    """Return a file in the place of one that has its bytes; None if it can neither be found there nor stored."""
    if isinstance(place, PackedFile):
        return place if same_bytes(file, place) and listing.listed(place) else None
    return replace(file, key=place.key) if same_bytes(file, listing.there.get(place.key, file)) else None
