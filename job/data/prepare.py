"""A dataset of the bucket made ready to train on: pulled, checked, pinned.

Guarantees that training sees exactly the files whose digest the run records, minus those that were set aside.
"""

import fcntl
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job import machine
from job.data.check import DatasetReport, check_dataset, quarantine_files, write_training_yaml
from job.data.lock import LOCK, dataset_digest, dataset_files, is_dataset_file, make_lock, require_locked, split_digest
from job.errors import DataError, RunConflictError
from job.ledger import Label, Ledger
from job.log import Progress
from job.store import Store, StoredObject
from job.store.transfer import Transferred, pull, push
from job.training_arguments import nearest

log = logging.getLogger(__name__)

NUM_WARNINGS_SHOWN = 5

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


def push_dataset(store: Store, folder: Path, name: str) -> Transferred:
    """Push a YOLO folder, and its lock last.

    Raises:
        DataError: If it is no dataset, or the name cannot be one.
        StoreError: If the store fails; what has arrived stays for the next time.
    """
    if not (folder / "data.yaml").is_file():
        raise DataError(f"{folder}: has no data.yaml; push the folder that has images/, labels/ and data.yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise DataError(f"dataset {name!r}: is not a name; use letters, digits, '.', '-' and '_'")
    prefix = f"datasets/{name}/"
    names = [
        relative
        for path in sorted(folder.rglob("*"))
        if path.is_file() and is_dataset_file(relative := path.relative_to(folder).as_posix())
    ]
    size = sum((folder / relative).stat().st_size for relative in names)
    with Progress(f"pushing {name}", size, "B") as progress:
        pushed = push(folder, names, store, prefix, lambda done: progress.to(done.num_bytes))
    for stored in store.list(prefix):
        relative = stored.key.removeprefix(prefix)
        if relative not in names and is_dataset_file(relative):
            store.delete(stored.key)
    files = dataset_files(store.list(prefix, checksums=True), prefix)
    store.put(prefix + LOCK, make_lock(files, prefix), overwrite=True)
    return pushed


def pull_dataset(store: Store, name: str, workdir: Path) -> Transferred:
    """Pull a dataset into ``datasets/NAME`` of a working folder.

    Raises:
        DataError: If it is not what its lock says.
        MachineError: If it does not fit on the disk, or the folder cannot be written.
        StoreError: If the store fails; what has arrived stays for the next time.
    """
    return _pull(store, name, workdir, _locked_files(store, name))


def prepare_data(
    store: Store,
    name: str,
    workdir: Path,
    target_yaml: Path,
    ledger: Ledger,
    *,
    quarantine: bool,
    pinned: dict[str, Any] | None = None,
    subject: str = "",
) -> PreparedData:
    """Pull and check a dataset.

    Args:
        store: The bucket.
        name: The dataset's name.
        workdir: Keeps the files for the next time.
        target_yaml: Where to write the data file for Ultralytics.
        ledger: Counts what this takes.
        quarantine: Set broken files aside instead of refusing the dataset.
        pinned: What an existing run was started on; other data are refused.
        subject: What messages call that run.

    Raises:
        DataError: If the dataset is broken; lists every problem.
        RunConflictError: If it is not the one that was pinned.
        MachineError: If it does not fit on the disk.
    """
    with ledger.entered(Label.PULL):
        files = _locked_files(store, name)
    digest = dataset_digest(files, f"datasets/{name}/")
    if pinned is not None and pinned["digest"] != digest:
        raise RunConflictError(
            f"{subject}: was started on other data, the digest of dataset {name} was {pinned['digest'][:12]} and is "
            f"{digest[:12]}; put the files back, or start a new run"
        )
    with ledger.entered(Label.PULL):
        pulled = _pull(store, name, workdir, files)
    log.info("dataset %s: %d files, %d of them fetched now", name, len(files), pulled.num_transferred)
    folder = pulled.folder
    with ledger.entered(Label.CHECK), _one_at_a_time(folder):
        report = _check(folder, name)
        set_aside: tuple[str, ...] = ()
        if quarantine and report.problems:
            set_aside = tuple(quarantine_files(folder, report, folder.with_name(f"{name}.quarantine")))
            log.warning("dataset %s: %d broken files are set aside and not trained on", name, len(set_aside))
            report = _check(folder, name)
    report.raise_if_broken(f"dataset {name}")
    for warning in report.warnings[:NUM_WARNINGS_SHOWN]:
        log.warning("dataset %s: %s", name, warning)
    write_training_yaml(folder, report, target_yaml)
    val = split_digest(files, f"datasets/{name}/", report.val, report.names)
    return PreparedData(name, digest, target_yaml, report.names, set_aside, val)


def _locked_files(store: Store, name: str) -> list[StoredObject]:
    """List a dataset's files, proved to be those of its lock if it has one."""
    prefix = f"datasets/{name}/"
    listing = store.list(prefix, checksums=True)
    files = dataset_files(listing, prefix)
    if any(stored.key == prefix + LOCK for stored in listing):
        require_locked(store.read(prefix + LOCK), files, prefix, f"dataset {name}")
    return files


def _pull(store: Store, name: str, workdir: Path, files: list[StoredObject]) -> Transferred:
    folder = workdir / "datasets" / name
    machine.require_writable(folder)
    size = sum(stored.size_bytes for stored in files)
    with _one_at_a_time(folder), machine.explained(workdir):
        machine.require_space(folder, size, SPARE_BYTES)
        with Progress(f"pulling {name}", size, "B") as progress:
            return pull(store, f"datasets/{name}/", folder, files, lambda done: progress.to(done.num_bytes))


def _check(folder: Path, name: str) -> DatasetReport:
    with Progress(f"checking {name}", 1, "file") as progress:
        return check_dataset(folder, cache_file=folder / ".check.json", progress=progress.to)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time change a pulled dataset."""
    with folder.with_name(f".{folder.name}.lock").open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
