"""Several runs in a row towards a target: recipe A, then what the rules advise, until nothing is left to do.

Guarantees that a campaign's goal, each step and its end are written once, a step before its run begins, that a step's
run has a name of its own, and that what is next follows from the records alone. Knows nothing of how or where a run is
trained.
"""

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from job.analysis.advice import advise
from job.analysis.estimate import by_authors
from job.analysis.options import EXTEND
from job.analysis.summary import RunSummary, read_summary
from job.errors import CorruptObjectError, ObjectNotFoundError, PreconditionError, RunConflictError
from job.recipes.recipe import Profile, load_recipe, recipe_names
from job.runs.records import differences, now
from job.runs.run import UNREADABLE, Run, check_run_name, is_run_name, next_free_name
from job.storage.object_store import Store

log = logging.getLogger(__name__)

FAMILY = "campaign"
FIRST_RECIPE = "A"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What was asked for; two commands that ask the same are one campaign."""

    target_f1: float
    max_runs: int
    max_usd: float | None
    profile: Profile
    dataset: str
    weights: str | None
    """What the first run starts from; its recipe says it if this is left out."""

    arguments: dict[str, str]
    """Training arguments for every run, and flags that belong to what is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a campaign in the cloud can cost in all without ``--max-usd``, from the limit of each of its runs."""

    run: float
    """The limit of one run."""

    total: float
    usd: bool
    """Dollars; else machine hours, where the machine's price is not known."""

    @property
    def unit(self) -> str:
        """What it is counted in."""
        return "USD" if self.usd else "machine hours"

    def __str__(self) -> str:
        return f"{self.total:.2f} {self.unit}, up to {self.run:.2f} for each run"

    def left(self, finished: Sequence[RunSummary]) -> float:
        """Return what is left after some runs; one whose cost is not known counts with its limit."""
        used = [entry.usd if self.usd else entry.hours for entry in finished]
        return self.total - sum(self.run if one is None else one for one in used)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run of a campaign, decided before it began."""

    number: int
    recipe: str
    run: str
    weights: str | None
    rule: str
    because: str
    decided_at: str = ""

    def words(self, goal: Goal) -> list[str]:
        """Return what follows ``job train`` for this run, wherever it is trained."""
        named = {"recipe": self.recipe, "run": self.run, "profile": goal.profile, "dataset": goal.dataset}
        if self.weights is not None:
            named["weights"] = self.weights
        return [f"--{name}={value}" for name, value in (named | goal.arguments).items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why a campaign goes no further."""

    reason: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best weights that a campaign knows: those of one of its runs, or those that its first run started from."""

    f1: float
    weights: str
    """What ``--weights`` takes: a run, a path in the bucket, a file or a URI."""

    run: str | None
    """The run that they are of, if that is known."""

    is_start: bool
    """None of the campaign's runs is better than what the first one started from."""


