"""``job data``: check, push, pull."""

from pathlib import Path

from job.commands.values import require_store
from job.data.check import DatasetReport, check_dataset
from job.data.prepare import find_dataset, pull_dataset, push_dataset
from job.log import Progress


def check_data(name: str, bucket: str | None, workdir: str) -> None:
    """Check a dataset of the bucket, or a folder here.

    Raises:
        DataError: If it is broken; lists every problem.
    """
    folder = Path(name)
    if "/" not in name:  # a name is the bucket's, whatever lies here
        store = require_store(bucket)
        name = find_dataset(store, name)
        folder = pull_dataset(store, name, Path(workdir).resolve()).folder
    with Progress(f"checking {name}", 1, "file") as progress:
        report = check_dataset(folder, cache_file=folder / ".check.json", progress=progress.to)
    report.raise_if_broken(f"dataset {name}")
    print("\n".join(_in_words(name, report)))


def push_data(folder: str, dataset: str, bucket: str | None) -> None:
    """Push a folder.

    Raises:
        DataError: If it is no dataset.
        StoreError: If the bucket refuses.
    """
    store = require_store(bucket)
    pushed = push_dataset(store, Path(folder), dataset)
    print(
        f"dataset {dataset}: {pushed.num_total} files in {store.uri}/datasets/{dataset}, {pushed.num_transferred} of "
        f"them sent now ({pushed.bytes_transferred / 1e6:.1f} MB)"
    )


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
    lines = [f"dataset {name}: no problems; classes {', '.join(report.names)}"]
    lines += [
        f"  {split:5} {counts.num_images} images, {counts.num_background} of them background, "
        f"{sum(counts.instances)} objects"
        for split, counts in report.splits.items()
    ]
    return lines + [f"  note: {warning}" for warning in report.warnings]
