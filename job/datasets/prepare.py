"""Dataset of a run: pulled, checked, pinned.

Guarantees that training reads exactly the files whose digest the run records, minus those in quarantine, and that no
other process of this machine changes them until it ends.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from job.datasets.check import broken_files, check_dataset, set_aside, write_training_yaml
from job.datasets.data_yaml import is_data_yaml
from job.datasets.dataset_report import DatasetReport, ReportCache
from job.datasets.dataset_statistics import IMGSZ, DatasetStatistics
from job.datasets.decoded_images import DecodedImages
from job.datasets.kept_version import KeptVersion
from job.datasets.labels import describe_problems
from job.datasets.lockfile import DatasetListing, DatasetVersion, list_dataset, list_locks, read_version
from job.datasets.pull_scan import scan_arriving
from job.datasets.scan import SCAN_CACHE
from job.datasets.versions import dataset_names
from job.errors import DataError, MachineError, RunConflictError
from job.goodput import Phase, PhaseTimer
from job.log import Progress, one_line
from job.storage.object_store import Store, StoredObject
from job.storage.regular_file import open_regular
from job.storage.shards import PackedFile
from job.storage.transfer import TransferResult, is_pulled, mark_replaceable, pull
from job.storage.workdir import require_space, require_writable, translated_errors
from job.text import counted, dataset_and_version, nearest, shortened
from job.training.prepared_pixels import PIXELS, PixelFolder, make_room

log = logging.getLogger(__name__)

Value = TypeVar("Value")

NUM_WARNINGS_SHOWN, NUM_SHOWN = 5, 10

SPARE_BYTES = 2_000_000_000
"""Free space that training needs beside the data, for checkpoints and plots."""

READERS_S = 30.0
"""How long a change waits for readers: data loaders outlive a killed training by seconds."""

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class PreparedData:
    """A dataset on this machine's disk."""

    name: str
    version: int | None
    """None for a folder that was copied in by hand."""

    digest: str
    yaml: Path
    class_names: tuple[str, ...]
    set_aside: tuple[str, ...]
    """Broken files in quarantine, which training does not read."""

    val: str
    """Digest of the validation split; metrics are comparable if it is equal."""

    test: str | None
    """Digest of the test split, if there is one."""

    statistics: DatasetStatistics | None
    pixels: PixelFolder
    """Folder of prepared pixels of its images."""

    shapes: Mapping[str, tuple[int, int]]
    """Heights and widths of its images as Ultralytics takes them, pixels, by the paths that it gives them."""

    @property
    def pinned(self) -> dict[str, Any]:
        """Fields of a run's record."""
        statistics = self.statistics and self.statistics.to_json()
        fields = {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "set_aside": list(self.set_aside),
            "val": self.val,
        }
        return {**fields, "statistics": statistics}


def find_dataset(store: Store, reference: str | None) -> str:
    """Return the reference of a dataset, by default of the only one; raises `DataError` if it does not exist."""
    names = dataset_names(store)
    name, number = dataset_and_version(reference) if reference is not None else (None, None)
    push = "push one with `job data push DIR --dataset NAME`"
    if name is None and not names:
        raise DataError(f"dataset: there is none in {store.uri}; {push}")
    if name is None and len(names) > 1:
        advice = "choose one with --dataset NAME, or through make with ARGS='--dataset NAME'"
        raise DataError(f"dataset: there are {len(names)} in {store.uri}; {advice}", names)
    if name is not None and name not in names:
        listed = f"there are {', '.join(names)}" if names else push
        hint = nearest(name, names) or f"; {listed}"
        raise DataError(f"dataset {name!r}: there is none of that name in {store.uri}{hint}")
    if name is not None and number is not None:
        list_dataset(store, name, "versions/" if number > 1 else "").version(number)
    return reference or names[0]


def pull_dataset(store: Store, reference: str, workdir: Path) -> TransferResult:
    """Pull a dataset, ``wildlife`` or ``wildlife@2``, into ``datasets/NAME`` of a working folder.

    Raises `DataError` if it differs from its lock, `MachineError` if it does not fit on the disk, the folder cannot be
    written, or a training reads another version there.
    """
    version = read_version(store, reference)
    with ExitStack() as held, _exclusive(workdir / "datasets" / dataset_and_version(reference)[0]) as folder:
        return _pull(store, folder, version, _Readers(folder, held))


