"""A run's model and the labelled images of its dataset, on this machine.

Guarantees that the files are those of a checked version of the dataset, which no other process of this machine changes
meanwhile, and that the weights are those with which the run ended.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.datasets.labelled import LabelledImage, read_split
from job.datasets.prepare import prepare_data
from job.errors import DataError
from job.goodput import PhaseTimer
from job.runs.lineage import fetch_best
from job.runs.records import RunRecord
from job.runs.run import Run
from job.storage.workdir import attempt_folder, require_writable
from job.training.files import BEST
from job.training.isolation import isolate_ultralytics


@dataclass(frozen=True, slots=True)
class LabelledData:
    """Images of a split, and weights."""

    images: list[LabelledImage]
    class_names: tuple[str, ...]
    digest: str
    """Of the dataset's version."""

    weights: Path
    folder: Path
    """For files in transit; removed at the end."""


@contextmanager
def labelled_data(
    run: Run, record: RunRecord, workdir: Path, split: str, dataset: str | None = None
) -> Iterator[LabelledData]:
    """Pull and check the dataset, fetch the best weights, and prepare this process for Ultralytics.

    Args:
        run: Is finished.
        record: Its record.
        workdir: Has the folder of the dataset.
        split: Of the dataset.
        dataset: The name of a dataset whose newest version is taken; the version that the run has pinned if left out.

    Raises:
        DataError: If the dataset is gone or broken, or has other classes than the run.
        WeightsError: If the weights are gone.
        MachineError: If it does not fit on the disk, or a library is missing.
    """
    require_writable(workdir)
    single_class, pinned = record.train["single_cls"], record.dataset
    with attempt_folder(workdir, f"labelled-{run.name}") as folder, ExitStack() as held:
        isolate_ultralytics(folder / "ultralytics")
        name = dataset or pinned.name
        data = prepare_data(
            *(run.store, name, workdir, folder / "data.yaml", PhaseTimer()),
            held=held,
            quarantine=record.request["quarantine"],
            single_class=single_class,
            pinned=None if dataset else pinned.model_dump(),
            subject=f"run {run.name}",
        )
        images = read_split(workdir / "datasets" / name, split, single_class=single_class)
        weights = folder / BEST
        fetch_best(run, weights)
        if not images:
            raise DataError(f"dataset {name}: has no images in {split}; choose another split")
        yield LabelledData(images, data.class_names, data.digest, weights, folder)
