"""A request to train, apart from any bucket or machine; also the flags that say it, with their help and defaults.

Guarantees that recipe, training arguments and flags are valid together, or that every problem is reported at once.
"""

import os
import re
from typing import Annotated, Any, cast, get_args

from pydantic import Field, InstanceOf, ValidationInfo, field_validator

from job.errors import JobError, UsageError
from job.recipes.arguments import ALIASES, DEFAULTS, OWNED, read_argument
from job.recipes.recipe import Profile, Recipe, load_recipe, recipe_names
from job.recipes.recognition import recognise, with_expectation
from job.runs.flags import Problem, Seconds, Switch, WorkdirOption, reads, whole_number
from job.runs.records import Request
from job.runs.run import check_run_name
from job.text import nearest

MAX_WORKERS = 1024
"""Each is a process; no machine that trains has as many cores."""


def read_profile(text: str) -> Profile:
    """Read ``full`` or ``demo``.

    Raises:
        ValueError: If it is neither.
    """
    for profile in get_args(Profile):
        if text == profile:
            return cast("Profile", profile)
    raise ValueError(f"must be full or demo, got {text!r}")


def _read_model(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+\.(pt|ya?ml)", text):
        raise ValueError(f"must be NAME.pt or NAME.yaml, got {text!r}; weights of your own are --weights")
    return text


RunName = Annotated[str, reads(check_run_name)]

ProfileName = Annotated[Profile, reads(read_profile)]

Workers = Annotated[int, whole_number(0, MAX_WORKERS)]


def default_workers() -> int:
    """Return how many loader processes there are, as Ultralytics has it; never more than there are cores."""
    return min(8, os.cpu_count() or 1)


WORKERS_HELP = "Loader processes; 8 if left out, or as many as there are cores."


class Execution(WorkdirOption):
    """How a training runs on its machine; no part of what makes two requests the same run."""

    device: str = Field("", description="cpu, 0, 1, ...; chosen if left out.")
    workers: Workers = Field(default_factory=default_workers, description=WORKERS_HELP)
    checkpoint_every_s: Seconds = Field(
        60.0,
        alias="checkpoint_every",
        description="Seconds between checkpoints within an epoch; 0 takes them at the ends of epochs only.",
    )
    hang_after_s: Seconds = Field(
        1800.0,
        alias="hang_after",
        description="Seconds without a step or a validation batch after which a training ends with exit 75; "
        "0 waits for ever.",
    )


class TrainRequest(Execution):
    """One command to train."""

    dataset: str | None = Field(
        None, description="A folder under datasets/ in the bucket; may be left out when there is one."
    )
    run: RunName | None = Field(None, description="The run's name; yolov11_DATASET, yolov11_DATASET2, ... if left out.")
    weights: str | None = Field(
        None,
        description="Start weights: a run, a path in the bucket such as runs/NAME/weights/best.pt, a gs:// URI, or a "
        "file on this machine if it trains here.",
    )
    model: Annotated[str, reads(_read_model)] | None = Field(
        None, description="Replaces the start: NAME.pt for published weights, NAME.yaml to train from scratch."
    )
    profile: ProfileName = Field("full", description="full, or demo for the recipe at the scale of a laptop.")
    new_classes: Switch = Field(
        default=False, description="Allow weights whose classes differ from those of the dataset."
    )
    quarantine: Switch = Field(
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
        """The first weights, as they are asked for."""
        return self.weights or self.model or str(self.recipe.start)

    @property
    def trained_as(self) -> str:
        """The name of the shipped recipe that this is, by the values that are trained."""
        return recognise(self.recipe.name, self.start, self.recipe.train, self.recipe.profile)

    @property
    def about_recipe(self) -> str:
        """The recipe for people: its name, its shipped equivalent by values, and what its authors expect of it."""
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
        """Return what makes two requests the same run; the machine has no part in it.

        Args:
            dataset: The name of the dataset that is meant.
        """
        return {
            "recipe": self.recipe.name,
            "profile": self.recipe.profile,
            "dataset": dataset,
            "start": self.start,
            "model": self.model if self.weights else None,
            "new_classes": self.new_classes,
            "quarantine": self.quarantine,
            "train": self.recipe.train,
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
