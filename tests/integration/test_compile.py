"""A compiled training: that of stock Ultralytics, with checkpoints that do not know that it was compiled."""

import signal
from dataclasses import replace

import pytest
import torch

from job.recipes.recipe import load_recipe
from job.storage.open_store import open_store
from job.training.signals import NOTICES
from tests.support.cli_process import job
from tests.support.stock_loop import train_ours, train_stock
from tests.support.tiny_training import plan_tiny_training

SMALL = {"epochs": 2, "imgsz": 64, "batch": 4, "nbs": 8, "close_mosaic": 1, "plots": False, "max_det": None}

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--run", "zebra"),
)


@pytest.fixture
def masks():
    """The signals that are blocked whenever something is compiled."""
    return []


@pytest.fixture
def plan(confined, data, tmp_path, monkeypatch, masks):
    """A function that plans a training that dynamo traces, without a compiler behind it."""
    from ultralytics.engine import trainer as theirs  # noqa: PLC0415 -- after Ultralytics was confined

    from job.training import trainer  # noqa: PLC0415 -- after Ultralytics was confined

    def as_it_is(graph, _inputs):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return graph.forward

    def compile_eagerly(model, *, device, mode):
        assert mode is True
        torch._dynamo.reset()  # what other models have left
        return torch.compile(model, backend=as_it_is)

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))  # torch would set it for later tests
    monkeypatch.setattr(theirs, "attempt_compile", compile_eagerly)
    monkeypatch.setattr(trainer, "why_not_compiled", lambda _device: None)

    def make(name):
        train = load_recipe("A", "demo").train | SMALL | {"compile": True}
        return replace(plan_tiny_training(tmp_path / name, data / "data.yaml", train), architecture="tiny.yaml")

    yield make
    torch._dynamo.reset()


def test_a_compiled_training_is_that_of_the_stock_loop(plan, masks):
    """Given the same batches, weights and exported average are those of Ultralytics' own compiled loop, neither the
    state nor the weights have names of a compiled model, and a notice ends no process of a compiler.
    """
    from job.training.state import TrainingProgress, capture, restore_state  # noqa: PLC0415 -- after it was confined

    stock = train_stock(plan("stock"))
    masks.clear()
    ours = train_ours(plan("ours"))
    assert len(masks) == 1  # for the size of all batches but the last
    assert masks[0] >= NOTICES
    theirs, own = stock.model._orig_mod.state_dict(), ours.model._orig_mod.state_dict()
    assert [name for name in theirs if not torch.equal(theirs[name], own[name])] == []
    files = stock.last, ours.plan.folder / "last.pt"
    exported, mine = (torch.load(file, weights_only=False)["model"].state_dict() for file in files)
    assert mine.keys() == own.keys()
    assert [name for name in exported if not torch.equal(exported[name], mine[name])] == []
    state, _ = capture(ours, TrainingProgress(), in_background=False)
    assert state["model"].keys() == state["ema"].keys() == own.keys()
    assert state["gradients"].keys() <= own.keys()
    assert restore_state(ours, state) == TrainingProgress()


def test_a_machine_that_cannot_compile_starts_no_compiled_run(bucket):
    """On a CPU the recipe is refused with the reason, and no run is made."""
    done = job(*TRAIN, "--compile", "--device", "cpu", "--bucket", bucket)
    assert done.returncode == 65, done.stderr
    assert "compile: is not possible here, torch takes too long to make kernels for cpu" in done.stderr
    assert open_store(bucket).list("runs/") == []
