"""Options after a run: command, expected F1, hours and dollars.

Guarantees that hours are measured or marked as not measured. Knows nothing of the rules that choose an option.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from job.analysis.summary import RunSummary
from job.recipes.recipe import Band, Recipe, load_recipe, recipe_names

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


def find_option(
    name: str, run: RunSummary, alike: Sequence[RunSummary], *, bucket: str, usd_per_hour: float | None
) -> Option:
    """Return the cost and the expected gain of a recipe after a finished run.

    Args:
        name: The recipe, or `EXTEND`.
        run: The finished run.
        alike: Other finished runs, for the pace of the recipe.
        bucket: Named in the command.
        usd_per_hour: Price of the machine, if it is known.
    """
    if name == EXTEND:
        return _extension(run, bucket, usd_per_hour)
    return _of_recipe(name, run, alike, bucket, usd_per_hour)


def _extension(run: RunSummary, bucket: str, usd_per_hour: float | None) -> Option:
    done = len(run.learning_curve)
    args = ["job", "extend", run.run, "--epochs", str(2 * done), "--bucket", bucket]
    hours = done * (run.epoch_s or 0.0) / 3600
    return Option(
        recipe=EXTEND,
        command=shlex.join(args),
        expect_f1=(None, None),
        gain_f1=(0.0, None),
        epochs=done,
        hours=(hours, hours),
        hours_from=f"{done} epochs of {run.epoch_s:.3g} s, as so far",
        usd=None if usd_per_hour is None else (hours * usd_per_hour, hours * usd_per_hour),
    )


def _of_recipe(
    name: str, run: RunSummary, alike: Sequence[RunSummary], bucket: str, usd_per_hour: float | None
) -> Option:
    f1 = run.after["f1"] if run.after else 0.0
    recipe = load_recipe(name, "demo" if run.profile == "demo" else "full")
    own = recipe.start.kind == "own"
    args = ["--recipe", name]
    args += ["--weights", run.run] if own else []
    args += ["--dataset", run.record.dataset.name]
    args += ["--profile", "demo"] if run.profile == "demo" else []
    scale = _carried_over(run, recipe)
    args += [word for argument, value in scale.items() for word in (f"--{argument}", str(value))]
    recipe = recipe.with_arguments(scale)
    band = recipe.expect.get("f1", Band(None, None))
    hours, source = _hours(recipe, run, alike)
    return Option(
        recipe=name,
        command=shlex.join(["job", "train", *args, "--bucket", bucket]),
        expect_f1=(band.low, band.high),
        gain_f1=(
            round(max(0.0, (band.low or 0.0) - f1), 4),
            None if band.high is None else round(max(0.0, band.high - f1), 4),
        ),
        epochs=recipe.train["epochs"],
        hours=hours,
        hours_from=source,
        usd=None if hours is None or usd_per_hour is None else (hours[0] * usd_per_hour, hours[1] * usd_per_hour),
    )


def _carried_over(run: RunSummary, recipe: Recipe) -> dict[str, Any]:
    """Return the user's arguments that carry over to the next run: those of its scale."""
    if run.trained_as not in recipe_names():
        return {}
    usual = load_recipe(run.trained_as, recipe.profile).train
    carried: dict[str, Any] = {}
    if run.train["imgsz"] != usual["imgsz"]:
        carried["imgsz"] = run.train["imgsz"]
    if run.train["batch"] < recipe.train["batch"]:
        carried["batch"] = run.train["batch"]
    return carried


def _hours(recipe: Recipe, run: RunSummary, alike: Sequence[RunSummary]) -> tuple[tuple[float, float] | None, str]:
    """Return the hours of a recipe, low and high, and their source."""
    same_size = [other for other in (run, *reversed(alike)) if other.train["imgsz"] == recipe.train["imgsz"]]
    of_recipe = next((other for other in same_size if other.trained_as == recipe.name), None)
    pace = of_recipe or (run if recipe.start.kind == "own" and run in same_size else None)
    if pace is not None and pace.epoch_s is not None:
        hours = recipe.train["epochs"] * pace.epoch_s / 3600
        return (hours, hours), f"{recipe.train['epochs']} epochs of {pace.epoch_s:.3g} s, as in run {pace.run}"
    band = recipe.expect.get("hours")
    if band is not None and recipe.profile == "full" and band.low is not None and band.high is not None:
        return (band.low, band.high), "as the recipe's authors expect; not measured"
    return None, f"not known, no run of {recipe.name} is recorded at {recipe.train['imgsz']} px; see `job estimate`"
