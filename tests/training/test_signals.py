"""A notice to a whole process group, as a terminal and a service manager send it: no step that was done is lost."""

import os
import signal

import pytest

from job import checkpoint
from job.run import Run
from job.store import open_store
from tests.support.bucket import make_bucket
from tests.support.command import start_job, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

ORDER = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "3", "--imgsz", "32", "--batch", "4"),
    *("--plots", "false", "--checkpoint-every", "0", "--run", "zebra"),
)
"""Three epochs of three batches; a validation has two batches, or its loader would have no processes of its own."""

NUM_BATCHES = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=12, num_val=9)


@pytest.fixture
def bucket(data, tmp_path):
    """A folder that holds the tiny dataset."""
    return make_bucket(data, tmp_path / "bucket")


def run_in(bucket):
    """Return the run."""
    return Run(open_store(bucket), "zebra")


def num_steps(trace):
    """Return how many steps a training has reported."""
    return len(trace.read_text().splitlines()) if trace.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_after_a_validation_with_workers(bucket, tmp_path, number):
    """With loader processes, which is the default, a signal to all of them is a notice to the trainer alone."""
    trace = tmp_path / "trace"
    process = start_job(*ORDER, "--workers", "2", "--bucket", bucket, JOB_TRACE=trace)
    wait_until(lambda: num_steps(trace) > NUM_BATCHES, process)
    os.killpg(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    newest = checkpoint.committed(run_in(bucket))[-1]
    assert (newest.epoch, newest.batch) == divmod(num_steps(trace), NUM_BATCHES)
