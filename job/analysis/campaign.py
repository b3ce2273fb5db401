"""Campaigns: their records in the bucket, and the rules that choose the next run or end them.

Guarantees that goal, steps and result are written once, a step before its run begins, that each step's run has a name
of its own, and that the next step follows from the records alone. Knows nothing of training.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self, TypeVar

from pydantic import model_validator

from job.analysis.advice import advise
from job.analysis.estimate import by_authors
from job.analysis.options import EXTEND
from job.analysis.summary import RunSummary, read_summary
from job.errors import CorruptObjectError, ObjectNotFoundError, PreconditionError, RunConflictError
from job.recipes.recipe import Profile, load_recipe, recipe_names
from job.runs.records import Record, Timestamp, differences, now
from job.runs.run import Run, check_run_name, is_run_name, next_free_name
from job.storage.object_store import Store
from job.text import counted

log = logging.getLogger(__name__)

FAMILY = "campaign"
FIRST_RECIPE = "A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Request of a campaign; commands with equal goals are one campaign."""

    target_f1: float
    max_runs: int
    max_usd: float | None
    profile: Profile
    dataset: str
    weights: str | None
    """Start weights of the first run; its recipe's if None."""

    arguments: dict[str, str]
    """Training arguments of every run, and flags of ``job train`` that change the data or the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Cost bound of a campaign in the cloud without ``--max-usd``: the limit of a run, times the runs."""

    run: float
    """The limit of one run."""

    total: float
    usd: bool
    """Whether the bound is in dollars; in machine hours if the price is unknown."""

    def __str__(self) -> str:
        return f"{self.total:.2f} {'USD' if self.usd else 'machine hours'}, up to {self.run:.2f} for each run"

    def left(self, finished: Sequence[RunSummary]) -> float:
        """Return the rest after some runs; a run of unknown cost counts with its limit."""
        used = [entry.usd if self.usd else entry.hours for entry in finished]
        return self.total - sum(self.run if one is None else one for one in used)


class CampaignRecord(Record):
    """Goal and bound of a campaign (``campaign.json``)."""

    created_at: str = ""
    campaign: str = ""
    goal: Goal
    bound: Bound | None = None


class CampaignStep(Record):
    """One run of a campaign, decided before it begins (``steps/0001.json``)."""

    number: int
    recipe: str
    run: str
    weights: str | None
    rule: str
    because: str
    decided_at: str = ""

    @model_validator(mode="after")
    def _require_names(self) -> Self:
        if self.recipe not in recipe_names():  # a record leads to no file of this machine
            raise ValueError(f"{self.recipe!r} is no recipe of this version")
        if not is_run_name(self.run):
            raise ValueError(f"{self.run!r} is no name of a run")
        return self

    def train_args(self, goal: Goal) -> list[str]:
        """Return the flags of ``job train`` for this run."""
        named = {"recipe": self.recipe, "run": self.run, "profile": goal.profile, "dataset": goal.dataset}
        if self.weights is not None:
            named["weights"] = self.weights
        return [f"--{name}={value}" for name, value in (named | goal.arguments).items()]


class CampaignResult(Record):
    """How a campaign ended (``final.json``)."""

    finished_at: Timestamp
    best: str | None
    """The run with the best weights."""

    weights: str | None = None
    """The best weights, as `Best` has them; older versions did not record them."""

    reason: str
    because: str


AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The decision to end a campaign."""

    reason: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best weights of a campaign: of one of its runs, or the start weights of its first."""

    f1: float
    weights: str
    """Argument of ``--weights``: a run, a path in the bucket, a file or a URI."""

    run: str | None
    """The run that trained them, if known."""

    is_start: bool
    """No run of the campaign beats the start weights of its first."""


