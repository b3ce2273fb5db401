"""``job data``: check, push, pull, list, delete."""

import logging
import shlex
import textwrap
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption, JsonOption
from job.datasets.check import check_dataset
from job.datasets.dataset_report import DatasetReport
from job.datasets.dataset_statistics import IMGSZ
from job.datasets.import_folder import dataset_name, push_source
from job.datasets.prepare import find_dataset, pull_dataset
from job.datasets.scan import SCAN_CACHE
from job.datasets.versions import dataset_names, list_versions, plan_deletion
from job.errors import DataError
from job.log import one_line
from job.recipes.arguments import MAX_IMGSZ, MIN_IMGSZ
from job.runs.flags import WorkdirOption
from job.runs.search import FoundRun, submitted_request, survey
from job.storage.object_store import Store
from job.text import NUM_COLUMNS, command_line, counted, dataset_and_version, shortened, table

log = logging.getLogger(__name__)

NUM_RUNS_SHOWN = 10


class CheckOptions(JsonOption):
    """Options of reading a dataset."""

    single_cls: bool = Field(default=False, description="Count all classes as one, as `job train --single-cls` does.")
    follow_links: bool = Field(default=False, description="Follow links that lead out of the folder.")
    imgsz: Annotated[int, Field(ge=MIN_IMGSZ, le=MAX_IMGSZ)] = Field(
        IMGSZ, description="Image size of the training, for which sizes of objects are shown."
    )


class CheckDataOptions(CheckOptions, BucketOption, WorkdirOption):
    """Flags of ``job data check``."""

    positional = ("name",)

    name: str = Field(
        description="A dataset of the bucket, also NAME@2, or a folder here as a path such as ./wildlife."
    )


class PushDataOptions(CheckOptions, BucketOption, WorkdirOption):
    """Flags of ``job data push``."""

    positional = ("folder",)

    folder: str = Field(description="A YOLO folder, a Roboflow export, COCO annotations, or a ZIP of one.")
    dataset: str | None = Field(None, description="The dataset's name in the bucket; that of the folder if left out.")
    force: bool = Field(default=False, description="Push a dataset that training will refuse.")


class PullDataOptions(BucketOption, WorkdirOption):
    """Flags of ``job data pull``."""

    positional = ("name",)

    name: str = Field(description="A dataset of the bucket, also NAME@2; it goes to datasets/NAME in the workdir.")


class ListDataOptions(BucketOption, JsonOption):
    """Flags of ``job data list``."""


class DeleteDataOptions(BucketOption):
    """Flags of ``job data delete``."""

    positional = ("name",)

    name: str = Field(description="One version, NAME@2, or NAME for all of a dataset.")
    force: bool = Field(default=False, description="Delete although a push has begun and not ended.")


@command(CheckDataOptions, "job data check ./wildlife")
def check(options: CheckDataOptions) -> None:
    """Check a dataset of the bucket, or a folder here.

    Reads every label and image once.
    """
    name = options.name
    folder = Path(name)
    if "/" not in name:  # a plain name is a dataset of the bucket, even if a folder here has that name
        store = options.store()
        name = find_dataset(store, name)
        folder = pull_dataset(store, name, options.workdir).folder
    cache = folder / SCAN_CACHE
    report = check_dataset(
        folder,
        single_class=options.single_cls,
        follow_links=options.follow_links,
        cache_file=cache,
        imgsz=options.imgsz,
    )
    report.raise_if_broken(f"dataset {name}")
    lines = [f"dataset {name}: no problems; classes {', '.join(map(one_line, report.names))}", *_format_report(report)]
    lines += [f"  note: {one_line(warning)}" for warning in report.warnings]
    options.print({"dataset": name, **_as_json(report)}, lines)


@command(PushDataOptions, "job data push ./wildlife --dataset wildlife --bucket gs://my-bucket")
def push(options: PushDataOptions) -> None:
    """Push a folder, or an export.

    It is checked as training checks it; files that are in the bucket are not sent again. Other content than that of the
    newest version becomes the next version.
    """
    store, source = options.store(), Path(options.folder)
    dataset = options.dataset or dataset_name(source)
    pushed, report = push_source(
        *(store, source, dataset, options.workdir),
        force=options.force,
        single_class=options.single_cls,
        follow_links=options.follow_links,
        imgsz=options.imgsz,
    )
    options.print(
        {"dataset": dataset, **asdict(pushed), **_as_json(report)},
        [f"dataset {dataset}: {pushed}", *_format_report(report), *command_line("next", _training_on(dataset, store))],
    )


