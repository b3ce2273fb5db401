"""Work of a training on tiles beside that of recipe A on the same pictures: steps, pixels, and hours where known.

Guarantees that hours come from finished runs on the same data, and names those. Changes nothing.
"""

import logging
import math
from typing import TYPE_CHECKING

from job.analysis.estimate import by_run, from_runs
from job.analysis.summary import finished_runs
from job.recipes.recipe import Recipe, load_recipe
from job.runs.request import TrainRequest
from job.session.context import SessionContext
from job.storage.object_store import Store
from job.text import HOUR, counted, duration

if TYPE_CHECKING:
    from job.training.loop import Training

log = logging.getLogger(__name__)


def log_work(context: SessionContext, dataset: str, training: "Training") -> None:
    """Log the work of an epoch of tiles beside that of one of recipe A on the same pictures, and the hours of both."""
    recipe = context.request.recipe
    recipe_a = load_recipe("A", recipe.profile)
    whole, num_pictures = recipe_a.train, len(training.trainer.labels["train"])
    num_tiles, imgsz = training.trainer.batches.num_images, recipe.train["imgsz"]
    ours, theirs = num_tiles * imgsz**2 / 1e6, num_pictures * whole["imgsz"] ** 2 / 1e6
    log.info(
        "tiles: an epoch has %s of %s, %s, %.0f megapixels; one of recipe A has %s, %.0f megapixels, so that "
        "--epochs %d takes about the time of its %s",
        *(counted(num_tiles, "tile"), counted(num_pictures, "picture"), counted(training.num_batches, "step"), ours),
        *(counted(math.ceil(num_pictures / whole["batch"]), "step"), theirs),
        *(max(1, round(whole["epochs"] * theirs / ours)), counted(whole["epochs"], "epoch")),
    )
    for line in describe_hours(context.store, context.request, dataset, recipe_a, ours / theirs):
        log.info("%s", line)


def describe_hours(store: Store, request: TrainRequest, dataset: str, whole: Recipe, share: float) -> list[str]:
    """Return the hours of a training on tiles and of one on whole pictures, as far as finished runs tell.

    Without a run on such tiles, an epoch takes as long as its pixels take on whole pictures.

    Args:
        store: The bucket.
        request: The training on tiles.
        dataset: Its dataset's name.
        whole: The recipe on whole pictures.
        share: Pixels of an epoch of tiles, as a multiple of those of one on whole pictures.
    """
    finished = finished_runs(store)
    on_tiles = from_runs(request, dataset, lambda _: True, finished)
    on_whole = from_runs(request.model_copy(update={"recipe": whole}), dataset, lambda _: True, finished)
    lines = []
    if on_tiles is not None:
        expected = by_run(request.recipe, on_tiles, None)
        lines.append(f"tiles: about {duration(expected.hours[0] * HOUR)} in all, as {expected.based_on}")
    elif on_whole is not None and on_whole.epoch_s is not None:
        seconds = request.recipe.train["epochs"] * on_whole.epoch_s * share
        lines.append(f"tiles: about {duration(seconds)} in all, by their pixels at the pace of run {on_whole.run}")
    if on_whole is not None:
        expected = by_run(whole, on_whole, None)
        lines.append(f"recipe {whole.name}: about {duration(expected.hours[0] * HOUR)} in all, as {expected.based_on}")
    return lines
