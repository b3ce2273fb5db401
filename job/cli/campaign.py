"""``job campaign``: recipe A, then C or B as the rules advise, until the target is reached."""

import logging
import os

from pydantic import Field, model_validator

from job.analysis.campaign import FIRST_RECIPE, Bound, Campaign, CampaignResult, Goal, find_campaign
from job.cli.command import command
from job.cli.options import BucketOption, PriceOption, TargetOption, Usd
from job.cloud.machine_types import Provisioning, find_machine
from job.datasets.prepare import find_dataset
from job.datasets.versions import dataset_names
from job.errors import UsageError
from job.recipes.recipe import Profile
from job.report.campaign import address_of_best, write_page
from job.runs.flags import Count
from job.runs.notification import NOTIFY
from job.runs.request import Execution, TrainRequest
from job.session.campaign import go_on, here, on_batch
from job.session.demo import DATASET
from job.session.preemption import PARENT_LIMITS_S, PreemptionWatcher
from job.storage.object_store import Store
from job.text import HOUR, duration, labelled, table

log = logging.getLogger(__name__)

HEAD = ("run", "recipe", "F1 before", "after", "precision", "recall", "time")


class CampaignOptions(TrainRequest, TargetOption, PriceOption, BucketOption):
    """Flags of ``job campaign``."""

    left_out = frozenset({"recipe", "run", "model"})

    max_runs: Count = Field(4, description="The largest number of runs.")
    max_usd: Usd | None = Field(
        None,
        description="No run is begun that could take the cost over so many dollars. If left out, each run in the cloud "
        "has the limit of the settings, and the campaign that of --max-runs such runs.",
    )
    name: str | None = Field(None, description="The campaign's name; campaign, campaign2, ... if left out.")
    cloud: str | None = Field(
        None,
        description="Train on Cloud Batch, on Spot machines of this kind (l4, a100, ...); this command stays, decides "
        "and supervises. On this machine if left out.",
    )

    @model_validator(mode="before")
    @classmethod
    def _begin_with_first_recipe(cls, given: dict[str, object]) -> dict[str, object]:
        return {**given, "recipe": FIRST_RECIPE}


@command(CampaignOptions, "job campaign --target-f1 0.75 --max-runs 3 --bucket gs://my-bucket")
def campaign(options: CampaignOptions) -> None:
    """Train A, then C or B by the rules of `job advise`.

    The first run is recipe A, from --weights. If left out: from the best finished run on the same data, or else the
    newest finished run; in a bucket without one, train recipe base first. Later runs that need own weights start from
    the best of the campaign. Training arguments apply to every run.

    Ends when the target is reached, the budget spent, or no option promises more. The same command resumes after any
    interruption. A run that has begun is finished, whatever its cost.
    """
    cloud, profile = options.cloud, options.recipe.profile
    price = options.price_of(f"{cloud}-spot" if cloud else None)
    if options.max_usd is not None and price is None:
        raise UsageError("--max-usd: needs to know what an hour of the machine costs; pass --usd-per-hour")
    bound = None if cloud is None or options.max_usd is not None else _bound_of(cloud, options.max_runs)
    store = options.store_for(profile)
    chosen = {name: "true" for name in ("new_classes", "quarantine") if getattr(options, name)}
    goal = Goal(
        target_f1=options.target_f1,
        max_runs=options.max_runs,
        max_usd=options.max_usd,
        profile=profile,
        dataset=_dataset(store, options.dataset, profile),
        weights=options.weights,
        arguments={name.replace("_", "-"): value for name, value in (chosen | options.arguments).items()},
    )
    found = find_campaign(store, options.name, goal, bound)
    if (recorded := found.record().bound) is not None:
        log.info("campaign %s: can cost %s at worst; --max-usd sets another bound", found.name, recorded)
    elsewhere = {"notify"} if cloud is None else {"notify", "workdir"}
    args = options.args(name for name in Execution.model_fields if name not in elsewhere)
    if options.notify is not None:
        os.environ[NOTIFY] = options.notify.url  # for the processes of the runs, in whose arguments it would show
    place = on_batch(store.uri, cloud, args) if cloud else here(store.uri, args, price)
    with PreemptionWatcher(limits_s=PARENT_LIMITS_S):
        result = go_on(found, place, price)
    print("\n".join(format_campaign(found, result)))


def _bound_of(cloud: str, num_runs: int) -> Bound:
    """Return the cost bound of a campaign on Cloud Batch, by the limit of each run in this machine's settings."""
    from job.cloud.allowance import load_allowance

    limit = load_allowance({}).limit([find_machine(cloud).type], Provisioning.SPOT)
    run = limit.hours or 0.0 if limit.usd is None else limit.usd
    return Bound(run=run, total=num_runs * run, usd=limit.usd is not None)


def format_campaign(campaign: Campaign, result: CampaignResult) -> list[str]:
    """Return a finished campaign as lines for a terminal."""
    rows: list[tuple[str, ...]] = [HEAD]
    for entry in campaign.runs():
        if entry is not None and entry.after is not None:
            before = f"{entry.before['f1']:.1%}" if entry.before else "-"
            metrics = [f"{entry.after[metric]:.1%}" for metric in ("f1", "precision", "recall")]
            rows.append((entry.run, entry.recipe, before, *metrics, duration(entry.hours * HOUR)))
    lines = [*table(rows), "", *labelled("campaign", f"{campaign.name}: {result.reason}")]
    lines += labelled("because", result.because)
    if result.best is not None or result.weights is not None:
        lines += labelled("best", address_of_best(campaign, result))
        if result.best not in {row[0] for row in rows[1:]}:
            lines += labelled("", "the start weights of the first run; no run is better")
    return [*lines, *labelled("page", write_page(campaign))]


def _dataset(store: Store, name: str | None, profile: Profile) -> str:
    """Return the name of the dataset; for the demo that of the synthetic one, if the bucket has that or none."""
    names = dataset_names(store)
    if profile == "demo" and name is None and (not names or DATASET in names):
        return DATASET
    return find_dataset(store, name)
