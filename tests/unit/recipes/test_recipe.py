"""Recipes: the fixed table, and the messages for wrong recipes."""

import dataclasses

import pytest
import yaml

from job.errors import RecipeError
from job.recipes.arguments import DEFAULTS
from job.recipes.recipe import Band, Start, load_recipe, parse_recipe, recipe_names

STRONG = {"degrees": 15.0, "scale": 0.7, "translate": 0.15, "fliplr": 0.6, "hsv_s": 0.8, "hsv_v": 0.5}

TABLE = {
    "base": ("yolo11s.pt", 20, 4, {}, {"f1": "58", "precision": "74", "recall": "47", "map50": "65"}),
    "continue": ("own best.pt", 100, 4, {}, {"f1": "over 65"}),
    "finetune": ("own best.pt", 100, 4, {"degrees": 30.0, "scale": 0.9, "hsv_s": 0.9}, {"f1": "over 68"}),
    "transfer": ("yolo11m.pt", 100, 3, {}, {"f1": "70 to 75"}),
    "A": ("own best.pt", 80, 4, STRONG, {"hours": "5 to 8", "f1": "65 to 70"}),
    "B": (
        "yolo11m.pt",
        80,
        3,
        {"degrees": 20.0, "scale": 0.8, "translate": 0.15, "fliplr": 0.6, "hsv_s": 0.9},
        {"hours": "12 to 16", "f1": "70 to 76"},
    ),
    "C": (
        "own best.pt of A",
        50,
        4,
        {
            "degrees": 30.0,
            "scale": 0.9,
            "translate": 0.2,
            "fliplr": 0.7,
            "hsv_h": 0.05,
            "hsv_s": 0.9,
            "hsv_v": 0.6,
        },
        {"hours": "4 to 6", "f1": "over 72"},
    ),
    "recommended": (
        "own best.pt",
        100,
        4,
        {**STRONG, "mosaic": 1.0},
        {"hours": "6 to 8", "f1": "65 to 70", "recall": "62 to 68", "precision": "72 to 76", "map50": "72 to 78"},
    ),
}
"""The users' table: start, epochs, batch, augmentation, expectation in percent and hours; always 2048 px."""


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_has_the_values_that_were_fixed(name):
    """Every value of every shipped recipe is the one that was asked for, and everything else is Ultralytics'
    default.
    """
    start, epochs, batch, augmentation, expect = TABLE[name]
    recipe = load_recipe(name)
    assert str(recipe.start) == start
    assert recipe.train == DEFAULTS | {"epochs": epochs, "batch": batch, "imgsz": 2048, "patience": 100, **augmentation}
    assert {key: band.text(1 if key == "hours" else 100) for key, band in recipe.expect.items()} == expect


def test_no_recipe_is_left_out_of_the_table():
    """The recipes that ship are those of the table, in its order, and T."""
    assert [name for name in recipe_names() if name != "T"] == list(TABLE)


def test_recipe_t_is_a_on_tiles():
    """Recipe T has the start, the augmentation, the epochs and the pixels of a step of A."""
    a, t = load_recipe("A"), load_recipe("T")
    tiles = {"tiles": 1024, "tile_overlap": 0.2, "tile_empty": 0.15, "tile_visible": 0.5, "val_tiles": True}
    assert t.start == a.start
    assert t.train == a.train | {"batch": 16, "imgsz": 1024} | tiles
    assert t.train["batch"] * t.train["imgsz"] ** 2 == a.train["batch"] * a.train["imgsz"] ** 2


@pytest.mark.parametrize("name", TABLE)
def test_the_demo_profile_changes_scale_and_which_epoch_is_best(name):
    """At demo scale a recipe keeps augmentation and expectation, and its best epoch is that of the highest F1."""
    full, demo = load_recipe(name), load_recipe(name, "demo")
    assert demo.train["best"] == "f1"
    scale = {"epochs", "batch", "imgsz", "nbs", "optimizer", "lr0", "warmup_bias_lr", "best"}
    assert {key: value for key, value in demo.train.items() if key not in scale} == {
        key: value for key, value in full.train.items() if key not in scale
    }
    assert demo.expect == full.expect
    assert demo.train["imgsz"] < 400


