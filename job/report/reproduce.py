"""The command that would train a run again, from its record."""

import shlex

from job.runs.records import RunRecord
from job.runs.request import flags_of, known_recipe


def command_of(record: RunRecord) -> str:
    """Return the command that asks for the same training, under another name.

    Arguments that the recipe has by itself today are left out. Where the recipe was a file of the user's own, those of
    ``base`` are, which comes to the same training.
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
