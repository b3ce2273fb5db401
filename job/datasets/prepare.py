"""A dataset of the bucket made ready to train on: pulled, checked, pinned.

Guarantees that training sees exactly the files whose digest the run records, minus those that were set aside.
"""

import fcntl
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.datasets.check import DatasetReport, broken_files, check_dataset, set_aside, write_training_yaml
from job.datasets.lockfile import DatasetVersion, read_version, split_digest
from job.datasets.scan import SCAN_CACHE
from job.errors import DataError, MachineError, RunConflictError
from job.goodput import Phase, PhaseTimer
from job.log import Progress, one_line
from job.storage.object_store import Store
from job.storage.regular_file import open_regular
from job.storage.transfer import Transferred, mark_own, pull
from job.storage.workdir import explained, require_space, require_writable
from job.text import nearest, shortened

log = logging.getLogger(__name__)

NUM_WARNINGS_SHOWN, NUM_SHOWN = 5, 10

SPARE_BYTES = 2_000_000_000
"""Free space that training needs beside the data: checkpoints on their way and plots."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """A dataset on this machine's disk."""

    name: str
    digest: str
    yaml: Path
    class_names: tuple[str, ...]
    set_aside: tuple[str, ...]
    """Broken files that training does not see."""

    val: str
    """Digest of what the validation set is: metrics are comparable where it is the same."""

    @property
    def pinned(self) -> dict[str, Any]:
        """What a run's record says of the data."""
        return {"name": self.name, "digest": self.digest, "set_aside": list(self.set_aside), "val": self.val}


def find_dataset(store: Store, name: str | None) -> str:
    """Return the name of the dataset that is meant: the only one, if none was named.

    Raises:
        DataError: If there is none, or several and none was named.
    """
    names = sorted({stored.key.split("/")[1] for stored in store.list("datasets/") if stored.key.count("/") > 1})
    if name is None:
        if len(names) == 1:
            return names[0]
        if not names:
            raise DataError(f"dataset: there is none in {store.uri}; push one with `job data push DIR --dataset NAME`")
        raise DataError(f"dataset: there are {len(names)} in {store.uri}; choose one with --dataset", names)
    if name not in names:
        listed = f"; there are {', '.join(names)}" if names else "; push one with `job data push DIR --dataset NAME`"
        raise DataError(f"dataset {name!r}: there is none of that name in {store.uri}{nearest(name, names) or listed}")
    return name


def pull_dataset(store: Store, name: str, workdir: Path) -> Transferred:
    """Pull the newest version of a dataset into ``datasets/NAME`` of a working folder.

    Raises:
        DataError: If it is not what its lock says.
        MachineError: If it does not fit on the disk, or the folder cannot be written.
        StoreError: If the store fails; what has arrived stays for the next time.
    """
    return _pull(store, name, workdir, read_version(store, name))


def prepare_data(
    store: Store,
    name: str,
    workdir: Path,
    target_yaml: Path,
    timer: PhaseTimer,
    *,
    quarantine: bool,
    single_class: bool = False,
    pinned: dict[str, Any] | None = None,
    subject: str = "",
) -> PreparedData:
    """Pull and check a dataset.

    Args:
        store: The bucket.
        name: The dataset's name.
        workdir: Keeps the files for the next time.
        target_yaml: Where to write the data file for Ultralytics.
        timer: Counts what this takes.
        quarantine: Set broken files aside instead of refusing the dataset.
        single_class: Training counts all classes as one.
        pinned: The dataset in the record of an existing run: that version is taken, with the same files set aside.
            Its problems are warnings.
        subject: What messages call that run.

    Raises:
        DataError: If the dataset is broken; lists every problem.
        RunConflictError: If there is no version like the one that was pinned.
        MachineError: If it does not fit on the disk, or if files of the user's in the folder would be trained on.
    """
    with timer.entered(Phase.PULL):
        version = read_version(store, name, (pinned["digest"],) if pinned else ())
        if pinned and pinned["digest"] not in version.digests:
            raise RunConflictError(
                f"{subject}: was started on other data, the digest of dataset {name} was {pinned['digest'][:12]} and "
                f"is {version.digest[:12]}; put the files back, or start a new run"
            )
        pulled = _pull(store, name, workdir, version)
    log.info("dataset %s: %d files, %d of them fetched now", name, pulled.num_total, pulled.num_transferred)
    folder = pulled.folder
    with timer.entered(Phase.CHECK), _one_at_a_time(folder):
        report = _check(folder, name, single_class=single_class)
        _require_no_others(folder, report.files - version.files.keys())
        aside = pinned.get("set_aside", ()) if pinned else broken_files(folder, report) if quarantine else ()
        if aside:
            mark_own(folder, set_aside(folder, aside, folder.with_name(f"{name}.quarantine")))
            log.warning("dataset %s: %d broken files are set aside and not trained on", name, len(aside))
            report = _check(folder, name, single_class=single_class)
    if pinned is None:
        advice = "correct them, and push the dataset again"
        report.raise_if_broken(f"dataset {name}", f"{advice}, or pass --quarantine to set broken files aside")
    _tell(name, [*(f"{problem}" for problem in report.problems), *report.warnings])
    write_training_yaml(folder, report, target_yaml)
    val = split_digest(version.files, report.val, report.names)
    digest = pinned["digest"] if pinned else version.digest
    return PreparedData(name, digest, target_yaml, report.names, tuple(aside), val)


def _tell(name: str, warnings: list[str]) -> None:
    for warning in warnings[:NUM_WARNINGS_SHOWN]:
        log.warning("dataset %s: %s", name, one_line(warning))
    if len(warnings) > NUM_WARNINGS_SHOWN:
        left = len(warnings) - NUM_WARNINGS_SHOWN
        log.warning("dataset %s: and %d more of this kind; see `job data check %s`", name, left, name)


def _pull(store: Store, name: str, workdir: Path, version: DatasetVersion) -> Transferred:
    folder = workdir / "datasets" / name
    require_writable(folder)
    size = sum(stored.size_bytes for stored in version.files.values())
    with _one_at_a_time(folder), explained(workdir):
        require_space(folder, size, SPARE_BYTES)
        with Progress(f"pulling {name}", size, "B") as progress:
            return pull(store, version.files, folder, lambda done: progress.to(done.num_bytes))


def _check(folder: Path, name: str, *, single_class: bool) -> DatasetReport:
    with Progress(f"checking {name}", 1, "file") as progress:
        cache = folder / SCAN_CACHE
        return check_dataset(folder, single_class=single_class, cache_file=cache, progress=progress.to)


def _require_no_others(folder: Path, others: Collection[str]) -> None:
    """Refuse files beside those of the version: Ultralytics reads whatever lies in the folder of a split.

    Raises:
        MachineError: If there are any; lists the first few.
    """
    if others:
        raise MachineError(
            f"{folder}: {len(others)} files there are not in the dataset, and training would read them; move them "
            "away, or choose another --workdir",
            shortened(sorted(others), NUM_SHOWN),
        )


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time change a pulled dataset."""
    with explained(folder.parent):
        opened = open_regular(folder.with_name(f".{folder.name}.lock"), append=True)
    with opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
