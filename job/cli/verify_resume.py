"""``job verify-resume``: prove on this machine that killing a training changes nothing."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from job.cli.options import bucket_location, read_number, read_seconds, require_store
from job.cli.train import read_order
from job.datasets.prepare import find_dataset, pull_dataset
from job.datasets.push import push_dataset
from job.datasets.subset import take_subset
from job.datasets.synthetic import draw_demo_dataset
from job.errors import TrainingError
from job.recipes.recipe import load_recipe
from job.runs.request import Order
from job.session.verify_resume import Piece, Verdict, train_straight, verify_resume
from job.storage.local import FolderStore

NUM_EPOCHS = 3

BATCHES_PER_EPOCH = 6.5
"""The half is for a last batch that is not full."""

NUM_VALIDATION_BATCHES = 2

CHECKPOINT_EVERY_S = 0.2
"""Often, so that most kills are followed by a resumption within an epoch."""

AT_MOST_LARGER = 50.0


def run_verify_resume(
    *,
    recipe: str | None,
    kills: str,
    seconds: str,
    bucket: str | None,
    profile: str | None,
    training_arguments: dict[str, str],
    **flags: Any,  # noqa: ANN401 -- text by flag, as Fire has it
) -> None:
    """Verify, and print the verdict.

    Raises:
        TrainingError: If the trainings differ.
        JobError: For whatever else is wrong.
    """
    num_kills = read_number(kills, "kills")
    at_least_s = read_seconds(seconds, "seconds")
    location = bucket_location(bucket)
    short = {"epochs": str(NUM_EPOCHS), "close_mosaic": "1", "plots": "false"} | training_arguments
    order = read_order(
        **flags,
        training_arguments=short,
        profile=profile or ("full" if location else "demo"),
        recipe=recipe or "A",
        checkpoint_every=str(CHECKPOINT_EVERY_S),
    )
    order.workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=order.workdir, prefix="verify-resume-") as scratch:
        data = _data(location, order, Path(scratch))
        piece = _prepare(order, data, Path(scratch) / "1", BATCHES_PER_EPOCH)
        took_s = train_straight(piece)
        if took_s < at_least_s:
            larger = BATCHES_PER_EPOCH * min(at_least_s / took_s, AT_MOST_LARGER)
            piece = _prepare(order, data, Path(scratch) / "2", larger)
            took_s = train_straight(piece)
        num_steps = len(piece.trace("straight"))
        print(f"recipe {order.recipe.name}, profile {order.recipe.profile}, {order.workers} workers")
        print(f"straight   {num_steps} steps in {order.recipe.train['epochs']} epochs, {took_s:.0f} s")
        verdict = verify_resume(piece, num_kills, seed=random.SystemRandom().randrange(2**32))
    _print(verdict)
    if verdict.differences:
        raise TrainingError(
            "verification: FAIL, a training that is killed does not end like one that is not; do not rely on resuming "
            "on this machine, and report this",
            verdict.differences,
        )


def _data(location: str | None, order: Order, scratch: Path) -> Path:
    if location is None:
        draw_demo_dataset(scratch / "data")
        return scratch / "data"
    store = require_store(location)
    return pull_dataset(store, find_dataset(store, order.dataset), order.workdir).folder


def _prepare(order: Order, data: Path, folder: Path, batches_per_epoch: float) -> Piece:
    """Make a folder bucket that holds a piece of the data."""
    batch = order.recipe.train["batch"]
    num_images = {"train": int(batch * batches_per_epoch), "val": batch * NUM_VALIDATION_BATCHES}
    take_subset(data, folder / "piece", num_images)
    store = FolderStore.create(str(folder / "bucket"))
    single_class = bool(order.recipe.train.get("single_cls"))
    push_dataset(store, folder / "piece", "piece", single_class=single_class)
    shutil.rmtree(folder / "piece")
    words = {
        "recipe": order.recipe.source,
        "profile": order.recipe.profile,
        "model": order.model or _architecture(order),
        "device": order.device,
        "workers": order.workers,
        "workdir": folder / "work",
        "checkpoint-every": order.checkpoint_every_s,
        **{name.replace("_", "-"): value for name, value in _changed(order).items()},
    }
    return Piece(store, tuple(f"--{name}={value}" for name, value in words.items() if value != ""), folder)


def _architecture(order: Order) -> str:
    """Return the model that a family begins with; start weights have no part in resuming."""
    start = load_recipe("base", order.recipe.profile).start
    return str(start.name).replace(".pt", ".yaml")


def _changed(order: Order) -> dict[str, object]:
    """Return the training arguments that the command line changed."""
    recipe = load_recipe(order.recipe.source, order.recipe.profile)
    return {name: value for name, value in order.recipe.train.items() if value != recipe.train[name]}


def _print(verdict: Verdict) -> None:
    print(f"killed     {len(verdict.killed_after)} times, after {', '.join(map(str, verdict.killed_after))} steps")
    print(f"resumed    {len(verdict.resumed_at)} times, from {', '.join(verdict.resumed_at)}")
    if not verdict.differences:
        for group, digest in verdict.digests.items():
            print(f"{group:10} {digest}")
        print("PASS       every tensor of weights, EMA and optimizer is equal")
