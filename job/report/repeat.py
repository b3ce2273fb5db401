"""The command that would train a run again, from its record."""

import shlex

from job.errors import RecipeError
from job.recipe import Recipe, load_recipe
from job.run import RunRecord


def command_of(record: RunRecord) -> str:
    """Return the command that asks for the same training, under another name.

    Arguments that the recipe has by itself today are left out. Where the recipe was a file of the user's own, those of
    ``base`` are, which comes to the same training.
    """
    request, recipe = record.request, _recipe(record)
    words = ["job", "train", "--recipe", recipe.name, "--dataset", request["dataset"]]
    if request["profile"] != "full":
        words += ["--profile", request["profile"]]
    point = record.start["point"]
    if point["source"] is None:
        words += ["--model", point["architecture"]]
    elif point["kind"] == "pretrained":
        words += ["--model", point["source"].rpartition("/")[2]]
    else:
        words += ["--weights", point.get("run") or point["source"]]
        words += ["--model", point["architecture"]] if point["architecture"] else []
    words += [f"--{name.replace('_', '-')}" for name in ("new_classes", "quarantine") if request[name]]
    for name, value in request["train"].items():
        if value is not None and recipe.train.get(name) != value:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--run", f"{record.run}-again"])


def _recipe(record: RunRecord) -> Recipe:
    profile = record.request["profile"]
    try:
        return load_recipe(record.request["recipe"], profile)
    except RecipeError:
        return load_recipe("base", profile)
