"""Options after a run: command, expected F1, hours and dollars.

Guarantees that hours are measured or marked as not measured. Knows nothing of the rules that choose an option.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from job.analysis.estimate import Estimate, by_authors
from job.analysis.summary import RunSummary
from job.recipes.arguments import Arguments
from job.recipes.recipe import Band, Recipe, load_recipe, recipe_names
from job.text import HOUR, between, counted, duration

EXTEND = "extend"
"""Name of the option to extend the run itself by more epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option."""

    recipe: str
    """Name of the recipe, or `EXTEND`."""

    command: str
    expect_f1: tuple[float | None, float | None]
    """The recipe's expected F1 band, for its authors' data at full scale."""

    gain_f1: tuple[float, float | None]
    """Gain from the current F1 to that band, low and high; the high end is None if the band has none."""

    epochs: int
    hours: tuple[float, float] | None
    hours_from: str
    """Source of the hours, or why they are not known."""

    usd: tuple[float, float] | None

    @property
    def title(self) -> str:
        """The recipe in words."""
        return "the same recipe, for longer" if self.recipe == EXTEND else f"recipe {self.recipe}"

    @property
    def gain(self) -> str:
        """The expected gain in words."""
        low, high = self.gain_f1
        band = Band(*self.expect_f1)
        if band.low is None and band.high is None:
            is_extension = self.recipe == EXTEND
            return "not known; the trend may continue or end" if is_extension else "not stated by the recipe"
        if high is None and low == 0:
            return f"not stated; the recipe expects {band.text(100, ' %')}"
        if high is None:
            points = f"{100 * low:.1f} points of F1 or more"
        elif low == 0:
            points = f"up to {100 * high:.1f} points of F1"
        else:
            points = f"{between(f'{100 * low:.1f}', f'{100 * high:.1f}')} points of F1"
        return f"{points}; the recipe expects {band.text(100, ' %')}"

    @property
    def time(self) -> str:
        """The hours and their source in words."""
        hours = f"{between(*(duration(hours * HOUR) for hours in self.hours))}, " if self.hours else ""
        return f"{hours}{self.hours_from}"

    @property
    def price(self) -> str | None:
        """The dollars in words."""
        return self.usd and f"{between(*(f'{usd:.2f}' for usd in self.usd))} USD"


def find_option(
    name: str, run: RunSummary, comparable: Sequence[RunSummary], *, bucket: str, usd_per_hour: float | None
) -> Option:
    """Return command, cost and expected gain of a recipe, or `EXTEND`, after a finished run.

    Comparable finished runs, oldest first, give the pace.
    """
    if name == EXTEND:
        return _extension(run, bucket, usd_per_hour)
    f1 = run.after["f1"] if run.after else 0.0
    recipe = load_recipe(name, "demo" if run.profile == "demo" else "full")
    weights = ["--weights", run.run] if recipe.start.kind == "own" else []
    args = ["--recipe", name, *weights, "--dataset", run.record.dataset.name]
    args += ["--profile", "demo"] if run.profile == "demo" else []
    scale = _carried_over(run, recipe)
    args += [word for argument, value in scale.items() for word in (f"--{argument}", str(value))]
    recipe = recipe.with_arguments(scale)
    band = recipe.expect.get("f1", Band(None, None))
    estimate = _estimate(recipe, run, comparable, usd_per_hour)
    not_known = f"not known, no run of {name} is recorded at {recipe.train['imgsz']} px; see `job estimate`"
    return Option(
        recipe=name,
        command=shlex.join(["job", "train", *args, "--bucket", bucket]),
        expect_f1=(band.low, band.high),
        gain_f1=(
            round(max(0.0, (band.low or 0.0) - f1), 4),
            None if band.high is None else round(max(0.0, band.high - f1), 4),
        ),
        epochs=recipe.train["epochs"],
        hours=estimate.hours if estimate else None,
        hours_from=estimate.based_on if estimate else not_known,
        usd=estimate.usd if estimate else None,
    )


def _extension(run: RunSummary, bucket: str, usd_per_hour: float | None) -> Option:
    """Return the option to train a run to the end of its recipe, or for twice its epochs if it was there."""
    done, epoch_s = len(run.learning_curve), run.epoch_s or 0.0
    planned = run.recipe_epochs or 0
    total = planned if planned > done else 2 * done
    more = total - done
    hours = more * epoch_s / HOUR
    return Option(
        recipe=EXTEND,
        command=shlex.join(["job", "extend", run.run, "--epochs", str(total), "--bucket", bucket]),
        expect_f1=(None, None),
        gain_f1=(0.0, None),
        epochs=more,
        hours=(hours, hours),
        hours_from=f"{counted(more, 'epoch')} of {epoch_s:.3g} s, as so far",
        usd=None if usd_per_hour is None else (hours * usd_per_hour, hours * usd_per_hour),
    )


def _carried_over(run: RunSummary, recipe: Recipe) -> Arguments:
    """Return the image size of a run if a person chose it, and its batch if that is smaller than the recipe's.

    Between tiles and whole pictures no size is carried over, and a batch is as large as its pixels.
    """
    if run.trained_as not in recipe_names():
        return {}
    usual, chosen, carried = load_recipe(run.trained_as, recipe.profile).train, recipe.train, {}
    batch = run.train["batch"]
    if bool(run.train["tiles"]) is not bool(chosen["tiles"]):
        batch = max(1, int(batch * run.train["imgsz"] ** 2 / chosen["imgsz"] ** 2))
    elif run.train["imgsz"] != usual["imgsz"]:
        carried["imgsz"] = run.train["imgsz"]
    if batch < chosen["batch"]:
        carried["batch"] = batch
    return carried


def _estimate(
    recipe: Recipe, run: RunSummary, comparable: Sequence[RunSummary], usd_per_hour: float | None
) -> Estimate | None:
    """Return an estimate at the pace of the recipe's newest run of this image size, or else the authors'."""
    same_size = [other for other in (run, *reversed(comparable)) if other.train["imgsz"] == recipe.train["imgsz"]]
    of_recipe = next((other for other in same_size if other.trained_as == recipe.name), None)
    pace = of_recipe or (run if recipe.start.kind == "own" and run in same_size else None)
    if pace is None or pace.epoch_s is None:
        return by_authors(recipe, usd_per_hour)
    based_on = f"{counted(recipe.train['epochs'], 'epoch')} of {pace.epoch_s:.3g} s, as in run {pace.run}"
    return Estimate.at_pace(recipe, pace.epoch_s, based_on, usd_per_hour)
