"""``job recipes``: list, show, check."""

import dataclasses
from typing import Any

import yaml

from job.commands.values import read_profile
from job.outcome import LABELS
from job.recipe import Recipe, load_recipe, recipe_names
from job.training_arguments import DEFAULTS


def list_recipes() -> None:
    """Print one line for each recipe."""
    recipes = [load_recipe(name) for name in recipe_names()]
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:{width}}  {recipe.summary}")
        print(f"{'':{width}}  {_in_short(recipe)}")


def show_recipe(name: str, profile: str) -> None:
    """Print a recipe as YAML, every value decided.

    Raises:
        RecipeError: If there is no such recipe or it is wrong.
    """
    recipe = load_recipe(name, read_profile(profile))
    shown: dict[str, Any] = {
        "recipe": recipe.name,
        "summary": recipe.summary,
        "risk": recipe.risk,
        "advised": recipe.advised,
        "profile": recipe.profile,
        "start": str(recipe.start),
        "expect": {name: band.text() for name, band in recipe.expect.items()},
        "train": recipe.train,
    }
    shown = {key: value for key, value in shown.items() if value not in (None, "", {})}
    print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")


def check_recipe(file: str) -> None:
    """Check a recipe in both profiles.

    Raises:
        RecipeError: Lists every problem.
    """
    recipe = dataclasses.replace(load_recipe(file), profile="full")
    load_recipe(file, "demo")
    print(f"{file}: a valid recipe; {_in_short(recipe)}")


def _in_short(recipe: Recipe) -> str:
    base = ("epochs", "batch", "imgsz")
    changed = [
        f"{name} {value:g}" for name, value in recipe.train.items() if value != DEFAULTS[name] and name not in base
    ]
    train = recipe.train
    parts = [f"{recipe.start}, {train['epochs']} epochs, batch {train['batch']}, {train['imgsz']} px", *changed]
    expect = [f"{LABELS[name]} {band.text(100, ' %')}" for name, band in recipe.expect.items() if name in LABELS]
    if "hours" in recipe.expect:
        expect.insert(0, recipe.expect["hours"].text(unit=" h"))
    return ", ".join(parts) + (f"; expect {', '.join(expect)}" if expect else "")
