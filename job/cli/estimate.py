"""``job estimate``: what a training will take, before it is started."""

import contextlib
import dataclasses
import json as json_format
import logging
from typing import Any

from job.analysis.estimate import (
    EnoughError,
    Estimate,
    Measurement,
    Stopwatch,
    by_authors,
    by_measurement,
    by_run,
    from_runs,
    is_kind,
)
from job.analysis.summary import RunSummary, finished_runs
from job.cli.options import read_flag, read_price, require_store
from job.cli.train import read_order
from job.datasets.prepare import find_dataset
from job.errors import UsageError, WeightsError
from job.recipes.recipe import load_recipe
from job.runs.lineage import find_start
from job.runs.request import Order
from job.session import environment as this_machine
from job.storage.object_store import Store
from job.text import HOUR, between, duration, labelled

log = logging.getLogger(__name__)


def print_estimate(*, machine: str | None, usd_per_hour: str | None, json: str, **words: Any) -> None:  # noqa: ANN401 -- text by flag, as Fire has it
    """Print what a training will take.

    A finished run like it, on the same kind of machine, tells it best; else a few steps are trained here, in a scratch
    folder. On another machine nothing can be measured from here.

    Raises:
        UsageError: If nothing is known of the machine that is named.
        JobError: As `session.train`, for anything wrong with recipe, data or machine.
    """
    as_json, price = read_flag(json, "json"), read_price(usd_per_hour, machine)
    order = read_order(**words, run=None, checkpoint_every="0")
    store = require_store(words["bucket"])
    found = _estimate(store, order, machine, price)
    if as_json:
        print(json_format.dumps({**found.to_json(), "machine": machine, "usd_per_hour": price}, indent=1))
    else:
        print("\n".join(_told(found, order, machine, price)))


def _estimate(store: Store, order: Order, machine: str | None, price: float | None) -> Estimate:
    dataset = find_dataset(store, order.dataset)
    here = this_machine.about()

    def on_machine(run: RunSummary) -> bool:
        if machine is not None:
            return is_kind(run, machine)
        return all(
            (attempt.claim.host, attempt.claim.machine) == (here["host"], here["machine"]) for attempt in run.attempts
        )

    run = from_runs(order, dataset, on_machine, finished_runs(store))
    if run is not None:
        return by_run(order.recipe, run, price)
    if machine is None:
        return by_measurement(order.recipe, _measure(store, order), price)
    expected = by_authors(order.recipe, price)
    if expected is None:
        raise UsageError(
            f"--machine {machine}: no run of recipe {order.recipe.name} on it is recorded in {store.uri}, and it "
            "cannot be measured from here; train an epoch there first, or leave --machine out to measure this machine"
        )
    return expected


def _measure(store: Store, order: Order) -> Measurement:
    from job.session.train import rehearse

    watch = Stopwatch()
    with contextlib.suppress(EnoughError):
        rehearse(store, _without_download(store, order), watch)
    return watch.measurement()


def _without_download(store: Store, order: Order) -> Order:
    """Return an order that trains as fast and needs no weights that are not there: pace is the same with any."""
    if order.weights is not None or order.model is not None:
        return order
    start = order.recipe.start
    if start.kind == "own":
        try:
            find_start(store, order, None)
        except WeightsError:
            start = load_recipe("base", order.recipe.profile).start
            log.info("no own weights are there yet; measured with the model of recipe base, %s", start)
    if start.kind == "pretrained":
        return dataclasses.replace(order, model=str(start.name).replace(".pt", ".yaml"))
    return dataclasses.replace(order, recipe=order.recipe.with_start(start))


def _told(found: Estimate, order: Order, machine: str | None, price: float | None) -> list[str]:
    train = order.recipe.train
    lines = labelled("recipe", f"{found.recipe}, {found.epochs} epochs at {train['imgsz']} px, batch {train['batch']}")
    lines += labelled("machine", machine or f"this one, {this_machine.about()['machine']}")
    lines += labelled("time", _time(found))
    lines += labelled("based on", found.based_on)
    if found.usd is not None:
        lines += labelled("cost", f"{between(*(f'{usd:.2f}' for usd in found.usd))} USD at {price:g} USD an hour")
    else:
        lines += labelled("cost", "not known, the machine has no price; pass --usd-per-hour")
    return [*lines, *labelled("later", "the first epoch corrects it; preemptions come on top")]


def _time(found: Estimate) -> str:
    time = between(*(duration(hours * HOUR) for hours in found.hours))
    if found.epoch_s is None:
        return time
    return f"{time}: {found.epochs} epochs of {found.epoch_s:.3g} s, and {found.around_s:.3g} s before and after them"
