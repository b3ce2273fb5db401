"""A run's model and the labelled images of its dataset, on this machine.

Guarantees that the files are those of a checked version of the dataset, which no other process of this machine changes
meanwhile, and that the weights are those with which the run ended.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.datasets.labelled import LabelledImage, read_split
from job.errors import DataError
from job.runs.lineage import fetch_best
from job.runs.records import RunRecord
from job.runs.run import Run
from job.session.run_data import run_data
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
        DataError: If the dataset is gone or broken, or has no such split.
        WeightsError: If the weights are gone.
        MachineError: If it does not fit on the disk, or a library is missing.
    """
    with run_data(run, record, workdir, dataset) as (data, folder):
        images = read_split(workdir / "datasets" / data.name, split, single_class=record.train["single_cls"])
        if not images:
            raise DataError(f"dataset {data.name}: has no images in {split}; choose another split")
        isolate_ultralytics(folder / "ultralytics")
        weights = folder / BEST
        fetch_best(run, weights)
        yield LabelledData(images, data.class_names, data.digest, weights)
