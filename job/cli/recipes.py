"""``job recipes``: list, show, check."""

import textwrap

import yaml
from pydantic import Field

from job.analysis.metrics import LABELS
from job.cli.command import command
from job.recipes.arguments import DEFAULTS
from job.recipes.recipe import Profile, Recipe, load_recipe, recipe_names
from job.runs.flags import Options
from job.text import NUM_COLUMNS, counted


class ShowRecipeOptions(Options):
    """Flags of ``job recipes show``."""

    positional = ("name",)

    name: str = Field(description="A name of `job recipes list`, or a path to a YAML file.")
    profile: Profile = Field("full", description="full or demo.")


class CheckRecipeOptions(Options):
    """Flags of ``job recipes check``."""

    positional = ("file",)

    file: str = Field(description="A path to a YAML file, or a recipe's name.")


@command(Options, "job recipes list")
def list_recipes(_options: Options) -> None:
    """Print a few lines for each recipe."""
    recipes = [load_recipe(name) for name in recipe_names()]
    width = max(len(recipe.name) for recipe in recipes) + 2
    for recipe in recipes:
        described = [recipe.summary, f"risk {recipe.risk}" if recipe.risk else "", recipe.advised or ""]
        first, indent = f"{recipe.name:{width}}", " " * width
        for line in (", ".join(filter(None, described)), _settings(recipe), _expectation(recipe)):
            print(textwrap.fill(line, NUM_COLUMNS, initial_indent=first, subsequent_indent=indent))
            first = indent


@command(ShowRecipeOptions, "job recipes show A --profile demo")
def show_recipe(options: ShowRecipeOptions) -> None:
    """Print a recipe as YAML, every value decided."""
    recipe = load_recipe(options.name, options.profile)
    shown = {
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


@command(CheckRecipeOptions, "job recipes check mine.yaml")
def check_recipe(options: CheckRecipeOptions) -> None:
    """Check a recipe, both profiles of it."""
    recipe = load_recipe(options.file)
    print(f"{options.file}: a valid recipe; {_settings(recipe)}")


def _settings(recipe: Recipe) -> str:
    train, scale = recipe.train, {"epochs", "batch", "imgsz"}
    changed = [f"{name} {_value(train[name])}" for name in train if train[name] != DEFAULTS[name] and name not in scale]
    scaled = f"{counted(train['epochs'], 'epoch')}, batch {train['batch']}, {train['imgsz']} px"
    return ", ".join([str(recipe.start), scaled, *changed])


def _value(value: object) -> str:
    """Return a value as a file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _expectation(recipe: Recipe) -> str:
    bands = [f"{LABELS[name]} {band.text(100, ' %')}" for name, band in recipe.expect.items() if name in LABELS]
    if "hours" in recipe.expect:
        bands.insert(0, recipe.expect["hours"].text(unit=" h"))
    return f"expect {', '.join(bands)}" if bands else ""
