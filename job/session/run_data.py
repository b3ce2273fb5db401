"""A run's data on this machine, for work with its weights that is no training."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from job.datasets.prepare import PreparedData, find_dataset, prepare_data
from job.goodput import PhaseTimer
from job.runs.records import RunRecord
from job.runs.run import Run
from job.storage.workdir import attempt_folder, require_writable


@contextmanager
def run_data(
    run: Run, record: RunRecord, workdir: Path, dataset: str | None = None
) -> Iterator[tuple[PreparedData, Path]]:
    """Pull and check the data of a run; within the block no other process of this machine changes them.

    Args:
        run: The run.
        record: Its record.
        workdir: Has the folder of the dataset.
        dataset: The name of a dataset whose newest version is taken; the version that the run has pinned if left out.

    Yields:
        The data, and a folder for files in transit, which is removed at the end.

    Raises:
        DataError: If the dataset is gone or broken.
        MachineError: If it does not fit on the disk.
    """
    require_writable(workdir)
    pinned = record.dataset
    name = find_dataset(run.store, dataset) if dataset else pinned.name
    with attempt_folder(workdir, f"data-{run.name}") as folder, ExitStack() as held:
        data = prepare_data(
            *(run.store, name, workdir, folder / "data.yaml", PhaseTimer()),
            held=held,
            quarantine=record.request["quarantine"],
            single_class=record.train["single_cls"],
            pinned=None if dataset else pinned.model_dump(),
            subject=f"run {run.name}",
            imgsz=record.train["imgsz"],
        )
        yield data, folder
