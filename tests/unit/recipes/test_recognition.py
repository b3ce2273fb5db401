"""The recipe of a training is recognised by its arguments, not by its name."""

import dataclasses

import pytest

from job.analysis.advice import advise
from job.cli.app import main
from job.recipes.recipe import load_recipe, recipe_names
from job.recipes.recognition import recognise, shown_recipe, trained_as
from job.runs.request import TrainRequest
from tests.support.bucket_records import recorded

A_TYPED = {"degrees": "15", "scale": "0.7", "translate": "0.15", "fliplr": "0.6", "hsv_s": "0.8", "hsv_v": "0.5"}
B_TYPED = {"degrees": "20", "scale": "0.8", "translate": "0.15", "fliplr": "0.6", "hsv_s": "0.9"}
C_TYPED = {"degrees": "30", "scale": "0.9", "translate": "0.2", "fliplr": "0.7", "hsv_h": "0.05", "hsv_s": "0.9",
           "hsv_v": "0.6"}  # fmt: skip
SIZE = {"batch": "4", "imgsz": "2048"}


def train_request(arguments=None, **words):
    """Return a request as the command line makes it."""
    return TrainRequest.parse({"dataset": "wildlife", **words, "arguments": arguments or {}})


OWN, MEDIUM = {"weights": "yolov11_wildlife"}, {"model": "yolo11m.pt"}


@pytest.mark.parametrize(
    ("words", "arguments", "recipe"),
    [
        (OWN, A_TYPED | SIZE | {"epochs": "80"}, "A"),
        (OWN, A_TYPED | SIZE | {"epochs": "100", "mosaic": "1.0"}, "recommended"),
        (OWN, C_TYPED | SIZE | {"epochs": "50"}, "C"),
        (OWN, {"degrees": "30", "scale": "0.9", "hsv_s": "0.9"} | SIZE | {"epochs": "100"}, "finetune"),
        (OWN, SIZE | {"epochs": "100"}, "continue"),
        (OWN, {"degrees": "12"}, "finetune"),
        (MEDIUM, SIZE | {"batch": "3", "epochs": "100"}, "transfer"),
        (MEDIUM, B_TYPED | SIZE | {"batch": "3", "epochs": "80"}, "B"),
        (MEDIUM, A_TYPED | SIZE | {"batch": "3", "epochs": "100"}, "B"),
        ({"model": "yolo11x.yaml"}, {}, "transfer"),
        ({"weights": "elsewhere/yolo11m.pt"}, {}, "transfer"),
        ({"model": "yolo11n.pt"}, SIZE, "base"),
        ({"model": "yolov5mu.pt"}, A_TYPED, "B"),
        ({"model": "yolov8m-p2.yaml"}, A_TYPED, "B"),
        ({"model": "yolov8n-p2.yaml"}, A_TYPED, "base"),
        ({"model": "of-my-own.yaml"}, A_TYPED, "base"),
        ({}, {"degrees": "10"}, "base"),
        ({"recipe": "A"}, {"epochs": "3", "imgsz": "64"}, "A"),
        ({"recipe": "A"}, {"degrees": "10"}, "A"),
        ({"recipe": "A"}, C_TYPED, "C"),
        ({"recipe": "A", **MEDIUM}, {}, "B"),
        ({"recipe": "recommended"}, {"epochs": "80"}, "recommended"),
        ({"recipe": "B", "model": "yolo11s.pt"}, {}, "base"),
        ({"recipe": "base", **OWN}, {}, "continue"),
    ],
)
def test_a_training_is_the_recipe_that_its_start_and_augmentation_make_it(words, arguments, recipe):
    """Flags typed out are the recipe that has them, a larger model is transfer or B, and a recipe whose scale or
    strength is changed stays what it is.
    """
    assert train_request(arguments, **words).trained_as == recipe


@pytest.mark.parametrize("profile", ["full", "demo"])
@pytest.mark.parametrize("name", recipe_names())
def test_each_recipe_is_itself(name, profile):
    """Each shipped recipe is recognised under its own name, at both scales."""
    recipe = load_recipe(name, profile)
    assert recognise(name, str(recipe.start), recipe.train, profile) == name


