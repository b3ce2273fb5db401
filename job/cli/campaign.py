"""``job campaign``: recipe A, then C or B as the rules advise, until the target is reached."""

import logging
from typing import Any

from job.analysis.campaign import FIRST_RECIPE, Bound, Campaign, Goal, find_campaign
from job.cli.options import Mistakes, read_flag, read_fraction, read_number, read_price
from job.cli.train import open_bucket, read_order
from job.cloud.machine_types import find_machine
from job.cloud.prices import read_usd
from job.datasets.prepare import find_dataset
from job.errors import UsageError
from job.recipes.recipe import Profile
from job.report.campaign import address_of_best, write_page
from job.session.campaign import go_on, here, on_batch
from job.session.demo import DATASET
from job.session.preemption import OF_A_CHILD_S, PreemptionWatcher
from job.storage.object_store import Store
from job.text import HOUR, duration, labelled, table

log = logging.getLogger(__name__)

HEAD = ("run", "recipe", "F1 before", "after", "precision", "recall", "time")


def run_campaign(
    *,
    target_f1: str,
    max_runs: str,
    max_usd: str | None,
    usd_per_hour: str | None,
    name: str | None,
    cloud: str | None,
    bucket: str | None,
    training_arguments: dict[str, str],
    **flags: Any,  # noqa: ANN401 -- text by flag, as Fire has it
) -> None:
    """Go on with a campaign, or start it, and print what came of it.

    Raises:
        UsageError: If dollars are limited and the price of an hour is not known.
        JobError: For whatever is wrong; see the exit codes.
        PreemptionError: If this process was asked to stop, or a run to be paused.
    """
    mistakes = Mistakes()
    price = order = None
    with mistakes:
        price = read_price(usd_per_hour, f"{cloud}-spot" if cloud else None)
        if max_usd is not None and price is None:
            raise UsageError("--max-usd: needs to know what an hour of the machine costs; pass --usd-per-hour")
    with mistakes:
        order = read_order(recipe=FIRST_RECIPE, run=None, model=None, training_arguments=training_arguments, **flags)
    with mistakes:
        target = read_fraction(target_f1, "target-f1")
    with mistakes:
        num_runs = read_number(max_runs, "max-runs")
    with mistakes:
        usd = None if max_usd is None else read_usd(max_usd, "--max-usd")
    mistakes.tell()
    assert order is not None  # noqa: S101 -- for the type checker: else a mistake was told
    bound = None if cloud is None or usd is not None else _bound_of(cloud, num_runs)
    profile = order.recipe.profile
    store = open_bucket(profile, bucket)
    chosen = {name: "true" for name in ("new_classes", "quarantine") if read_flag(flags[name], name)}
    goal = Goal(
        target_f1=target,
        max_runs=num_runs,
        max_usd=usd,
        profile=profile,
        dataset=_dataset(store, order.dataset, profile),
        weights=order.weights,
        arguments={name.replace("_", "-"): value for name, value in (chosen | training_arguments).items()},
    )
    campaign = find_campaign(store, name, goal, bound)
    if (record := campaign.record()) is not None and record.bound is not None:
        log.info("campaign %s: can cost %s at worst; --max-usd sets another bound", campaign.name, record.bound)
    machine = {name: flags[name] for name in ("device", "workers", "checkpoint_every", "hang_after")}
    machine |= {} if cloud else {"workdir": flags["workdir"]}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in machine.items() if value]
    place = on_batch(store.uri, cloud, words) if cloud else here(store.uri, words, price)
    with PreemptionWatcher(limits_s=OF_A_CHILD_S):
        go_on(campaign, goal, place, price)
    print("\n".join(told(campaign)))


def _bound_of(cloud: str, num_runs: int) -> Bound:
    """Return what a campaign on Cloud Batch can cost, by the limit that this machine's settings give each run."""
    from job.cloud.allowance import load_allowance

    limit = load_allowance({}).limit([find_machine(cloud).type], spot=True)
    run = limit.hours or 0.0 if limit.usd is None else limit.usd
    return Bound(run=run, total=num_runs * run, usd=limit.usd is not None)


def told(campaign: Campaign) -> list[str]:
    """Return a finished campaign as lines for a terminal."""
    result = campaign.result()
    rows: list[tuple[str, ...]] = [HEAD]
    for entry in campaign.runs():
        if entry is not None and entry.before is not None and entry.after is not None:
            metrics = [f"{entry.after[metric]:.1%}" for metric in ("f1", "precision", "recall")]
            rows.append((entry.run, entry.recipe, f"{entry.before['f1']:.1%}", *metrics, duration(entry.hours * HOUR)))
    lines = [*table(rows), ""]
    if result is None:
        return lines
    lines += labelled("campaign", f"{campaign.name}: {result.reason}")
    lines += labelled("because", result.because)
    if result.best is not None or result.weights is not None:
        lines += labelled("best", address_of_best(campaign, result))
        if result.best not in {row[0] for row in rows[1:]}:
            lines += labelled("", "which the first run started from; no run is better")
    return [*lines, *labelled("page", write_page(campaign))]


def _dataset(store: Store, name: str | None, profile: Profile) -> str:
    """Return the dataset that is meant; for the demo on an empty bucket, the one that it will draw."""
    if profile == "demo" and name is None and not store.list("datasets/"):
        return DATASET
    return find_dataset(store, name)
