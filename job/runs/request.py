"""What a person asked for, apart from any bucket or machine."""

from dataclasses import dataclass
from pathlib import Path

from job.recipes.recipe import Recipe, recipe_names
from job.recipes.recognition import recognise
from job.runs.records import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One command to train."""

    recipe: Recipe
    """With the arguments of the command line in it."""

    dataset: str | None
    run: str | None
    weights: str | None
    model: str | None
    new_classes: bool
    quarantine: bool
    device: str
    workers: int
    workdir: Path
    checkpoint_every_s: float
    """Seconds between checkpoints within an epoch; 0 takes none there."""

    hang_after_s: float = 1800.0
    """Seconds in which nothing is done before the process counts as hung; 0 waits for ever."""

    @property
    def start(self) -> str:
        """What the first weights are asked to be."""
        return self.weights or self.model or str(self.recipe.start)

    @property
    def trained_as(self) -> str:
        """The name of the shipped recipe that this is, by what is trained."""
        return recognise(self.recipe.name, self.start, self.recipe.train, self.recipe.profile)

    @property
    def about_recipe(self) -> str:
        """The recipe for people: its name, which one it is by what is trained, and what its authors expect of it."""
        recipe, found = self.recipe, self.trained_as
        name = recipe.name if found == recipe.name or recipe.source not in recipe_names() else (
            f"{recipe.name}, which is {found} by what it trains"
        )  # fmt: skip
        told = [f"F1 {recipe.expect['f1'].text(100, ' %')}"] if "f1" in recipe.expect else []
        told += [recipe.expect["hours"].text(unit=" h")] if "hours" in recipe.expect else []
        told += [f"risk {recipe.risk}"] if recipe.risk else []
        scale = "" if recipe.profile == "full" else " at full scale"
        return f"{name}; expected{scale}: {', '.join(told) or 'nothing is stated'}"

    def request(self, dataset: str | None) -> Request:
        """Return what makes two orders the same run; the machine has no part in it.

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