def _training_on(dataset: str, store: Store) -> str:
    """Return the command that trains a first model on a dataset."""
    return shlex.join(["job", "train", "--recipe", "base", "--dataset", dataset, "--bucket", store.uri])


@command(PullDataOptions, "job data pull wildlife --bucket gs://my-bucket")
def pull(options: PullDataOptions) -> None:
    """Pull a dataset.

    Every file is verified; files that are here are not fetched again.
    """
    name, store = options.name, options.store()
    pulled = pull_dataset(store, find_dataset(store, name), options.workdir)
    print(
        f"dataset {name}: {counted(pulled.num_total, 'file')} in {pulled.folder}, {pulled.num_transferred} of them "
        f"fetched now ({pulled.bytes_transferred / 1e6:.1f} MB)"
    )


@command(ListDataOptions, "job data list --bucket gs://my-bucket")
def list_(options: ListDataOptions) -> None:
    """List the versions of all datasets.

    Each has its size, the bytes that it alone needs, its differences from the version before, and the runs on it.
    """
    store = options.store()
    versions = [version for name in dataset_names(store) for version in list_versions(store, name)]
    runs = survey(store).runs if versions else []
    content, rows = [], [("dataset", "files", "size", "alone", "differences", "runs")]
    for version in versions:
        on_it = [found.run.name for found in runs if _is_on(found, version.name, version.digests)]
        size, own = (f"{size / 1e6:.1f} MB" for size in (version.size_bytes, version.own_bytes))
        row = (f"{version.name}@{version.number}", str(version.num_files), size, own)
        rows.append((*row, version.changes, ", ".join(on_it)))
        content.append({**asdict(version), "digests": sorted(version.digests), "runs": on_it})
    options.print(content, table(rows, right={1, 2, 3}, wrap=20) if versions else [f"no dataset in {store.uri}"])


@command(DeleteDataOptions, "job data delete wildlife@1 --bucket gs://my-bucket")
def delete(options: DeleteDataOptions) -> None:
    """Delete a version of a dataset, or all of it.

    Frees what no other version holds. A version that an unfinished run needs is refused; a finished run whose version
    is gone can be neither extended nor evaluated. The same command goes on with a deletion that was cut off.
    """
    store, (name, _) = options.store(), dataset_and_version(options.name)
    if name not in dataset_names(store):
        find_dataset(store, name)  # says what is there
    deletion, seen = plan_deletion(store, options.name), survey(store, list_ended=True)
    on_it = [found for found in seen.runs if _is_on(found, name, deletion.digests)]
    needed = [found.run.name for found in on_it if not found.finished]
    newest = max(deletion.listing.numbers, default=1)
    for run in seen.submitted:
        request = submitted_request(run)
        wanted, number = dataset_and_version(str(request["dataset"])) if request else ("", None)
        needed += [run.name] if wanted == name and (number or newest) in deletion.numbers else []
    if needed:
        advice = "let them end, or delete their folders below runs/"
        raise DataError(f"dataset {options.name}: unfinished runs need it; {advice}", shortened(needed, NUM_RUNS_SHOWN))
    if on_it:
        names = ", ".join(shortened([found.run.name for found in on_it], NUM_RUNS_SHOWN))
        log.warning("dataset %s: finished runs were trained on it and cannot be extended: %s", options.name, names)
    num_freed, num_bytes = deletion.carry_out(force=options.force)
    gone = ", ".join(f"{name}@{number}" for number in deletion.numbers)
    print(f"dataset {name}: deleted {gone}; {counted(num_freed, 'object')} freed ({num_bytes / 1e6:.1f} MB)")


def _is_on(found: FoundRun, name: str, digests: Collection[str]) -> bool:
    """Whether a run is on a version of a dataset."""
    return found.record.dataset.name == name and found.record.dataset.digest in digests


def _format_report(report: DatasetReport) -> list[str]:
    lines = [f"  {label:5} {one_line(text)}" for label, text in report.describe().items()]
    indent = " " * 8
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line, NUM_COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    ]


def _as_json(report: DatasetReport) -> dict[str, object]:
    return {
        "classes": report.names,
        "splits": {name: asdict(counts) for name, counts in report.splits.items()},
        "statistics": report.statistics and report.statistics.to_json(),
        "near_duplicates": [asdict(each) for each in report.near_duplicates],
        "problems": [str(problem) for problem in report.problems],
        "warnings": report.warnings,
    }
