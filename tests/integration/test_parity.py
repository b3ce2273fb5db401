"""Our loop ends with the bits of Ultralytics' own, on the same batches."""

from dataclasses import replace

import pytest
import torch

from job.recipes.recipe import load_recipe
from tests.support.stock_loop import train_ours, train_stock
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

SMALL = {"epochs": 3, "imgsz": 64, "batch": 4, "nbs": 8, "close_mosaic": 1, "plots": False}


@pytest.fixture
def plan(confined, tmp_path):
    """A function that plans a recipe's training on a tiny dataset, each time in a folder of its own."""
    data = make_tiny_dataset(tmp_path / "tiny", num_train=18, num_val=4)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {data}\ntrain: images/train\nval: images/val\nnames: {{0: animal, 1: bird}}\n")

    def make(recipe, folder):
        return plan_tiny_training(tmp_path / folder, yaml, load_recipe(recipe, "demo").train | SMALL, 0)

    return make


@pytest.mark.parametrize("recipe", ["A", *(pytest.param(recipe, marks=pytest.mark.full) for recipe in ("B", "C"))])
def test_our_loop_ends_with_the_bits_of_the_stock_loop(plan, recipe):
    """Given the same batches, live weights and moments are those of Ultralytics' loop, and so is the exported
    average.
    """
    stock, ours = train_stock(plan(recipe, "stock")), train_ours(plan(recipe, "ours"))
    theirs, own = stock.model.state_dict(), ours.model.state_dict()
    assert [name for name in theirs if not torch.equal(theirs[name], own[name])] == []
    moments, own_moments = stock.optimizer.state_dict()["state"], ours.optimizer.state_dict()["state"]
    assert len(moments) > 0
    assert [
        (index, name)
        for index, entry in moments.items()
        for name, value in entry.items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, own_moments[index][name])
    ] == []
    exported = torch.load(stock.last, weights_only=False)["model"].state_dict()
    mine = torch.load(ours.plan.folder / "last.pt", weights_only=False)["model"].state_dict()
    assert [name for name in exported if not torch.equal(exported[name], mine[name])] == []


@pytest.mark.parametrize("architecture", ["yolov10n.yaml", "yolo26n.yaml"])
def test_a_head_without_suppression_is_trained_as_by_the_stock_loop(plan, architecture):
    """The two branches of such a head, as of YOLOv10 and YOLO26, have the weights of each epoch in the loss, also in a
    process that begins in the middle.
    """
    stock, ours = (
        train(replace(plan("A", folder), architecture=architecture))
        for train, folder in ((train_stock, "stock"), (train_ours, "ours"))
    )
    assert hasattr(stock.model.criterion, "o2m")
    theirs, own = stock.model.state_dict(), ours.model.state_dict()
    assert [name for name in theirs if not torch.equal(theirs[name], own[name])] == []
    weight = ours.model.criterion.o2m
    ours.model.criterion = None
    ours.training._weigh_branches(2)
    assert ours.model.criterion.o2m == weight < 0.8
