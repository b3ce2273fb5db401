"""``job estimate``: time and cost of a training before its start."""

import contextlib
import dataclasses
import logging

from pydantic import Field

from job.analysis.estimate import (
    EnoughError,
    Estimate,
    Stopwatch,
    by_authors,
    by_measurement,
    by_run,
    from_runs,
    is_kind,
)
from job.analysis.summary import RunSummary, finished_runs
from job.cli.command import command
from job.cli.options import BucketOption, JsonOption, PriceOption
from job.cloud.machine_types import machines
from job.datasets.prepare import find_dataset
from job.errors import UsageError, WeightsError
from job.recipes.recipe import load_recipe
from job.runs.lineage import find_start
from job.runs.request import TrainRequest
from job.session import environment as this_machine
from job.storage.object_store import Store
from job.text import HOUR, between, duration, labelled

log = logging.getLogger(__name__)


class EstimateOptions(TrainRequest, PriceOption, BucketOption, JsonOption):
    """Flags of ``job estimate``."""

    positional = ("recipe",)
    left_out = frozenset({"run", "checkpoint_every", "hang_after", "archive"})

    machine: str | None = Field(
        None,
        description="A kind of machine with earlier runs, such as l4-spot; this machine if left out.",
    )


@command(EstimateOptions, "job estimate A --machine l4-spot --bucket gs://my-bucket")
def estimate(options: EstimateOptions) -> None:
    """Print the time and cost that a training takes.

    The best source is a finished run like it on the same kind of machine; without one, a few steps are trained here, in
    a scratch folder. Another machine cannot be measured from here.
    """
    machine, price = options.machine, options.price_of(options.machine)
    found = _estimate(options.store(), options.model_copy(update={"checkpoint_every_s": 0.0}), machine, price)
    options.print({**found.to_json(), "machine": machine}, _format_estimate(found, options, machine))


def _estimate(store: Store, request: TrainRequest, machine: str | None, price: float | None) -> Estimate:
    from job.session.demo import default_dataset

    request = request.model_copy(update={"dataset": default_dataset(store, request)})
    dataset = find_dataset(store, request.dataset)
    fields = this_machine.claim_fields()
    here = fields["host"], fields["machine"]

    def on_machine(run: RunSummary) -> bool:
        if machine is not None:
            return is_kind(run, machine, _machine_type(machine))
        return all((attempt.claim.host, attempt.claim.machine) == here for attempt in run.attempts)

    run = from_runs(request, dataset, on_machine, finished_runs(store))
    if run is not None:
        return by_run(request.recipe, run, price)
    if machine is None:
        from job.session.startup import rehearse

        log.info("estimate: no run like it was finished on this machine; a few steps are trained in a scratch folder")
        with contextlib.closing(Stopwatch()) as watch, contextlib.suppress(EnoughError):
            rehearse(store, _without_download(store, request), watch)
        return by_measurement(request.recipe, watch.measurement(), price)
    expected = by_authors(request.recipe, price)
    if expected is None:
        raise UsageError(
            f"--machine {machine}: no run of recipe {request.recipe.name} on it is recorded in {store.uri}, and it "
            "cannot be measured from here; train an epoch there first, or leave --machine out to measure this machine"
        )
    return expected


def _machine_type(machine: str) -> str | None:
    """Return Google's name of a known machine; ``-spot`` and ``-on-demand`` are ignored."""
    kind = machine.removesuffix("-spot").removesuffix("-on-demand")
    return next((each.type for each in machines().values() if kind in {each.type, each.called}), None)


def _without_download(store: Store, request: TrainRequest) -> TrainRequest:
    """Return a request that trains at the same pace and needs no missing weights."""
    if request.weights is not None or request.model is not None:
        return request
    start = request.recipe.start
    if start.kind == "own":
        try:
            find_start(store, request, None)
        except WeightsError:
            start = load_recipe("base", request.recipe.profile).start
            log.info("there are no own weights yet; measured with the model of recipe base, %s", start)
    if start.kind == "pretrained":
        return request.model_copy(update={"model": str(start.name).replace(".pt", ".yaml")})
    return request.model_copy(update={"recipe": dataclasses.replace(request.recipe, start=start)})


def _format_estimate(found: Estimate, request: TrainRequest, machine: str | None) -> list[str]:
    train = request.recipe.train
    lines = labelled("recipe", f"{found.recipe}, {found.epochs} epochs at {train['imgsz']} px, batch {train['batch']}")
    lines += labelled("machine", machine or f"this one, {this_machine.claim_fields()['machine']}")
    time = between(*(duration(hours * HOUR) for hours in found.hours))
    if found.epoch_s is not None:
        time += f": {found.epochs} epochs of {found.epoch_s:.3g} s, and {found.around_s:.3g} s before and after them"
    lines += labelled("time", time)
    lines += labelled("based on", found.based_on)
    cost = "not known, the machine has no price; pass --usd-per-hour"
    if found.usd is not None:
        cost = f"{between(*(f'{usd:.2f}' for usd in found.usd))} USD at {found.usd_per_hour:g} USD an hour"
    lines += labelled("cost", cost)
    return [*lines, *labelled("later", "the first epoch corrects it; preemptions come on top")]