@pytest.mark.parametrize(
    ("words", "arguments", "as_recipe", "hours"),
    [
        (OWN, A_TYPED | SIZE | {"epochs": "80"}, "A", True),
        (OWN, A_TYPED | SIZE | {"epochs": "40"}, "A", False),
        (MEDIUM, B_TYPED | SIZE | {"batch": "3", "epochs": "80"}, "B", True),
        (MEDIUM, SIZE | {"batch": "3", "epochs": "100"}, "transfer", False),
        ({"recipe": "A", **MEDIUM}, {}, "B", False),
    ],
)
def test_band_risk_and_hours_are_those_of_the_recognised_recipe(words, arguments, as_recipe, hours):
    """The expectation that a run records is that of the recipe it is; hours hold at the recipe's own scale alone."""
    found, expected = train_request(arguments, **words).recipe, load_recipe(as_recipe)
    assert (found.expect["f1"], found.risk) == (expected.expect["f1"], expected.risk)
    assert ("hours" in found.expect) is hours


def test_what_a_run_is_asked_for_stays_its_identity():
    """A command of before is still the same request, so that what it began is gone on with."""
    typed = train_request(A_TYPED | SIZE | {"epochs": "80"}, **OWN)
    request = typed.identity("wildlife")
    assert (request["recipe"], request["start"]) == ("continue", "yolov11_wildlife")
    assert (trained_as(request), shown_recipe(request)) == ("A", "A")
    assert "expect" not in request


def test_an_own_recipe_file_keeps_its_name_and_its_expectation(tmp_path):
    """The rules see the recognised recipe, people its name, and its own expectation holds."""
    path = tmp_path / "mine.yaml"
    path.write_text("start: own best.pt\ntrain: {degrees: 15, scale: 0.7}\nexpect: {f1: 0.9}\n")
    mine = train_request(recipe=str(path))
    assert (mine.recipe.expect["f1"].low, mine.recipe.risk) == (0.9, None)
    assert mine.recipe_description == "mine; expected: F1 90 %"
    request = mine.identity("wildlife")
    assert (shown_recipe(request), trained_as(request) in {"A", "recommended", "finetune"}) == ("mine", True)


def test_an_extension_keeps_its_name():
    """The start of the extended run is not in its record."""
    request = train_request(recipe="B").identity("wildlife") | {"start": "end of zebra"}
    assert trained_as(request) == "B"


def typed(recipe, f1, start, asked):
    """Return the summary of a run with the values of a recipe under another name."""
    summary = recorded(recipe, course=(0.2, *[f1] * 11))
    request = {**summary.record.request, "recipe": asked, "start": start}
    return dataclasses.replace(summary, record=summary.record.model_copy(update={"request": request}))


@pytest.mark.parametrize(
    ("summary", "rule", "advised"),
    [
        (typed("A", 0.69, "yolov11_wildlife", "continue"), "good enough for C", "C"),
        (typed("A", 0.66, "yolov11_wildlife", "continue"), "A not enough", "B"),
        (typed("transfer", 0.69, "yolo11m.pt", "base"), "below the target", "B"),
        (typed("B", 0.69, "yolo11m.pt", "base"), "below the target", "transfer"),
    ],
)
def test_advice_goes_by_the_recognised_recipe(summary, rule, advised):
    """A run with the flags of A is an A for the rules, and a larger model is one that was tried."""
    advice = advise(summary, bucket="gs://zoo")
    assert (advice.rule, advice.recipe) == (rule, advised)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "A"], "recipe A; expected: F1 65 to 70 %, 5 to 8 h, risk low"),
        (["--recipe", "B", "--epochs", "20"], "recipe B; expected: F1 70 to 76 %, risk medium"),
        (["--model", "yolo11m.pt"], "recipe base, which is transfer by what it trains; expected: F1 70 to 75 %"),
        (["--recipe", "A", "--profile", "demo"], "recipe A; expected at full scale: F1 65 to 70 %, 5 to 8 h, risk low"),
        (
            ["--weights", "x", "--epochs", "80", "--batch", "4", "--imgsz", "2048", "--rotate", "15", "--scale", "0.7",
             "--translate", "0.15", "--fliplr", "0.6", "--hsv-s", "0.8", "--hsv-v", "0.5"],
            "recipe continue, which is A by what it trains; expected: F1 65 to 70 %, 5 to 8 h, risk low",
        ),
    ],
)  # fmt: skip
def test_recipe_and_expectation_are_printed_before_a_start(capsys, words, said):
    """A dry run prints the recipe, the expected F1 and hours, and the risk; so does a start."""
    assert main(["train", *words, "--dry-run"]) == 0
    assert said in capsys.readouterr().err
