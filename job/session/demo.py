"""Demo profile: a complete training at the scale of a laptop, on synthetic data.

Fills an empty bucket with data and a baseline to start from; everything else is the session of real runs.
"""

import logging
import tempfile
from pathlib import Path

from job.datasets.lockfile import list_dataset
from job.datasets.push import plan_push
from job.datasets.synthetic import draw_demo_dataset
from job.datasets.versions import dataset_names
from job.errors import WeightsError
from job.recipes.recipe import Recipe, load_recipe
from job.runs.lineage import find_start
from job.runs.request import TrainRequest
from job.session.train import train
from job.storage.object_store import Store

log = logging.getLogger(__name__)

DATASET = "wildlife-demo"

TAKES = "6 to 10 min on two CPU cores"
"""Measured from the first line to the last, of recipe A in an empty bucket, the installation left out."""


def train_demo(store: Store, request: TrainRequest) -> None:
    """Train a recipe at demo scale, after the recipe that it starts from if that has no run yet."""
    if not dataset_names(store) or list_dataset(store, DATASET).is_incomplete:
        log.info("demo: recipe A, after the baseline that it starts from, takes %s", TAKES)
        log.info("demo: drawing a small dataset of animals seen from the air")
        with tempfile.TemporaryDirectory() as folder:
            draw_demo_dataset(Path(folder))
            plan_push(store, Path(folder), DATASET).send()
    request = request.model_copy(update={"dataset": default_dataset(store, request)})
    earlier = _missing_start(store, request)
    if earlier is not None:
        log.info("demo: recipe %s starts from weights of %s, which is trained first", request.recipe.name, earlier)
        recipe = load_recipe(earlier, "demo")
        train_demo(store, request.model_copy(update={"recipe": recipe, "run": None, "weights": None, "model": None}))
    log.info("demo scale of recipe %s: %s", request.recipe.name, changes(request.recipe))
    train(store, request, boot_s=None if earlier is None else 0.0)  # all seconds until here are in the earlier run


def default_dataset(store: Store, request: TrainRequest) -> str | None:
    """Return the dataset that a request names; for the demo, else the synthetic one if the bucket has it."""
    is_open = request.dataset is None and request.recipe.profile == "demo"
    return DATASET if is_open and DATASET in dataset_names(store) else request.dataset


def changes(recipe: Recipe) -> str:
    """Describe the changes of a recipe's demo profile."""
    full = load_recipe(recipe.source, "full")
    values = {"start": (recipe.start, full.start)}
    values |= {name: (value, full.train[name]) for name, value in recipe.train.items()}
    changed = [f"{name} {value} instead of {other}" for name, (value, other) in values.items() if value != other]
    return ", ".join(changed) or "nothing is changed"


def _missing_start(store: Store, request: TrainRequest) -> str | None:
    """Return the recipe to run first, if the start weights are missing."""
    if request.weights is not None or request.model is not None or request.recipe.start.kind != "own":
        return None
    try:
        find_start(store, request, request.run)
    except WeightsError:
        return request.recipe.start.name or "base"
    return None
