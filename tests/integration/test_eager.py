"""Training without torch's compiler, which its start does not wait for: the same arithmetic, and the rest of torch."""

import os
import subprocess
import sys

import pytest
import torch

from tests.support.bucket import make_bucket
from tests.support.cli_process import TIMEOUT_S, surroundings
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "2", "--imgsz", "32", "--batch", "4"),
    *("--workers", "0", "--device", "cpu", "--run", "zebra"),
)

IMPORTED = """
import sys
from job.cli.app import main
code = main(sys.argv[1:])
assert "torchvision" in sys.modules
assert not {"torch._dynamo", "torch._dynamo.utils", "torch._inductor"} & sys.modules.keys()
sys.exit(code)
"""
"""The command line in a process that must not have imported the compiler at its end."""

COMPILES = """
import sys
from pathlib import Path
from job.training.isolation import isolate_ultralytics
isolate_ultralytics(Path(sys.argv[1]))
import torch, torchvision
from job.training.eager import compiler_left_out, step_eagerly
assert torch.get_num_threads() == int(sys.argv[2])
with compiler_left_out():
    torch.use_deterministic_algorithms(True, warn_only=True)
    step_eagerly(torch.optim.SGD([torch.zeros(1, requires_grad=True)]))
assert torch.is_deterministic_algorithms_warn_only_enabled()
assert "torch._dynamo" not in sys.modules
regions = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2)
assert regions.eq(1).all() and regions.shape == (1, 1, 2, 2)
graphs = []
double = torch.compile(lambda x: 2 * x, backend=lambda graph, _: graphs.append(graph) or graph.forward)
assert double(torch.ones(2)).tolist() == [2, 2] and len(graphs) == 1
torch.use_deterministic_algorithms(True)
assert torch._inductor.config.deterministic
"""


@pytest.fixture
def gradients():
    """A function that gives a parameter the gradient of a step."""
    drawn = torch.Generator().manual_seed(0)
    found = torch.rand(3, 16, 8, generator=drawn) - 0.5

    def set_to(parameter, step):
        parameter.grad = found[step].clone()

    return set_to


def test_a_training_does_without_the_compiler(tmp_path):
    """From the start to the final evaluation, with plots, and from a checkpoint on, nothing imports it."""
    # A model file of the user's own does: it is looked at without memory for it, by code that the compiler shares.
    bucket = make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=8, num_val=4), tmp_path / "bucket")
    for words in (TRAIN, ("extend", "zebra", "--epochs", "3")):
        command = [sys.executable, "-c", IMPORTED, *words, "--bucket", bucket]
        subprocess.run(command, env=surroundings({}), check=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize(("given", "expected"), [("", "1"), ("2", "2")])
def test_who_asks_for_the_compiler_gets_it(tmp_path, given, expected):
    """What a training leaves out works as torch has it, in the same process, which has the threads that Ultralytics
    gives it, or the user.
    """
    command = [sys.executable, "-c", COMPILES, tmp_path / "ultralytics", expected]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": given}, check=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adamax", "MuSGD", "NAdam", "RAdam", "RMSprop", "SGD"])
def test_optimizers_step_to_the_same_bits(confined, gradients, name):
    """Of each that Ultralytics can take, parameters and moments are those of the stock step."""
    from ultralytics.optim import MuSGD  # noqa: PLC0415 -- after Ultralytics was confined

    from job.training.eager import step_eagerly  # noqa: PLC0415 -- after Ultralytics was confined

    def trained(*, eagerly):
        parameter = torch.nn.Parameter(torch.ones(16, 8))
        made = MuSGD if name == "MuSGD" else getattr(torch.optim, name)
        optimizer = made([{"params": [parameter]}], lr=0.1)
        if eagerly:
            step_eagerly(optimizer)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        for step in range(3):
            gradients(parameter, step)
            optimizer.step()
            scheduler.step()
        return parameter.detach(), optimizer.state_dict()["state"]

    (stock, moments), (own, same) = trained(eagerly=False), trained(eagerly=True)
    assert not torch.equal(own, torch.ones(16, 8))
    assert torch.equal(own, stock)
    torch.testing.assert_close(same, moments, rtol=0, atol=0)
