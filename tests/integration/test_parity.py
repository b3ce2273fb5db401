"""Our loop ends with the bits of Ultralytics' own, on the same batches."""

import warnings

import pytest
import torch

from job.recipes.recipe import load_recipe
from job.training.callbacks import TrainingCallbacks
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


def train_stock(plan):
    """Train with Ultralytics' `_do_train`, given our batches in our order."""
    from job.training.rng import start_streams  # noqa: PLC0415 -- after Ultralytics was confined
    from job.training.trainer import Trainer  # noqa: PLC0415 -- Ultralytics is confined first

    class Stock(Trainer):
        is_set_up = False
        number = 0

        def _setup_train(self):
            if not self.is_set_up:
                self.is_set_up = True
                super()._setup_train()

        def preprocess_batch(self, batch):
            start_streams("size", self.args.seed, self.epoch, self.number)
            self.number += 1
            return super().preprocess_batch(batch)

    def start_epoch(trainer):
        trainer.batches.start(trainer.epoch)
        trainer.number = 0

    trainer = Stock(plan)
    trainer.train_loader.reset = lambda: None  # what Ultralytics' loader has to forget its workers
    trainer.callbacks["on_train_epoch_start"].append(start_epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    return trainer


def train_ours(plan):
    """Train with our loop."""
    from job.training.loop import Training  # noqa: PLC0415 -- after Ultralytics was confined

    training = Training(plan)
    training.run(TrainingCallbacks())
    return training.trainer


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
