"""A training with a NaN fails with a message, and good checkpoints stay."""

import subprocess
import sys

import pytest

from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import TIMEOUT_S, surroundings
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "3", "--imgsz", "32", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--checkpoint-every", "0.001", "--run", "zebra"),
)
"""Two batches make an optimizer step, so gradients wait at every other checkpoint."""

RUNAWAY = """
import sys
from job.cli.app import main
from tests.support.fault_point_cli import in_training

def run_away():
    from job.training.loop import Training
    usual = Training._forward_backward

    def runaway(training, batch, index):
        usual(training, batch, index)
        if training.progress.epoch == 1 and index >= 2:
            training.trainer.loss = training.trainer.loss * float("nan")
            for parameter in training.trainer.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(float("nan"))

    Training._forward_backward = runaway

in_training(run_away)
sys.exit(main(sys.argv[1:]))
"""
"""The command line with a loss that is not a number from the third batch of the second epoch on."""


@pytest.fixture
def bucket(tmp_path):
    """A folder that holds a tiny dataset."""
    return make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=22, num_val=4), tmp_path / "bucket")


def test_a_loss_that_is_not_a_number_ends_training_and_replaces_nothing_good(bucket, tmp_path, confined):
    """The training fails with 70 and says why, and every checkpoint that is left, however often one is taken, was
    committed before and holds numbers alone.
    """
    from job.training.state import read_state  # noqa: PLC0415 -- once Ultralytics is confined

    command = [sys.executable, "-c", RUNAWAY, *TRAIN, "--bucket", bucket]
    failed = subprocess.run(
        command, env=surroundings({}), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert failed.returncode == 70, failed.stderr
    assert "is not a number" in failed.stderr
    assert "the last good checkpoint is kept" in failed.stderr
    run = Run(open_store(bucket), "zebra")
    assert run.attempt(1).end.reason == "failed"
    kept = checkpoint.committed(run)
    assert kept
    assert all((identity.epoch, identity.batch) <= (1, 2) for identity in kept)
    for identity in kept:
        folder = tmp_path / str(identity)
        folder.mkdir()
        checkpoint.fetch(run, identity, folder)
        state = read_state(folder / "state.pt")
        assert all(
            tensor.isfinite().all() for group in ("model", "ema", "gradients") for tensor in state[group].values()
        )
