"""Kernels of a GPU: deterministic at a recipe's size, in training's memory layout, with the bits of stock's loop."""

import json

import pytest
import torch

from job.recipes.recipe import load_recipe
from job.training.callbacks import TrainingCallbacks
from tests.support.bucket import run_in
from tests.support.cli_process import job
from tests.support.gpu_training import kill_and_resume, words_of
from tests.support.stock_loop import train_ours, train_stock
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

NHWC = torch.channels_last

NUM_COMPARED = 20
"""Steps whose losses are compared with those of stock's loop."""


class EnoughError(Exception):
    """Ends a training."""


class Until(TrainingCallbacks):
    """Keeps the state after some steps in a folder, and ends the training."""

    def __init__(self, num_steps, folder):
        self.left, self.folder = num_steps, folder

    def on_step(self, _step, snapshot):
        """Count."""
        self.left -= 1
        if not self.left:
            snapshot().write(self.folder)
            raise EnoughError


@pytest.fixture
def plan(confined, device, px, tmp_path):
    """A function that plans a training of recipe A, each time in a folder of its own."""
    data = make_tiny_dataset(tmp_path / "tiny", num_train=4 * NUM_COMPARED, num_val=4, px=128)
    data_yaml = data / "data.yaml"
    few = {"epochs": 1, "imgsz": px(640), "batch": 4, "nbs": 8, "close_mosaic": 0, "plots": False, "max_det": None}

    def make(name, **changes):
        (tmp_path / name).mkdir()
        train = load_recipe("A").train | few | changes
        return plan_tiny_training(tmp_path / name, data_yaml, train, device=device)

    return make


@pytest.mark.parametrize("recipe", ["A", "B", "C"])
def test_no_kernel_of_a_recipe_is_nondeterministic(tmp_path, device, on_cpu, recipe):
    """At the recipe's own size and batch, where an operator without a deterministic kernel is an error, the check of
    the machine finds every bit equal after a kill.
    """
    profile = "demo" if on_cpu else "full"
    words = ("--recipe", recipe, "--profile", profile, "--device", device, "--workers", "4", "--workdir", tmp_path)
    done = job("doctor", "--exact", "--json", *words)
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert [found[name]["grade"] for name in ("exact kernels", "exact resume")] == ["ok", "ok"], done.stdout
    assert ("GPU memory" in found) is not on_cpu


@pytest.mark.anywhere
def test_the_memory_layout_of_training_survives_a_resumption(plan, on_cpu):
    """Weights, EMA, gradients and moments lie in memory channels last, and do so again when they were restored."""
    from job.training.loop import Training  # noqa: PLC0415 -- Ultralytics is confined first

    def made(name):
        training = Training(plan(name, imgsz=64, warmup_epochs=0.0))
        if on_cpu:  # where Ultralytics has another layout
            for module in (training.trainer.model, training.trainer.ema.ema):
                module.to(memory_format=NHWC)
        return training

    before, after = made("before"), made("after")
    with pytest.raises(EnoughError):
        before.run(Until(3, before.plan.folder))
    after.restore(before.plan.folder)
    layouts = layout(before.trainer)
    assert layout(after.trainer) == layouts
    for group in ("weights", "ema", "gradients", "moments"):
        four_d = [strides for name, strides in layouts.items() if name.startswith(group) and len(strides) == 4]
        assert any(strides[1] == 1 and strides[3] > 1 for strides in four_d), group


def layout(trainer):
    """Return the strides of each tensor by group and name."""
    parameters = dict(trainer.model.named_parameters())
    groups = {
        "weights": trainer.model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "gradients": {name: each.grad for name, each in parameters.items() if each.grad is not None},
        "moments": {
            f"{name}.{kind}": moment
            for name, each in parameters.items()
            for kind, moment in trainer.optimizer.state[each].items()
            if isinstance(moment, torch.Tensor)
        },
    }
    return {f"{group}.{name}": each.stride() for group, each_ in groups.items() for name, each in each_.items()}


def test_the_first_losses_are_those_of_stock(plan):
    """Given the same batches, the losses of twenty steps and the weights after them are those of Ultralytics' loop, to
    the last bit.
    """
    theirs, own = [], []
    stock, ours = train_stock(plan("stock"), theirs), train_ours(plan("ours"), own)
    assert len(own) == NUM_COMPARED
    assert own == theirs
    assert ours.optimizer.state  # has taken a step
    weights, own_weights = stock.model.state_dict(), ours.model.state_dict()
    assert [name for name in weights if not torch.equal(weights[name], own_weights[name])] == []


def test_a_compiled_training_is_resumed_and_not_called_exact(bucket, device, on_cpu):
    """Compiled for this GPU, killed while gradients wait and resumed, a run ends, and its record says that it is not
    exact.
    """
    if on_cpu:
        pytest.skip("is for GPUs")
    code, said = kill_and_resume(bucket, (*words_of(bucket, "A", 640, device, workers=0), "--compile"))
    assert code == 0, said
    bits = run_in(bucket).final().bits
    assert (bits.exact, "compile: is on" in bits.because[0]) == (False, True)
