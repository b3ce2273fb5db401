"""``job estimate``: time and cost of a training before its start."""

import contextlib
import dataclasses
import gc
import logging
from collections.abc import Sequence

from pydantic import Field

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
from job.cli.command import command
from job.cli.options import BucketOption, JsonOption, PriceOption
from job.cloud.machine_types import machines
from job.datasets.prepare import find_dataset
from job.errors import UsageError, WeightsError
from job.recipes.arguments import EXACT, traded
from job.recipes.recipe import load_recipe
from job.runs.lineage import find_start
from job.runs.request import TrainRequest
from job.session import environment as this_machine
from job.storage.object_store import Store
from job.text import HOUR, between, counted, duration, labelled

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
    a scratch folder. Another machine cannot be measured from here. With arguments that trade exact bits for speed, the
    same training without them is estimated too, from the same kind of source, where there is one.
    """
    machine, price = options.machine, options.price_of(options.machine)
    found, *exact = _estimates(options.store(), options.model_copy(update={"checkpoint_every_s": 0.0}), machine, price)
    content = {
        **found.to_json(),
        "machine": machine,
        "not_exact": traded(options.recipe.train),
        "exact": exact[0].to_json() if exact else None,
    }
    options.print(content, _format_estimate(found, exact, options, machine))


def _estimates(store: Store, request: TrainRequest, machine: str | None, price: float | None) -> list[Estimate]:
    """Return the estimate of a training, then, if it trades exactness, that of the exact one, unless it is unknown."""
    from job.session.demo import default_dataset

    request = request.model_copy(update={"dataset": default_dataset(store, request)})
    dataset = find_dataset(store, request.dataset)
    fields = this_machine.claim_fields()
    here = fields["host"], fields["machine"]

    def on_machine(run: RunSummary) -> bool:
        if machine is not None:
            return is_kind(run, machine, _machine_type(machine))
        return all((attempt.claim.host, attempt.claim.machine) == here for attempt in run.attempts)

    requests = [request]
    if traded(request.recipe.train):
        requests.append(request.model_copy(update={"recipe": request.recipe.with_arguments(EXACT)}))
    finished = finished_runs(store)
    found = [from_runs(each, dataset, on_machine, finished) for each in requests]
    if found[0] is not None and (machine is not None or None not in found):
        return [by_run(request.recipe, run, price) for run in found if run is not None]
    if machine is None:
        log.info("estimate: no run like it was finished on this machine; a few steps are trained in a scratch folder")
        return [by_measurement(request.recipe, _measure(store, each), price) for each in requests]
    expected = by_authors(request.recipe, price)
    if expected is None:
        raise UsageError(
            f"--machine {machine}: no run of recipe {request.recipe.name} on it is recorded in {store.uri}, and it "
            "cannot be measured from here; train an epoch there first, or leave --machine out to measure this machine"
        )
    return [expected]


def _measure(store: Store, request: TrainRequest) -> Measurement:
    """Train a few steps in a scratch folder, and measure them."""
    from job.session.startup import rehearse

    with contextlib.closing(Stopwatch()) as watch, contextlib.suppress(EnoughError):
        rehearse(store, _without_download(store, request), watch)
    gc.collect()  # the trainer, whose parts refer to each other, and which holds memory of the GPU
    return watch.measurement()


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


def _format_estimate(
    found: Estimate, exact: Sequence[Estimate], request: TrainRequest, machine: str | None
) -> list[str]:
    train = request.recipe.train
    lines = labelled(
        "recipe", f"{found.recipe}, {counted(found.epochs, 'epoch')} at {train['imgsz']} px, batch {train['batch']}"
    )
    lines += labelled("machine", machine or f"this one, {this_machine.claim_fields()['machine']}")
    lines += labelled("time", _format_time(found))
    lines += labelled("based on", found.based_on)
    for why in traded(train):
        lines += labelled("not exact", why)
    for other in exact:
        lines += labelled("if exact", f"{_format_time(other)}; {other.based_on}")
    cost = "not known, the machine has no price; pass --usd-per-hour"
    if found.usd is not None:
        cost = f"{between(*(f'{usd:.2f}' for usd in found.usd))} USD at {found.usd_per_hour:g} USD an hour"
    lines += labelled("cost", cost)
    return [*lines, *labelled("later", "the first epoch corrects it; preemptions come on top")]


def _format_time(found: Estimate) -> str:
    time = between(*(duration(hours * HOUR) for hours in found.hours))
    if found.epoch_s is None:
        return time
    epochs = counted(found.epochs, "epoch")
    return f"{time}: {epochs} of {found.epoch_s:.3g} s, and {found.around_s:.3g} s before and after"
