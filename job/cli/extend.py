"""``job extend``: more epochs for a run that has ended, as a new run that goes on exactly where the old one stood."""

from pathlib import Path

from job.cli.options import Mistakes, read_number, read_seconds, require_store
from job.cli.runs import require_run
from job.cli.train import leave_to_others, read_workers
from job.recipes.arguments import MAX_COUNT
from job.recipes.recipe import Band, Recipe, Start
from job.runs.records import RunRecord
from job.runs.request import TrainRequest
from job.runs.run import check_run_name


def extend_run(
    name: str,
    *,
    epochs: str,
    run: str | None,
    bucket: str | None,
    device: str,
    workers: str | None,
    workdir: str,
    checkpoint_every: str,
    hang_after: str,
) -> None:
    """Train a finished run, or one that stopped early, to a larger total number of epochs, as a new run.

    The new run begins with the whole state of the old one's last checkpoint: the raw weights, EMA, optimizer, waiting
    gradients, counters, random streams, best epoch and rows so far. What depends on the number of epochs is from there
    on what it would be at that epoch of a run with the new number: the learning rate, which rises again if the old run
    had come to its end, and the last epochs without mosaic. Patience begins anew. So a run that stopped early and is
    extended to the number it was planned for goes on as if it had not stopped, to the bit; one that was complete does
    not become what it would have been with more epochs from its beginning, since its learning rate had fallen.

    Raises:
        JobError: As `session.train`; a run that is not finished, or has as many epochs already, is refused.
    """
    from job.session.train import train

    mistakes = Mistakes()
    with mistakes:
        num_epochs = read_number(epochs, "epochs", 1, MAX_COUNT)
    with mistakes:
        run = run and check_run_name(run)
    with mistakes:
        num_workers = read_workers(workers)
    with mistakes:
        checkpoint_every_s = read_seconds(checkpoint_every, "checkpoint-every")
    with mistakes:
        hang_after_s = read_seconds(hang_after, "hang-after")
    mistakes.tell()
    store = require_store(bucket)
    _, record = require_run(store, name)
    order = TrainRequest(
        recipe=extended_recipe(name, record, num_epochs),
        dataset=record.request["dataset"],
        run=run,
        weights=None,
        model=None,
        new_classes=record.request["new_classes"],
        quarantine=record.request["quarantine"],
        device=device,
        workers=num_workers,
        workdir=Path(workdir).resolve(),
        checkpoint_every_s=checkpoint_every_s,
        hang_after_s=hang_after_s,
    )
    leave_to_others(order)
    train(store, order)


def extended_recipe(name: str, record: RunRecord, num_epochs: int) -> Recipe:
    """Return a run's recipe, with its values as the run has them, for another number of epochs."""
    request = record.request
    recipe = Recipe(
        name=request["recipe"],
        source=request["recipe"],
        summary="",
        profile=request["profile"],
        start=Start("end", name),
        train=request["train"],
        expect={metric: Band(*ends) for metric, ends in record.expect.items()},
    )
    return recipe.with_arguments(recipe.train | {"epochs": num_epochs})
