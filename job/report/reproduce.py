"""Commands for a run, from its record: the one that trains it again, and the one that puts it to use."""

import shlex

from job.runs.records import RunRecord
from job.runs.request import flags_of, known_recipe
from job.runs.run import Run


def command_of(record: RunRecord) -> str:
    """Return the command that trains the same under another name.

    Arguments equal to the recipe's are left out; for a recipe from a file of the user's own, those equal to ``base``.
    """
    request, recipe = record.request, known_recipe(record.request)
    args = ["job", "train", "--recipe", recipe.name, "--dataset", str(record.dataset)]
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


def use_of(run: Run) -> str:
    """Return the command that finds objects in pictures with a run's best weights."""
    return shlex.join(["job", "predict", run.name, "path/to/pictures", "--out", "found", "--bucket", run.store.uri])


def resume_of(run: Run) -> str:
    """Return the command that continues a run."""
    return shlex.join(["job", "resume", run.name, "--bucket", run.store.uri])
