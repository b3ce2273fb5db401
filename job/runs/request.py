"""Train request, independent of bucket and machine; its fields are the flags, with help and defaults.

Guarantees that recipe, training arguments and flags are valid together, or that every problem is reported at once.
"""

import re
import shlex
from typing import Annotated, Any, Literal, cast

from pydantic import Field, InstanceOf, ValidationInfo, field_validator

from job.errors import JobError, UsageError
from job.recipes.arguments import ALIASES, DEFAULTS, OWNED, read_argument, requested
from job.recipes.recipe import Profile, Recipe, load_recipe, recipe_names
from job.recipes.recognition import recognise, with_expectation
from job.runs.flags import YEAR_S, Options, Problem, Seconds, WorkdirOption, reads
from job.runs.notification import NotifyOption
from job.runs.records import Request
from job.runs.run import check_run_name
from job.text import as_found, nearest
from job.training.cores import num_cores


def _read_model(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+\.(pt|ya?ml)", text):
        raise ValueError(f"must be NAME.pt or NAME.yaml, got {text!r}; weights of your own are --weights")
    return text


def _require_utf8(text: str) -> str:
    """Refuse a path that no record can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"must be UTF-8 text, got {text!a}; rename the file") from error
    return text


RunName = Annotated[str, reads(check_run_name)]


class WorkersOption(Options):
    """The loader processes."""

    workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        default_factory=lambda: min(8, num_cores()),
        description="Loader processes; 8 if left out, or as many as there are cores.",
    )


class Execution(WorkdirOption, WorkersOption, NotifyOption):
    """Execution on a machine; not part of a run's identity."""

    device: str = Field("", description="cpu, 0, 1, ...; chosen if left out.")
    checkpoint_every_s: Seconds | Literal["auto"] = Field(
        60.0,
        alias="checkpoint_every",
        title=f"a number of seconds from 0 to {YEAR_S}, which is a year, or auto",
        description="Seconds between checkpoints within an epoch; auto chooses them by what one costs and how long "
        "attempts lived, at most 1 % of the time if none was cut off; 0 takes them at the ends of epochs only.",
    )
    hang_after_s: Seconds = Field(
        1800.0,
        alias="hang_after",
        description="Seconds without a step or a validation batch after which a training ends with exit 75; "
        "0 waits for ever.",
    )
    archive: str | None = Field(
        None,
        description="A second bucket or a folder, to which records, weights and dataset lock of the finished run are "
        "copied; what is there is never changed.",
    )

    @field_validator("archive")
    @classmethod
    def _require_location(cls, archive: str | None) -> str | None:
        if archive is not None and "://" in archive and not archive.startswith("gs://"):
            raise ValueError(f"must be gs://BUCKET or a folder, got {archive!r}")
        return archive


class TrainRequest(Execution):
    """One command to train."""

    dataset: str | None = Field(
        None,
        description="A dataset of the bucket, in its newest version, or NAME@2 for a certain one; may be left out when "
        "there is one.",
    )
    run: RunName | None = Field(None, description="The run's name; yolov11_DATASET, yolov11_DATASET2, ... if left out.")
    weights: Annotated[str, reads(_require_utf8)] | None = Field(
        None,
        description="Start weights: a run, a path in the bucket such as runs/NAME/weights/best.pt, a gs:// URI, or a "
        "file on this machine if it trains here.",
    )
    model: Annotated[str, reads(_read_model)] | None = Field(
        None, description="Replaces the start: NAME.pt for published weights, NAME.yaml to train from scratch."
    )
    profile: Profile = Field("full", description="full, or demo for the recipe at the scale of a laptop.")
    new_classes: bool = Field(
        default=False, description="Allow weights whose classes differ from those of the dataset."
    )
    quarantine: bool = Field(
        default=False, description="Set broken images and labels aside instead of refusing the dataset."
    )
    arguments: dict[str, str] = Field(
        {}, description="Any training argument of Ultralytics, as text by name, such as --epochs 50."
    )
    recipe: InstanceOf[Recipe] = Field(
        cast("Recipe", None),  # `_load_recipe` replaces it
        validate_default=True,
        description="A name of `job recipes list`, or a path to a YAML file. If left out: continue if --weights is "
        "given, else base.",
    )

    @field_validator("arguments")
    @classmethod
    def _require_known(cls, arguments: dict[str, str]) -> dict[str, str]:
        names = [*cls.flags(), *DEFAULTS, *ALIASES]
        known = [name.replace("_", "-") for name in names if name != "arguments"]
        unknown = [
            f"--{flag}: there is no such flag{nearest(flag, known)}"
            for flag in (name.replace("_", "-") for name in arguments if name not in {*DEFAULTS, *ALIASES, *OWNED})
        ]
        if unknown:
            raise Problem(UsageError("command line: not understood", unknown))
        return arguments

    @field_validator("recipe", mode="before")
    @classmethod
    def _load_recipe(cls, name: str | Recipe | None, info: ValidationInfo) -> Recipe:
        """Load the recipe with the arguments of the command line in it."""
        if isinstance(name, Recipe):
            return name
        weights, model = info.data.get("weights"), info.data.get("model")
        try:
            chosen = load_recipe(name or ("continue" if weights else "base"), info.data.get("profile", "full"))
            asked = chosen.with_arguments(_values(info.data.get("arguments", {})))
            return with_expectation(asked, weights or model or str(asked.start))
        except JobError as error:
            raise Problem(error) from error

    @property
    def start(self) -> str:
        """The requested start weights."""
        return self.weights or self.model or str(self.recipe.start)

    @property
    def trained_as(self) -> str:
        """Name of the shipped recipe that matches the training arguments."""
        return recognise(self.recipe.name, self.start, self.recipe.train, self.recipe.profile)

    @property
    def recipe_description(self) -> str:
        """The recipe as text: name, shipped equivalent by values, expectation of its authors."""
        recipe, found = self.recipe, self.trained_as
        name = recipe.name if found == recipe.name or recipe.source not in recipe_names() else (
            f"{recipe.name}, which is {found} by what it trains"
        )  # fmt: skip
        stated = [f"F1 {recipe.expect['f1'].text(100, ' %')}"] if "f1" in recipe.expect else []
        stated += [recipe.expect["hours"].text(unit=" h")] if "hours" in recipe.expect else []
        stated += [f"risk {recipe.risk}"] if recipe.risk else []
        scale = "" if recipe.profile == "full" else " at full scale"
        return f"{name}; expected{scale}: {', '.join(stated) or 'nothing is stated'}"

    def identity(self, dataset: str | None) -> Request:
        """Return the identity of the run on a dataset: requests with equal identities are one run, on any machine."""
        return {
            "recipe": self.recipe.name,
            "profile": self.recipe.profile,
            "dataset": dataset,
            "start": self.start,
            "model": self.model if self.weights else None,
            "new_classes": self.new_classes,
            "quarantine": self.quarantine,
            "train": requested(self.recipe.train),
        }


def _values(arguments: dict[str, str]) -> dict[str, Any]:
    """Return training arguments by Ultralytics' names; values are checked with the recipe."""
    values: dict[str, Any] = {}
    for word, text in arguments.items():
        name = ALIASES.get(word, word)
        value = read_argument(name, text) if name in DEFAULTS else text
        if name in values and values[name] != value:
            raise UsageError(f"--{word}: is the same as --{name}, which has another value; pass one of them")
        values[name] = value
    return values


def command_for(verb: str, request: Request, run: str, bucket: str) -> str:
    """Return the command of a request, with the names of its run and bucket, as it can be given here."""
    recipe = known_recipe(request)
    if recipe.name != request["recipe"]:  # it was a file of the user's own
        return f"the command that started it, with --run {run}"
    words = ["job", verb, "--recipe", recipe.name, "--dataset", str(request["dataset"])]
    if request["profile"] != "full":
        words += ["--profile", request["profile"]]
    start = request["start"]
    if request["model"] is not None:
        words += ["--weights", start, "--model", request["model"]]
    elif start != str(recipe.start):
        words += ["--model" if start.endswith((".pt", ".yaml", ".yml")) and "/" not in start else "--weights", start]
    return as_found(shlex.join([*words, *flags_of(request, recipe), "--run", run, "--bucket", bucket]))


def flags_of(request: Request, recipe: Recipe) -> list[str]:
    """Return the flags of a request that its recipe does not imply today."""
    words = [f"--{name.replace('_', '-')}" for name in ("new_classes", "quarantine") if request[name]]
    for name, value in request["train"].items():
        if value is not None and recipe.train.get(name) != value:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def known_recipe(request: Request) -> Recipe:
    """Return the shipped recipe of a request, or ``base``; a record leads to no file of this machine."""
    name = request["recipe"] if request["recipe"] in recipe_names() else "base"
    return load_recipe(name, request["profile"])
