"""``job train``: a training on this machine; a dry run prints its plan."""

import logging
import sys
from pathlib import Path

import yaml
from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption
from job.datasets.prepare import find_dataset
from job.datasets.push import require_name
from job.errors import JobError, UsageError
from job.runs.lineage import find_start
from job.runs.request import TrainRequest
from job.runs.search import find_run, warn_of_unfinished
from job.storage.object_store import Store
from job.training.isolation import is_rank
from job.training.nodes import find_nodes

log = logging.getLogger(__name__)


class TrainOptions(TrainRequest, BucketOption):
    """Flags of ``job train``."""

    positional = ("recipe",)

    data: str | None = Field(
        None,
        description="Pictures to push first: a YOLO folder, a Roboflow export, COCO annotations, or a ZIP of one; "
        "the dataset is called as they are, or as --dataset says.",
    )
    dry_run: bool = Field(default=False, description="Start nothing; print the resolved run as YAML.")


@command(TrainOptions, "job train A --bucket gs://my-bucket --dataset wildlife --epochs 50")
def train(options: TrainOptions) -> None:
    """Train, or print what would be trained.

    The same command again resumes the run from its last committed checkpoint. lr0=0.01 is understood as --lr0 0.01.

    Retraining your own weights keeps what they learned; the optimizer, the learning rate and the epochs begin anew.
    There are three ways. Continue (recipe continue), if the last run ended while it still improved. Fine-tune (A
    first, then C; or finetune), if it is decent and misses much: more augmentation. Transfer (B or transfer), if that
    was not enough: a larger model, for which your weights are given up. docs/retraining.md has the rest; `job advise`
    tells which is next.
    """
    if options.data is not None and options.dataset is None:
        from job.datasets.import_folder import dataset_name

        options = options.model_copy(update={"dataset": dataset_name(Path(options.data))})
    if options.dry_run:
        _print_plan(options)
        return
    is_demo = options.recipe.profile == "demo"
    if is_demo and ("," in options.device or is_rank()):
        raise UsageError(f"--device: must be one device for the demo, got {options.device!r}")
    store = options.store_for("demo" if options.data else options.recipe.profile)
    if options.data is not None and not is_rank():
        _push_data(store, options, options.data)
    launch_ranks(options.device)
    if is_demo:
        from job.session.demo import train_demo

        train_demo(store, options)
    else:
        from job.session import train as session

        session.train(store, options)


def _push_data(store: Store, options: TrainOptions, data: str) -> None:
    from job.datasets.import_folder import push_source

    train = options.recipe.train
    pushed, _ = push_source(
        *(store, Path(data), str(options.dataset), options.workdir),
        single_class=bool(train["single_cls"]),
        imgsz=train["imgsz"],
    )
    log.info("dataset %s: %s", options.dataset, pushed)


def launch_ranks(device: str) -> None:
    """Run this command as one process for each device if there are several, or several nodes, and exit as they do."""
    if is_rank():
        return
    nodes = find_nodes()
    if "," in device or nodes.number > 1:
        from job.training.launch import launch

        sys.exit(launch(sys.argv[1:], device, nodes))


def _find_data(store: Store, options: TrainOptions) -> str:
    """Return the dataset to train on, which need not be in the bucket if pictures are pushed first."""
    if options.data is None:
        from job.session.demo import default_dataset

        return find_dataset(store, default_dataset(store, options))
    from job.datasets.import_folder import require_source

    source, name = require_source(Path(options.data)), require_name(str(options.dataset))
    log.info("dataset %s: %s would be checked and pushed first", name, source)
    return name


def _print_plan(options: TrainOptions) -> None:
    """Print the resolved run; a value that cannot be looked up is null, and explained on stderr."""
    recipe, run, dataset, start = options.recipe, options.run, options.dataset, None
    if options.location is None:
        log.info("no bucket was named: run, dataset and start weights are not looked up")
    else:
        problems, store = [], options.store()
        try:
            dataset = _find_data(store, options)
        except JobError as error:
            problems.append(error)
        try:
            request, identity = options.model_copy(update={"dataset": dataset}), options.identity(dataset)
            found, record = find_run(store, run, identity)
            if record is None and run is None:
                warn_of_unfinished(store, found, identity, "train")
            run = found.name
            point = find_start(store, request, run) if record is None else record.start.point
            start = str(point)
            if record is None and point.why is not None:
                log.info("start weights: %s", point.why)
        except JobError as error:
            problems.append(error)
        for problem in dict.fromkeys(map(str, problems)):
            log.warning("it would not start: %s", problem)
    log.info("recipe %s", options.recipe_description)
    plan = {
        "recipe": recipe.name,
        "profile": recipe.profile,
        "run": run,
        "dataset": dataset,
        "start": {"from": options.start, "found": start},
        "train": recipe.train,
    }
    print(yaml.safe_dump(plan, sort_keys=False, allow_unicode=True), end="")
