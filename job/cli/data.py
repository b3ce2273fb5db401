"""``job data``: check, push, pull."""

import logging
from pathlib import Path

from job.cli.options import read_flag, require_store
from job.datasets.check import NUM_SHOWN, DatasetReport, check_dataset
from job.datasets.prepare import find_dataset, pull_dataset
from job.datasets.push import plan_push
from job.datasets.scan import SCAN_CACHE
from job.errors import DataError
from job.log import Progress, one_line
from job.runs.search import survey
from job.storage.object_store import Store
from job.text import shortened

log = logging.getLogger(__name__)


def check_data(name: str, bucket: str | None, workdir: str, **flags: str) -> None:
    """Check a dataset of the bucket, or a folder here.

    Raises:
        DataError: If it is broken; lists every problem.
    """
    folder, allowed = Path(name), {flag: read_flag(text, flag) for flag, text in flags.items()}
    if "/" not in name:  # a name is the bucket's, whatever lies here
        store = require_store(bucket)
        name = find_dataset(store, name)
        folder = pull_dataset(store, name, Path(workdir).resolve()).folder
    with Progress(f"checking {name}", 1, "file") as progress:
        report = check_dataset(
            folder,
            single_class=allowed["single_cls"],
            follow_links=allowed["follow_links"],
            cache_file=folder / SCAN_CACHE,
            progress=progress.to,
        )
    report.raise_if_broken(f"dataset {name}")
    print("\n".join(_in_words(name, report)))


def push_data(folder: str, dataset: str, bucket: str | None, **flags: str) -> None:
    """Push a folder.

    Raises:
        DataError: If it is no dataset or a broken one, or there is another one of that name.
        StoreError: If the bucket refuses.
    """
    allowed = {flag: read_flag(text, flag) for flag, text in flags.items()}
    store = require_store(bucket)
    plan = plan_push(
        *(store, Path(folder), dataset),
        force=allowed["force"],
        single_class=allowed["single_cls"],
        follow_links=allowed["follow_links"],
    )
    if plan.left_out:
        log.warning("%s: %d .npy files are left out, which no training reads", folder, len(plan.left_out))
    if plan.replaces:
        unfinished = _unfinished_runs(store, dataset)
        hang = f"; the unfinished runs {', '.join(unfinished)} hang on it, and go on with it" if unfinished else ""
        if not allowed["replace"]:
            raise DataError(
                f"dataset {dataset}: is in {store.uri} with other content{hang}; pass --replace to push a new version, "
                "or choose another --dataset",
                shortened(plan.changes, NUM_SHOWN),
            )
        log.warning("dataset %s: %d files differ from the version before%s", dataset, len(plan.changes), hang)
    pushed = plan.send()
    print(
        f"dataset {dataset}: version {pushed.version}, {pushed.num_total} files in {store.uri}/datasets/{dataset}, "
        f"{pushed.num_sent} of them sent now ({pushed.bytes_sent / 1e6:.1f} MB)"
    )


def _unfinished_runs(store: Store, dataset: str) -> list[str]:
    """Name the runs on a dataset that have not come to their end."""
    return [
        found.run.name for found in survey(store).runs if found.record.dataset.name == dataset and not found.finished
    ]


def pull_data(name: str, bucket: str | None, workdir: str) -> None:
    """Pull a dataset.

    Raises:
        DataError: If there is none of that name.
        StoreError: If the bucket refuses.
    """
    store = require_store(bucket)
    pulled = pull_dataset(store, find_dataset(store, name), Path(workdir).resolve())
    print(
        f"dataset {name}: {pulled.num_total} files in {pulled.folder}, {pulled.num_transferred} of them fetched now "
        f"({pulled.bytes_transferred / 1e6:.1f} MB)"
    )


def _in_words(name: str, report: DatasetReport) -> list[str]:
    lines = [f"dataset {name}: no problems; classes {', '.join(map(one_line, report.names))}"]
    lines += [
        f"  {split:5} {counts.num_images} images, {counts.num_background} of them background, "
        f"{sum(counts.instances)} objects"
        for split, counts in report.splits.items()
    ]
    return lines + [f"  note: {one_line(warning)}" for warning in report.warnings]