def test_every_problem_of_a_recipe_is_reported_at_once():
    """A recipe with eight mistakes is answered with eight lines that name them."""
    text = """
    strat: own best.pt
    train: {epoch: 3, batch: -1, imgsz: big, project: here, hsv_s: 2, deterministic: 3}
    expect: {f1: 68}
    """
    with pytest.raises(RecipeError) as raised:
        parse_recipe(text, name="mine", source="mine.yaml")
    said = str(raised.value)
    assert "9 problems" in said
    for part in (
        "strat: unknown key; did you mean 'start'?",
        "start: missing",
        "train.epoch: not a training argument; did you mean 'epochs'?",
        "train.batch: must be a whole number from 1 to 2147483647, got -1",
        "train.imgsz: must be a whole number from 32 to 16352, got 'big'",
        "train.project: decided by the job",
        "train.hsv_s: must be a number from 0 to 1, got 2",
        "train.deterministic: must be true or false, got 3",
        "expect.f1: must be a number",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("start: 7", "start: must be 'own best.pt', 'own best.pt of RECIPE', name.pt or name.yaml, got 7"),
        ("demo: {strat: x.pt}", "demo.strat: unknown key; did you mean 'start'?"),
        ("demo: {train: {epochs: 0}}", "demo.train.epochs: must be a whole number from 1 to 2147483647, got 0"),
        ("demo: {start: nowhere}", "demo.start: must be 'own best.pt'"),
        ("expect: {recal: 0.5}", "expect.recal: unknown key; did you mean 'recall'?"),
        (
            "expect: {hours: [8, 5]}",
            "expect.hours: must be a number, [low, high] or 'over number' in hours, got [8, 5]",
        ),
        ("expect: {f1: over 68}", "expect.f1: must be a number, [low, high] or 'over number' in fractions of 1"),
        ("summary: [a]", "summary: must be text, got ['a']"),
        ("train: [a]", "train: must be a mapping, got ['a']"),
        ("7: a", "7: unknown key; known are start, train"),
    ],
)
def test_each_section_of_a_recipe_names_its_problem(text, problem):
    """A wrong value in any section is named with its path, what it must be and what was found."""
    given = {"start": "yolo11n.pt", "train": {}} | yaml.safe_load(text)
    with pytest.raises(RecipeError) as raised:
        parse_recipe(yaml.safe_dump(given), name="mine", source="mine.yaml")
    assert len(raised.value.problems) == 1
    assert problem in raised.value.problems[0]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "train: [", "just text", "start: own best.pt\ntrain: 3\n"])
def test_text_that_is_no_recipe_is_refused_in_one_message(text):
    """Text that is not a recipe ends in a message with the file's name."""
    with pytest.raises(RecipeError, match=r"recipe mine\.yaml"):
        parse_recipe(text, name="mine", source="mine.yaml")


def test_a_misspelt_recipe_is_answered_with_the_nearest_name():
    """A name that nearly is one is answered with that one."""
    with pytest.raises(RecipeError, match="did you mean 'finetune'"):
        load_recipe("fintune")


def test_an_own_recipe_file_works_the_same(tmp_path):
    """A path to a YAML file is a recipe named after the file."""
    path = tmp_path / "mine.yaml"
    path.write_text("start: yolo11n.yaml\ntrain: {epochs: 3, degrees: 5}\n")
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.start, recipe.train["epochs"], recipe.train["degrees"]) == (
        "mine",
        Start("scratch", "yolo11n.yaml"),
        3,
        5.0,
    )


def test_a_rate_that_the_optimizer_replaces_is_known():
    """The optimizer `auto` ignores a learning rate that is given; any other one takes it."""
    recipe = load_recipe("A")
    assert recipe.ignored == []
    assert recipe.with_arguments({"lr0": 0.001, "warmup_bias_lr": 0.0}).ignored == ["lr0", "warmup_bias_lr"]
    assert recipe.with_arguments({"lr0": 0.001, "optimizer": "AdamW"}).ignored == []


def test_the_digest_depends_on_what_decides_the_outcome():
    """Another value changes a recipe's digest, and the same value written otherwise does not."""
    recipe = load_recipe("A")
    assert recipe.with_arguments({"degrees": 15}).digest == recipe.digest
    assert recipe.with_arguments({"degrees": 16}).digest != recipe.digest
    assert dataclasses.replace(recipe, start=Start("own", "A")).digest != recipe.digest
    assert dataclasses.replace(recipe, start=Start("scratch", "yolo11n.yaml")).digest != recipe.digest
    assert dataclasses.replace(recipe, name="B").digest != recipe.digest
    assert dataclasses.replace(recipe, expect={}, risk=None).digest == recipe.digest


@pytest.mark.parametrize(
    ("band", "value", "reached"),
    [
        (Band(0.65, 0.70), 0.65, True),
        (Band(0.65, 0.70), 0.64, False),
        (Band(0.65, 0.70), 0.9, True),
        (Band(0.68, None), 0.7, True),
        (Band(0.58, 0.58), 0.57, False),
    ],
)
def test_an_expectation_is_reached_from_its_low_end_on(band, value, reached):
    """A metric at the low end of a band, or anywhere above it, has reached the band."""
    assert band.reached(value) is reached
