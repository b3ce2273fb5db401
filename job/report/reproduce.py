"""Reproduction: the command that trains a run again, from its record."""

import shlex

from job.runs.records import RunRecord
from job.runs.request import flags_of, known_recipe


def command_of(record: RunRecord) -> str:
    """Return the command that trains the same under another name.

    Arguments equal to the recipe's are left out; for a recipe from a file of the user's own, those equal to ``base``.
    """
    request, recipe = record.request, known_recipe(record.request)
    args = ["job", "train", "--recipe", recipe.name, "--dataset", record.dataset.name]
    if request["profile"] != "full":
        args += ["--profile", request["profile"]]
    point = record.start.point
    if point.source is None:
        args += ["--model", str(point.architecture)]
    elif point.kind == "pretrained":
        args += ["--model", point.source.rpartition("/")[2]]
    else:
        args += ["--weights", point.run or point.source]
        args += ["--model", point.architecture] if point.architecture else []
    return shlex.join([*args, *flags_of(request, recipe), "--run", f"{record.run}-again"])