def prepare_data(
    store: Store,
    reference: str,
    workdir: Path,
    target_yaml: Path,
    timer: PhaseTimer,
    *,
    held: ExitStack,
    quarantine: bool,
    single_class: bool = False,
    pinned: dict[str, Any] | None = None,
    subject: str = "",
    pulled_already: bool = False,
    imgsz: int = IMGSZ,
    tiles: int = 0,
    record_images: bool = False,
) -> PreparedData:
    """Pull and check a dataset, and write the data file for Ultralytics.

    For an existing run, the version that its record has `pinned` is pulled, the same files are set aside, and problems
    are warnings. For a new one, `quarantine` sets broken files aside instead of refusing the dataset. `held` is closed
    at first; until it is closed again, other processes of this machine cannot change the files. With `pulled_already`,
    another rank on this machine holds the files, and has set aside those that are. `subject` names the run in messages.
    Sizes of objects are those at `imgsz` and in `tiles`, as in `check_dataset`. Images that another machine has decoded
    and recorded are not decoded again; with `record_images`, this one records those that it decodes.

    Raises `DataError` with every problem of a broken dataset, `RunConflictError` if the pinned version does not exist,
    `MachineError` if it does not fit on the disk, or if the folder has files of the user's that would be trained on, or
    is read by another training of another version.
    """
    held.close()
    name, number = dataset_and_version(reference)
    digest, aside = (pinned["digest"], tuple(pinned["set_aside"])) if pinned else (None, ())
    with _exclusive(workdir / "datasets" / name) as folder:
        readers = _Readers(folder, held)
        check = _Check(folder, DecodedImages(store, name), single_class=single_class, imgsz=imgsz, tiles=tiles)
        with timer.entered(Phase.PULL):
            locks = list_locks(store, name)
        with timer.entered(Phase.CHECK):
            found = None if aside else check.kept(_wanted(locks, number, digest), digest)
        if found is None:
            with timer.entered(Phase.PULL):
                version = _version_of(locks, digest, subject) if digest else _read(locks, reference)
                if not pulled_already:
                    _pull_missing(store, check, version, readers, aside)
            with timer.entered(Phase.CHECK):
                others = None if pulled_already else readers
                find_broken = quarantine and not pinned
                report, aside = _settle(check, version, aside, others, find_broken=find_broken, record=record_images)
                found = check.keep(version, report, None if pulled_already else locks), report
        elif not pulled_already:
            _log_pulled(name, found[0].num_files)
        readers.join()
    kept, report = found
    _log_report(name, report, is_new=pinned is None)
    write_training_yaml(folder, report, target_yaml)
    images = PixelFolder(workdir / PIXELS, _by_path(folder, report.digests)), _by_path(folder, report.shapes)
    named = name, kept.number or None, digest or kept.digest
    return PreparedData(*named, target_yaml, report.names, aside, kept.val, kept.test, report.statistics, *images)


