"""``job train``: from words to an order, and what a dry run prints."""

import logging
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from job.cli.options import Mistakes, bucket_location, read_flag, read_number, read_profile, read_seconds, require_store
from job.datasets.prepare import find_dataset
from job.errors import JobError, MachineError, UsageError
from job.recipes.arguments import ALIASES, DEFAULTS, OWNED, read_argument
from job.recipes.recipe import Profile, Recipe, load_recipe
from job.recipes.recognition import with_expectation
from job.runs.lineage import find_start
from job.runs.request import Order
from job.runs.run import check_run_name
from job.runs.search import find_run
from job.runs.unfinished import tell_beside
from job.storage.object_store import Store
from job.text import nearest

log = logging.getLogger(__name__)

OWN_FLAGS = (
    "recipe", "bucket", "dataset", "run", "weights", "model", "profile", "device", "workers", "workdir",
    "checkpoint-every", "hang-after", "new-classes", "quarantine", "dry-run",
)  # fmt: skip

DEFAULT_WORKERS = 8
"""Loader processes, as Ultralytics; never more than there are cores."""

MAX_WORKERS = 1024
"""Each is a process; no machine that trains has as many cores."""


def run_train(*, training_arguments: dict[str, str], **flags: Any) -> None:  # noqa: ANN401 -- text by flag, as Fire has it
    """Train, or print what would be trained.

    Raises:
        JobError: For whatever is wrong; see the exit codes.
    """
    order = read_order(training_arguments=training_arguments, **flags)
    if read_flag(flags["dry_run"], "dry-run"):
        _print_plan(order, bucket_location(flags["bucket"]))
        return
    if order.recipe.profile == "demo" and ("," in order.device or "RANK" in os.environ):
        raise UsageError(f"--device: must be one device for the demo, got {order.device!r}")
    store = open_bucket(order.recipe.profile, flags["bucket"])
    leave_to_others(order)
    if order.recipe.profile == "demo":
        from job.session.demo import train_demo

        train_demo(store, order)
    else:
        from job.session.train import train

        train(store, order)


def leave_to_others(order: Order) -> None:
    """If an order names several devices, give the command to as many processes, and exit as the first of them does."""
    num_devices = len(order.device.split(","))
    if num_devices > 1 and "RANK" not in os.environ:
        from job.training.launch import launch

        sys.exit(launch(sys.argv[1:], num_devices))


def read_order(
    *,
    recipe: str | None,
    dataset: str | None,
    run: str | None,
    weights: str | None,
    model: str | None,
    profile: str,
    device: str,
    workers: str | None,
    workdir: str,
    checkpoint_every: str,
    new_classes: str,
    quarantine: str,
    training_arguments: dict[str, str],
    hang_after: str = "1800",
    **_others: str | None,
) -> Order:
    """Turn the words of a command line into an order.

    Raises:
        UsageError: If a flag does not exist or has no such value.
        RecipeError: If the recipe or a training argument is wrong.
    """
    mistakes = Mistakes()
    asked: Recipe | None = None
    overrides: dict[str, Any] = {}
    with mistakes:
        overrides = _read_training_arguments(training_arguments)
    with mistakes:
        if model is not None and not re.fullmatch(r"[\w.-]+\.(pt|ya?ml)", model):
            raise UsageError(f"--model: must be NAME.pt or NAME.yaml, got {model!r}; weights of your own are --weights")
    with mistakes:
        chosen = load_recipe(recipe or ("continue" if weights else "base"), read_profile(profile))
        asked = chosen.with_arguments(overrides)
    with mistakes:
        run = run and check_run_name(run)
    with mistakes:
        with_new_classes = read_flag(new_classes, "new-classes")
    with mistakes:
        with_quarantine = read_flag(quarantine, "quarantine")
    with mistakes:
        num_workers = read_workers(workers)
    with mistakes:
        checkpoint_every_s = read_seconds(checkpoint_every, "checkpoint-every")
    with mistakes:
        hang_after_s = read_seconds(hang_after, "hang-after")
    mistakes.tell()
    assert asked is not None  # noqa: S101 -- for the type checker: else a mistake was told
    return Order(
        recipe=with_expectation(asked, weights or model or str(asked.start)),
        dataset=dataset,
        run=run,
        weights=weights,
        model=model,
        new_classes=with_new_classes,
        quarantine=with_quarantine,
        device=device,
        workers=num_workers,
        workdir=Path(workdir).resolve(),
        checkpoint_every_s=checkpoint_every_s,
        hang_after_s=hang_after_s,
    )


def _read_training_arguments(given: dict[str, str]) -> dict[str, Any]:
    unknown = []
    values: dict[str, Any] = {}
    for word, text in given.items():
        name = ALIASES.get(word, word)
        if name in DEFAULTS:
            value = read_argument(name, text)
            if name in values and values[name] != value:
                raise UsageError(f"--{word}: is the same as --{name}, which has another value; pass one of them")
            values[name] = value
        elif name in OWNED:
            values[name] = text
        else:
            flag = word.replace("_", "-")
            known = [*OWN_FLAGS, *(entry.replace("_", "-") for entry in (*DEFAULTS, *ALIASES))]
            unknown.append(f"--{flag}: there is no such flag{nearest(flag, known)}")
    if unknown:
        raise UsageError("command line: not understood; see `job train --help`", unknown)
    return values


def read_workers(text: str | None) -> int:
    """Read a number of loader processes.

    Raises:
        UsageError: If it is none.
    """
    return min(DEFAULT_WORKERS, os.cpu_count() or 1) if text is None else read_number(text, "workers", 0, MAX_WORKERS)


def open_bucket(profile: Profile, bucket: str | None) -> Store:
    """Open the bucket that was named; a folder for the demo is made.

    Raises:
        JobError: If it cannot be opened or made.
    """
    location = bucket_location(bucket)
    if profile == "demo" and location and "://" not in location:
        try:
            Path(location).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"bucket {location}: cannot be made, {error.strerror}; pass another --bucket") from error
    return require_store(bucket)


def _print_plan(order: Order, location: str | None) -> None:
    """Print the resolved run; what a bucket would decide and cannot is null and explained on stderr."""
    plan: dict[str, Any] = {
        "recipe": order.recipe.name,
        "profile": order.recipe.profile,
        "run": order.run,
        "dataset": order.dataset,
        "start": {"from": order.weights or order.model or str(order.recipe.start), "found": None},
        "train": order.recipe.train,
    }
    if location is None:
        log.info("no bucket was named: run, dataset and start weights are not looked up")
    else:
        problems = []
        store = require_store(location)
        try:
            plan["dataset"] = find_dataset(store, order.dataset)
            order = replace(order, dataset=plan["dataset"])
        except JobError as error:
            problems.append(error)
        try:
            run, record = find_run(store, order.run, order.request(plan["dataset"]))
            plan["run"] = run.name
            if record is None and order.run is None:
                tell_beside(store, run, order.request(plan["dataset"]), "train")
            point = find_start(store, order, run.name) if record is None else record.start.point
            plan["start"]["found"] = str(point)
            if record is None and point.why is not None:
                log.info("start weights: %s", point.why)
        except JobError as error:
            problems.append(error)
        for problem in dict.fromkeys(map(str, problems)):
            log.warning("it would not start: %s", problem)
    log.info("recipe %s", order.about_recipe)
    print(yaml.safe_dump(plan, sort_keys=False, allow_unicode=True), end="")