class Campaign:
    """One campaign's records in a store."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        check_run_name(f"{name}-10-recommended")  # so that every step has a name for its run

    def key(self, name: str) -> str:
        """Return the key of one of the campaign's objects."""
        return f"campaigns/{self.name}/{name}"

    def goal(self) -> Goal | None:
        """Return what was asked for, or nothing if there is no such campaign."""
        found = self._read("campaign.json")
        try:
            return None if found is None else Goal(**found["goal"])
        except (TypeError, KeyError) as error:
            raise CorruptObjectError(
                f"{self.key('campaign.json')}: was written by another version of the job, {error}; use that version"
            ) from error

    def bound(self) -> Bound | None:
        """Return the bound that was recorded when the campaign began, if one was."""
        found = (self._read("campaign.json") or {}).get("bound")
        try:
            return None if found is None else Bound(**found)
        except TypeError as error:
            raise CorruptObjectError(
                f"{self.key('campaign.json')}: was written by another version of the job, {error}; use that version"
            ) from error

    def create(self, goal: Goal, bound: Bound | None = None) -> None:
        """Write what is asked for, and what it can cost.

        Raises:
            PreconditionError: If the name was taken in the meantime.
        """
        about = {"goal": asdict(goal), "bound": bound and asdict(bound)}
        self._write("campaign.json", {"created_at": now(), "campaign": self.name, **about})

    def steps(self) -> list[Step]:
        """Return the steps so far, in order.

        Raises:
            CorruptObjectError: If one of them has another form.
        """
        keys = [stored.key for stored in self.store.list(self.key("steps/"))]
        found = [(key, self._read(key.removeprefix(self.key("")))) for key in keys]
        return [self._step(key, step) for key, step in found if step]

    def _step(self, key: str, loaded: dict[str, Any]) -> Step:
        try:
            step = Step(**{name: value for name, value in loaded.items() if name != "schema"})
            if step.recipe not in recipe_names() or not is_run_name(
                step.run
            ):  # a record leads to no file of this machine
                raise ValueError(f"recipe {step.recipe!r} and run {step.run!r} are none")
        except UNREADABLE as error:
            raise CorruptObjectError(f"{key}: is not a step of a campaign, {error}; find out who wrote it") from error
        return step

    def add(self, step: Step) -> None:
        """Write a step; if another machine has decided it in the meantime, that decision stands."""
        with contextlib.suppress(PreconditionError):
            self._write(f"steps/{step.number:04d}.json", asdict(replace(step, decided_at=now())))

    def final(self) -> dict[str, Any] | None:
        """Return how the campaign ended, or nothing if it has not."""
        return self._read("final.json")

    def finish(self, end: End, best: Best | None) -> None:
        """Write how it ended; the first record stands."""
        known = {"best": best.run, "weights": best.weights} if best else {"best": None, "weights": None}
        with contextlib.suppress(PreconditionError):
            self._write("final.json", {"finished_at": now(), **known, **asdict(end)})

    def evidence(self) -> list[RunSummary | None]:
        """Return what is known of the run of each step; nothing of one that was not begun."""
        runs = [Run(self.store, step.run) for step in self.steps()]
        records = [run.record() for run in runs]
        return [read_summary(run, record) if record else None for run, record in zip(runs, records, strict=True)]

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            loaded: dict[str, Any] = json.loads(self.store.read(self.key(name)))
        except ObjectNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise CorruptObjectError(f"{self.key(name)}: is not JSON, {error}; restore the object") from error
        return loaded

    def _write(self, name: str, content: dict[str, Any]) -> None:
        self.store.put(self.key(name), (json.dumps({"schema": SCHEMA, **content}, indent=1) + "\n").encode())


def find_campaign(store: Store, name: str | None, goal: Goal, bound: Bound | None = None) -> Campaign:
    """Return the campaign that a goal means, made if it is new.

    Args:
        store: The bucket.
        name: Its name. Without one it is the newest campaign that was asked for in the same way, or else a new one.
        goal: What is asked for.
        bound: What a new campaign can cost; one that exists keeps its own.

    Raises:
        RunConflictError: If the named campaign was asked for differently; lists every difference.
    """
    keys = [stored.key.split("/") for stored in store.list("campaigns/")]
    taken = {key[1] for key in keys if len(key) > 2}  # noqa: PLR2004 -- anything that lies in its folder takes a name
    names = sorted({key[1] for key in keys if key[2:] == ["campaign.json"]}, key=lambda each: (len(each), each))
    if name is None:
        same = [each for each in names if is_run_name(each) and _goal_of(store, each) == goal]
        name = same[-1] if same else next_free_name(FAMILY, taken)
    campaign = Campaign(store, name)
    with contextlib.suppress(PreconditionError):
        if campaign.goal() is None:
            campaign.create(goal, bound)
    existing = campaign.goal()
    if existing is not None and existing != goal:
        raise RunConflictError(
            f"campaign {name}: was started with other values; repeat those to continue it, or choose another --name",
            differences(asdict(existing), asdict(goal)),
        )
    return campaign


def _goal_of(store: Store, name: str) -> Goal | None:
    """Return what a campaign was asked for; nothing, with a warning, if its record is damaged."""
    try:
        return Campaign(store, name).goal()
    except CorruptObjectError as error:
        log.warning("%s; passed over", error)
        return None


