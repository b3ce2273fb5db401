"""Recognition of a training as a shipped recipe, by start and augmentation.

Guarantees that a recipe's values given as flags are that recipe, and that a recipe with another start or augmentation
is recognised as the one that has these. Knows nothing of runs.
"""

import dataclasses
import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from job.recipes.arguments import DEFAULTS
from job.recipes.recipe import Profile, Recipe, load_recipe, recipe_names

AUGMENTATION = (
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "bgr"),
    *("mosaic", "mixup", "cutmix", "multi_scale"),
)
"""Augmentations by which recipes with the same start differ; a higher value is stronger."""

SCALE = ("epochs", "batch", "imgsz")
"""Arguments that decide the pace of a training on one machine."""

SMALL_SIZES = "tns"
"""Letters of model sizes up to that of recipe base."""


class Origin(Enum):
    """Kind of a training's initial weights."""

    OWN = "own"
    SMALL = "a published model or architecture of the size of base, or smaller"
    LARGE = "a larger one"


def published_model(start: str) -> str | None:
    """Return the model, such as ``yolo11s``, that a start names if it is a published file or an architecture."""
    match = re.fullmatch(r"(yolov?\d+[a-z]u?(?:-p[26])?)\.(?:pt|ya?ml)", PurePosixPath(start).name)
    return match[1] if match else None


def recognise(named: str, start: str, train: Mapping[str, Any], profile: Profile) -> str:
    """Return the name of the shipped recipe that a training matches, or its own name if there is none.

    The match has the same kind of start, tiles or none, and the same augmentation; of several, the named one, or else
    the one with the nearest number of epochs. If none has the same augmentation, it is the named one if both augment or
    neither does, else the one with the fewest differences. All values are as in a run's request, `train` has every
    argument.
    """
    origin = _origin_of(start)
    if origin is None:
        return named
    tiled = bool(train.get("tiles"))
    same_start = [
        recipe
        for recipe in _shipped(profile)
        if _origin_of(str(recipe.start)) is origin and bool(recipe.train["tiles"]) is tiled
    ]
    comparable = [recipe for recipe in same_start if is_augmented(recipe.train) is is_augmented(train)]
    equal = [recipe for recipe in comparable if not _num_different(recipe, train)]
    found = equal or comparable or same_start
    if not found or named in {recipe.name for recipe in found}:
        return named
    return min(found, key=lambda r: (_num_different(r, train), abs(r.train["epochs"] - train["epochs"]))).name


def trained_as(request: Mapping[str, Any]) -> str:
    """Return the name of the shipped recipe that a recorded request matches."""
    return recognise(request["recipe"], request["start"], request["train"], request["profile"])


def shown_recipe(request: Mapping[str, Any]) -> str:
    """Return the recipe's name to show: a file of the user's own keeps its name."""
    named = str(request["recipe"])
    return trained_as(request) if named in recipe_names() else named


def is_augmented(train: Mapping[str, Any]) -> bool:
    """Whether training arguments augment more than Ultralytics' defaults."""
    return any(train.get(name, DEFAULTS[name]) > DEFAULTS[name] for name in AUGMENTATION)


def with_expectation(recipe: Recipe, start: str) -> Recipe:
    """Return a recipe with the expectation and risk of its shipped match; hours at full scale only.

    A file of the user's own states its expectation itself.
    """
    if recipe.source not in recipe_names():
        return recipe
    found = load_recipe(recognise(recipe.name, start, recipe.train, recipe.profile), recipe.profile)
    same_scale = all(recipe.train[name] == found.train[name] for name in SCALE)
    expect = {metric: band for metric, band in found.expect.items() if metric != "hours" or same_scale}
    return dataclasses.replace(recipe, expect=expect, risk=found.risk)


def _origin_of(start: str) -> Origin | None:
    """Return the kind of start; None for the end of another run, and for an architecture of unknown size."""
    if start.startswith("end of "):
        return None
    model = published_model(start)
    if model is None:
        return None if start.endswith((".yaml", ".yml")) else Origin.OWN
    size = re.sub(r"yolov?\d+", "", model)[0]
    return Origin.SMALL if size in SMALL_SIZES else Origin.LARGE


def _num_different(recipe: Recipe, train: Mapping[str, Any]) -> int:
    return sum(recipe.train[name] != train.get(name, DEFAULTS[name]) for name in AUGMENTATION)


@cache
def _shipped(profile: Profile) -> tuple[Recipe, ...]:
    return tuple(load_recipe(name, profile) for name in recipe_names())
