"""Tells a person that a new run begins beside one that is not finished: what differs, and the command for each.

Guarantees that the command for the unfinished run asks for what that run was asked for. Knows nothing of machines.
"""

import logging
import shlex
from collections.abc import Mapping
from typing import Any

from job.recipes.recipe import Recipe, load_recipe, recipe_names
from job.runs.records import differences
from job.runs.run import FAMILY, Run
from job.runs.search import survey
from job.storage.object_store import Store

log = logging.getLogger(__name__)


def tell_beside(store: Store, run: Run, request: Mapping[str, Any], verb: str) -> None:
    """Warn if a run is new because something was asked for that an unfinished run was not asked for.

    Args:
        store: The bucket.
        run: The new run.
        request: What is asked for.
        verb: The command that asks, ``train`` or ``submit``.
    """
    unfinished = [found for found in reversed(survey(store, FAMILY).runs) if not found.finished]
    if not unfinished:
        return
    nearest = min(unfinished, key=lambda found: len(differences(found.record.request, request)))
    lines = [
        f"run {nearest.run.name}: is not finished, and was started with other values; run {run.name} begins beside it",
        *(f"  - {line}" for line in differences(nearest.record.request, request)),
        f"  to resume {nearest.run.name}: {command_for(verb, nearest.record.request, nearest.run.name)}",
        f"  to train {run.name}: {command_for(verb, request, run.name)}",
    ]
    log.warning("%s", "\n".join(lines))


def command_for(verb: str, request: Mapping[str, Any], run: str) -> str:
    """Return the command that asks for a request, by the name of its run."""
    recipe = known_recipe(request)
    if recipe.name != request["recipe"]:  # it was a file of the user's own
        return f"the command that started it, with --run {run}"
    words = ["job", verb, "--recipe", recipe.name, "--dataset", request["dataset"]]
    if request["profile"] != "full":
        words += ["--profile", request["profile"]]
    start = request["start"]
    if request["model"] is not None:
        words += ["--weights", start, "--model", request["model"]]
    elif start != str(recipe.start):
        words += ["--model" if start.endswith((".pt", ".yaml", ".yml")) and "/" not in start else "--weights", start]
    return shlex.join([*words, *flags_of(request, recipe), "--run", run])


def flags_of(request: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return the flags of a request that its recipe does not imply today."""
    words = [f"--{name.replace('_', '-')}" for name in ("new_classes", "quarantine") if request[name]]
    for name, value in request["train"].items():
        if value is not None and recipe.train.get(name) != value:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def known_recipe(request: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a request; that of ``base`` where it was a file of the user's own.

    A record leads to no file of this machine, whatever it calls its recipe.
    """
    name = request["recipe"] if request["recipe"] in recipe_names() else "base"
    return load_recipe(name, request["profile"])