class _Check:
    """Check of a pulled dataset by some rules; a folder that is as it was is not checked again."""

    def __init__(self, folder: Path, decoded: DecodedImages, *, single_class: bool, imgsz: int, tiles: int) -> None:
        self.folder, self.decoded, self.single_class = folder, decoded, single_class
        self._imgsz, self._tiles = imgsz, tiles
        self._reports = self._look()

    def kept(self, locks: Collection[StoredObject], digest: str | None) -> tuple[KeptVersion, DatasetReport] | None:
        """Return the version that the folder has, if it has one of these locks, and this digest, and the report."""
        kept = KeptVersion.read(self.folder, self._reports.state, locks)
        if kept is None or (digest and digest not in kept.digests) or (report := self._reports.read()) is None:
            return None
        return kept, report

    def report(self, version: DatasetVersion) -> DatasetReport:
        """Return the report on a pulled version; raises `MachineError` for files of the user's."""
        self._reports = self._look()
        report = self._reports.read()
        if report is None:
            report = check_dataset(
                self.folder,
                single_class=self.single_class,
                cache_file=self.folder / SCAN_CACHE,
                known_hashes=self.decoded.hashes,
                imgsz=self._imgsz,
                tiles=self._tiles,
            )
            self._reports.write(report)
        _require_none(self.folder, report.files - version.files.keys())
        return report

    def keep(self, version: DatasetVersion, report: DatasetReport, locks: DatasetListing | None) -> KeptVersion:
        """Describe a version; with its lock among `locks`, record that the folder has it, as it was at the report."""
        kept = KeptVersion.of(version, report)
        if locks and version.number and is_pulled(self.folder, version.files):  # else a file was edited meanwhile
            kept.write(self.folder, self._reports.state, locks.lock(version.number))
        return kept

    def _look(self) -> ReportCache:
        return ReportCache(self.folder, f"{self.single_class} {self._imgsz} {self._tiles}")


def _settle(
    check: _Check,
    version: DatasetVersion,
    aside: tuple[str, ...],
    readers: "_Readers | None",
    *,
    find_broken: bool,
    record: bool,
) -> tuple[DatasetReport, tuple[str, ...]]:
    """Check a pulled version, set files aside, and return the report on the others, and which those are.

    Without `readers`, another rank on this machine has set them aside. With `record`, other machines do not decode
    again what this one has decoded.
    """
    report = check.report(version)
    if record:
        check.decoded.add(report.hashes)
    if find_broken:
        aside = tuple(broken_files(check.folder, report))
    if aside and readers is not None:
        _quarantine(check.folder, aside, readers)
        report = check.report(version)
    return report, aside


def _quarantine(folder: Path, aside: Collection[str], readers: "_Readers") -> None:
    """Move broken files of a dataset into a folder beside it; a pull brings those back that a later check reads."""
    away = folder.with_name(f"{folder.name}.quarantine")
    mark_replaceable(folder, set_aside(folder, aside, away, readers.exclude))
    log.warning("dataset %s: sets %s aside, not trained on", folder.name, counted(len(aside), "broken file"))


def _by_path(folder: Path, found: Mapping[str, Value]) -> dict[str, Value]:
    """Return something of the images of a dataset by the paths that Ultralytics gives them."""
    root = os.path.realpath(folder)
    return {f"{root}/{image}": value for image, value in found.items()}


def _wanted(locks: DatasetListing, number: int | None, digest: str | None) -> list[StoredObject]:
    """Return the lock of a version, by default of the newest; with a digest, by which it is known, those of all."""
    numbers = locks.numbers if digest else locks.numbers[:1] if number is None else [number]
    return [locks.lock(each) for each in numbers if each in locks.numbers]


def _version_of(locks: DatasetListing, digest: str, subject: str) -> DatasetVersion:
    """Return the version that a run was started on."""
    version = _read(locks, locks.name, (digest,))
    if digest not in version.digests:
        raise RunConflictError(
            f"{subject}: was started on other data, the digest of dataset {locks.name} was {digest[:12]} and is "
            f"{version.digest[:12]}; put the files back, or start a new run"
        )
    return version


def _read(locks: DatasetListing, reference: str, digests: Sequence[str] = ()) -> DatasetVersion:
    """Return a version; of one with a lock, whose files may be on this disk, no object is looked up."""
    if not locks.numbers:
        return read_version(locks.store, reference, digests)
    return (digests and locks.find(digests)) or locks.version(dataset_and_version(reference)[1])


def _log_report(name: str, report: DatasetReport, *, is_new: bool) -> None:
    """Refuse a broken dataset for a new run, and log what the check found."""
    if is_new:
        advice = "correct them, and push the dataset again, or pass --quarantine to set broken files aside"
        report.raise_if_broken(f"dataset {name}", advice)
        for label, text in report.describe().items():
            log.info("dataset %s: %s: %s", name, label, one_line(text))
    warnings = [*describe_problems(report.problems), *report.warnings]
    for warning in warnings[:NUM_WARNINGS_SHOWN]:
        log.warning("dataset %s: %s", name, one_line(warning))
    if (left := len(warnings) - NUM_WARNINGS_SHOWN) > 0:
        log.warning("dataset %s: and %d more of this kind; see `job data check %s`", name, left, name)