class Campaign:
    """One campaign's records in a store."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        check_run_name(f"{name}-10-recommended")  # so that every step has a name for its run

    def key(self, name: str) -> str:
        """Return the key of one of the campaign's objects."""
        return f"campaigns/{self.name}/{name}"

    def record(self) -> CampaignRecord:
        """Return goal and bound.

        Raises:
            ObjectNotFoundError: If there is no such campaign.
            CorruptObjectError: From this and the other readers, if a record cannot be read.
        """
        record = self._read("campaign.json", CampaignRecord)
        return record.model_copy(update={"campaign": self.name})  # a copied folder is a campaign with its own runs

    def create(self, goal: Goal, bound: Bound | None = None) -> None:
        """Write goal and bound; the first record stands, as for every write."""
        self._write("campaign.json", CampaignRecord(created_at=now(), campaign=self.name, goal=goal, bound=bound))

    def steps(self) -> list[CampaignStep]:
        """Return the steps so far, in order."""
        names = [stored.key.removeprefix(self.key("")) for stored in self.store.list(self.key("steps/"))]
        return [self._read(name, CampaignStep) for name in names]

    def add(self, step: CampaignStep) -> None:
        """Write a step."""
        self._write(f"steps/{step.number:04d}.json", step.model_copy(update={"decided_at": now()}))

    def result(self) -> CampaignResult | None:
        """Return how the campaign ended, or None if it has not."""
        with contextlib.suppress(ObjectNotFoundError):
            return self._read("final.json", CampaignResult)
        return None

    def finish(self, end: End, best: Best | None) -> None:
        """Write the result."""
        run, weights = (best.run, best.weights) if best else (None, None)
        result = CampaignResult(finished_at=now(), best=run, weights=weights, reason=end.reason, because=end.because)
        self._write("final.json", result)

    def runs(self) -> list[RunSummary | None]:
        """Return the run of each step; None for one that has not begun."""
        runs = [Run(self.store, step.run) for step in self.steps()]
        records = [run.record() for run in runs]
        return [read_summary(run, record) if record else None for run, record in zip(runs, records, strict=True)]

    def _read(self, name: str, kind: type[AnyRecord]) -> AnyRecord:
        return kind.read(self.key(name), self.store.read(self.key(name)))

    def _write(self, name: str, record: Record) -> None:
        with contextlib.suppress(PreconditionError):
            self.store.put(self.key(name), record.to_json())


def find_campaign(store: Store, name: str | None, goal: Goal, bound: Bound | None = None) -> Campaign:
    """Return the campaign with a goal; creates a new one.

    Args:
        store: The bucket.
        name: Its name; without one, the newest campaign with this goal, or a new one.
        goal: The request.
        bound: Bound of a new campaign; an existing one keeps its own.

    Raises:
        RunConflictError: If the named campaign has another goal; lists every difference.
    """
    keys = [stored.key.split("/") for stored in store.list("campaigns/")]
    taken = {key[1] for key in keys if len(key) > 2}  # noqa: PLR2004 -- any object in its folder takes a name
    names = sorted({key[1] for key in keys if key[2:] == ["campaign.json"]}, key=lambda each: (len(each), each))
    if name is None:
        same = [each for each in names if is_run_name(each) and _goal_of(store, each) == goal]
        name = same[-1] if same else next_free_name(FAMILY, taken)
    campaign = Campaign(store, name)
    campaign.create(goal, bound)
    if different := differences(asdict(campaign.record().goal), asdict(goal)):
        raise RunConflictError(
            f"campaign {name}: was started with other values; repeat those to continue it, or choose another --name",
            different,
        )
    return campaign


def _goal_of(store: Store, name: str) -> Goal | None:
    """Return a campaign's goal; None, with a warning, if its record is damaged."""
    try:
        return Campaign(store, name).record().goal
    except CorruptObjectError as error:
        log.warning("%s; passed over", error)
        return None