def decide(
    goal: Goal,
    name: str,
    finished: Sequence[RunSummary],
    usd_per_hour: float | None,
    *,
    bucket: str,
    bounded: bool = False,
    bound: Bound | None = None,
) -> Step | End:
    """Return the next step, or why there is none: the rules of `advice` on the best run, within the budget.

    Own weights that a run starts from are the best that are known; no recipe is trained twice from the same.

    Args:
        goal: What was asked for.
        name: The campaign's.
        finished: Its runs so far, all finished.
        usd_per_hour: What an hour of the machine costs, if that is known.
        bucket: For the advice.
        bounded: A run cannot cost more than what is left, so its cost need not be known beforehand.
        bound: What all runs can cost where the goal limits no dollars.
    """
    if goal.max_usd is None and bound is not None and bound.left(finished) <= 0:
        return End(reason="budget spent", because=f"the campaign's bound of {bound} is used up")
    best = best_of(finished)
    if best is None:
        expected = by_authors(load_recipe(FIRST_RECIPE, goal.profile), usd_per_hour)
        return _over_budget(goal, finished, expected.usd if expected else None, bounded=bounded) or Step(
            number=1,
            recipe=FIRST_RECIPE,
            run=f"{name}-1-{FIRST_RECIPE}",
            weights=goal.weights,
            rule="first",
            because="recipe A comes first: quick, and of low risk",
        )
    run = max(finished, key=_f1)
    if best.is_start and best.f1 >= goal.target_f1:
        return End(reason="target reached", because=f"{best.weights}: F1 {best.f1:.1%}, which no run has bettered")
    advice = advise(
        run,
        finished,
        bucket=bucket,
        target=goal.target_f1,
        usd_per_hour=usd_per_hour,
        without={EXTEND, *(entry.trained_as for entry in finished if _starts_from(entry) == best.weights)},
    )
    if advice.rule == "target reached":
        return End(reason="target reached", because=f"run {run.run}: {advice.because}")
    if not advice.options:
        return End(reason="nothing helps", because=f"run {run.run}: {advice.because}")
    option = advice.options[0]
    own, number = load_recipe(option.recipe, goal.profile).start.kind == "own", len(finished) + 1
    return _over_budget(goal, finished, option.usd, bounded=bounded) or Step(
        number=number,
        recipe=option.recipe,
        run=f"{name}-{number}-{option.recipe}",
        weights=best.weights if own else None,
        rule=advice.rule,
        because=f"run {run.run}: {advice.because}",
    )


def best_of(finished: Sequence[RunSummary]) -> Best | None:
    """Return the weights with the highest F1, of finished runs and of what the first one started from.

    Of equal ones those of the first run are taken.
    """
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
    """Return what ``--weights`` takes for the weights that a run started from; nothing if it was from scratch."""
    point = entry.record.start.point
    return point.run or point.source


def spent_usd(finished: Sequence[RunSummary]) -> float | None:
    """Return what runs have cost; nothing, which means unknown, if that of one is."""
    costs = [entry.usd for entry in finished]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _over_budget(
    goal: Goal, finished: Sequence[RunSummary], next_usd: tuple[float, float] | None, *, bounded: bool
) -> End | None:
    if len(finished) >= goal.max_runs:
        return End(reason="budget spent", because=f"{goal.max_runs} runs were allowed, and are done")
    if goal.max_usd is None:
        return None
    spent, limit = spent_usd(finished), f"{goal.max_usd:.2f} USD"
    if spent is None:
        return End(reason="cost unknown", because=f"a run's machine had no price, so {limit} could not be kept")
    if next_usd is None and not bounded:
        return End(
            reason="cost unknown",
            because=f"what the next run takes is not known, so {limit} could not be kept; `job estimate` measures it",
        )
    needed = next_usd[1] if next_usd else 0.0
    if spent >= goal.max_usd or spent + needed > goal.max_usd:
        return End(
            reason="budget spent",
            because=f"{spent:.2f} of {limit} are spent, and the next run would take up to {needed:.2f}",
        )
    return None