def _pull_missing(
    store: Store, check: _Check, version: DatasetVersion, readers: "_Readers", leave_out: Collection[str]
) -> None:
    """Pull a version into a folder that may have it; images and labels are checked as they arrive."""
    folder = check.folder
    files = {name: stored for name, stored in version.files.items() if name not in leave_out}
    num_fetched = 0
    if not is_pulled(folder, files):
        there = list_dataset(store, folder.name).verified(version) if version.number else version
        with scan_arriving(folder, files, check.decoded.hashes, single_class=check.single_class) as on_fetched:
            pulled = _pull(store, folder, there, readers, leave_out=leave_out, on_fetched=on_fetched)
        num_fetched = pulled.num_transferred
    _log_pulled(folder.name, len(files), num_fetched)


def _log_pulled(name: str, num_files: int, num_fetched: int = 0) -> None:
    log.info("dataset %s: %s, %d of them fetched now", name, counted(num_files, "file"), num_fetched)


def _pull(
    store: Store,
    folder: Path,
    version: DatasetVersion,
    readers: "_Readers",
    *,
    leave_out: Collection[str] = (),
    on_fetched: Callable[[str], None] = lambda _name: None,
) -> TransferResult:
    wanted = {name: stored for name, stored in version.files.items() if name not in leave_out}
    files = {name: wanted[name] for name in sorted(wanted, key=lambda name: _place(name, wanted[name]))}
    size = sum(stored.size_bytes for stored in files.values())
    shards = {stored.shard for stored in files.values() if isinstance(stored, PackedFile)}
    needed = size + sum(shard.size_bytes for shard in shards)
    with translated_errors(folder):
        require_space(folder, needed, SPARE_BYTES, partial(make_room, folder.parent.with_name(PIXELS)))
        with Progress(f"pulling {folder.name}", size, "B") as progress:
            return pull(
                *(store, files, folder, lambda done: progress.to(done.num_bytes), readers.exclude),
                on_fetched=on_fetched,
            )


def _place(name: str, stored: StoredObject) -> int:
    """Return the place of a file in a pull: the data file first, by which others are checked, then the large shards."""
    return 0 if is_data_yaml(name) else 1 if isinstance(stored, PackedFile) else 2


def _require_none(folder: Path, others: Collection[str]) -> None:
    """Refuse files that are in no version: Ultralytics reads every file in the folder of a split."""
    if others:
        raise MachineError(
            f"{folder}: has {counted(len(others), 'file')} not in the dataset, which training would read; move such "
            "files away, or choose another --workdir",
            shortened(sorted(others), NUM_SHOWN),
        )


@contextmanager
def _exclusive(folder: Path) -> Iterator[Path]:
    """Make a folder for a pulled dataset and hold its lock: one process of this machine at a time looks into it."""
    require_writable(folder)
    with _lock_file(folder, "lock") as opened:
        with translated_errors(folder.parent):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield folder


class _Readers:
    """Processes of this machine that read a pulled dataset; used under the lock of `_exclusive`."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self._folder = folder
        self._opened = held.enter_context(_lock_file(folder, "readers"))

    def exclude(self) -> None:
        """Make sure that no other process reads the files, for a change of them; raises `MachineError` if one does."""
        deadline = time.monotonic() + READERS_S
        while True:
            try:
                fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"{self._folder}: a training on this machine reads these files, and they would have to "
                        "change; wait until it ends, or pass another --workdir"
                    ) from None
                time.sleep(POLL_S)
            else:
                return

    def join(self) -> None:
        """Read the files from here on, until `held` is closed."""
        fcntl.flock(self._opened, fcntl.LOCK_SH)


def _lock_file(folder: Path, kind: str) -> IO[bytes]:
    with translated_errors(folder.parent):
        return open_regular(folder.with_name(f".{folder.name}.{kind}"), append=True)