def next_step(
    record: CampaignRecord,
    finished: Sequence[RunSummary],
    usd_per_hour: float | None,
    *,
    bucket: str,
    bounded: bool = False,
    gain: str = "",
) -> CampaignStep | End:
    """Return the next step, or the end: the rules of `advice` on the best run, within the budget.

    A run that starts from own weights starts from the best; no recipe is trained twice from the same weights.

    Args:
        record: The campaign.
        finished: Its runs so far, all finished.
        usd_per_hour: Price of the machine, if known.
        bucket: Named in the advised commands.
        bounded: Each run is limited to the rest of the budget, so its cost need not be known beforehand.
        gain: What the newest run gained, to be added to the reason.
    """
    goal, best = record.goal, best_of(finished)
    if best is None:
        expected = by_authors(load_recipe(FIRST_RECIPE, goal.profile), usd_per_hour)
        recipe, weights, usd = FIRST_RECIPE, goal.weights, expected.usd if expected else None
        rule, because = "first", "recipe A comes first: quick, and of low risk"
    elif best.is_start and best.f1 >= goal.target_f1:
        return End(reason="target reached", because=f"{best.weights}: F1 {best.f1:.1%}, which no run exceeds")
    else:
        run = max(finished, key=_f1)
        tried = {entry.trained_as for entry in finished if _starts_from(entry) == best.weights}
        advice = advise(
            *(run, finished),
            bucket=bucket,
            target=goal.target_f1,
            usd_per_hour=usd_per_hour,
            without={EXTEND, *tried},
        )
        rule, because = advice.rule, f"run {run.run}: {advice.because}{gain}"
        if not advice.options:
            return End(reason=rule if rule == "target reached" else "nothing helps", because=because)
        recipe, usd = advice.options[0].recipe, advice.options[0].usd
        weights = best.weights if load_recipe(recipe, goal.profile).start.kind == "own" else None
    number = len(finished) + 1
    name = f"{record.campaign}-{number}-{recipe}"
    return _over_budget(record, finished, usd, bounded=bounded) or CampaignStep(
        number=number, recipe=recipe, run=name, weights=weights, rule=rule, because=because
    )


def best_of(finished: Sequence[RunSummary]) -> Best | None:
    """Return the weights with the highest F1, the first run's start weights included; of equal ones the first run's."""
    if not finished:
        return None
    run, start, before = max(finished, key=_f1), _starts_from(finished[0]), finished[0].before
    if start is not None and before is not None and before["f1"] > _f1(run):
        origin = finished[0].record.start.point.run
        return Best(f1=before["f1"], weights=start, run=origin, is_start=True)
    return Best(f1=_f1(run), weights=run.run, run=run.run, is_start=False)


def _f1(entry: RunSummary) -> float:
    return entry.after["f1"] if entry.after else 0.0


def _starts_from(entry: RunSummary) -> str | None:
    """Return the argument of ``--weights`` for a run's start weights; None if it was trained from scratch."""
    point = entry.record.start.point
    return point.run or point.source


def spent_usd(finished: Sequence[RunSummary]) -> float | None:
    """Return the cost of runs; None, which means unknown, if the cost of one is."""
    costs = [entry.usd for entry in finished]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _over_budget(
    record: CampaignRecord, finished: Sequence[RunSummary], next_usd: tuple[float, float] | None, *, bounded: bool
) -> End | None:
    goal, bound, needed = record.goal, record.bound, next_usd[1] if next_usd else 0.0
    limit, spent, because = f"{goal.max_usd or 0.0:.2f} USD", spent_usd(finished), ""
    if len(finished) >= goal.max_runs:
        because = f"--max-runs is reached, {counted(goal.max_runs, 'run')}"
    elif goal.max_usd is None:
        because = f"the campaign's bound of {bound} is used up" if bound and bound.left(finished) <= 0 else ""
    elif spent is None:
        return End(reason="cost unknown", because=f"a run's machine had no price, so {limit} could not be kept")
    elif next_usd is None and not bounded:
        why = f"the next run's duration is not known, so {limit} could not be kept; `job estimate` measures it"
        return End(reason="cost unknown", because=why)
    elif spent >= goal.max_usd or spent + needed > goal.max_usd:
        because = f"{spent:.2f} of {limit} are spent, and the next run would take up to {needed:.2f}"
    return End(reason="budget spent", because=because) if because else None
