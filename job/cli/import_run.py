"""``job import``: a run that stock Ultralytics trained, as a finished run of the bucket."""

import logging
import shlex

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption
from job.datasets.lockfile import read_version
from job.datasets.prepare import find_dataset
from job.runs.import_run import import_run, imported_before, read_ultralytics_run
from job.runs.records import PinnedDataset
from job.runs.request import RunName
from job.runs.run import default_families, next_free_name
from job.runs.search import survey
from job.storage.paths import expanded
from job.text import command_line, counted, dataset_and_version, percent

log = logging.getLogger(__name__)


class ImportOptions(BucketOption):
    """Flags of ``job import``."""

    positional = ("folder",)

    folder: str = Field(description="A folder of `yolo train`, with weights/, results.csv and args.yaml.")
    dataset: str | None = Field(
        None, description="The dataset that it was trained on, also NAME@2; may be left out when there is one."
    )
    run: RunName | None = Field(None, description="The run's name; the folder's, or the next free one, if left out.")


@command(ImportOptions, "job import runs/yolov11_wildlife --bucket gs://my-bucket")
def import_(options: ImportOptions) -> None:
    """Import a run that stock Ultralytics trained.

    It counts as a finished run: A starts from it, and lists, comparisons, advice and reports show it as imported.
    """
    store = options.store()
    found = read_ultralytics_run(expanded(options.folder))
    reference = find_dataset(store, options.dataset)
    version, name = read_version(store, reference), dataset_and_version(reference)[0]
    dataset = PinnedDataset(name=name, version=version.number or None, digest=version.digest, set_aside=[])
    families, taken = default_families(name), survey(store).names
    folder = found.folder.name
    free = folder if folder in families and folder not in taken else next_free_name(families[0], taken)
    run, was_there = import_run(store, found, options.run or imported_before(store, found) or free, dataset)
    final = run.final()
    log.info("run %s: counts as trained on dataset %s; --dataset names another", run.name, dataset)
    state = "was imported before" if was_there else "is imported"
    epochs = f", {counted(final.num_epochs, 'epoch')}, F1 {percent(final.comparison.after['f1'])}" if final else ""
    print(f"run {run.name}: {state}{epochs}")
    words = ["job", "train", "--recipe", "A", "--weights", run.name, "--dataset", name, "--bucket", store.uri]
    print("\n".join(command_line("next", shlex.join(words))))
