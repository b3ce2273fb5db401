"""Decisions at the start of a run hold for all its attempts, on other code and machines, too."""

import json
import shutil

import numpy as np
import pytest

from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import TIMEOUT_S, job, start_job
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--run", "zebra"),
)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The bucket of a run on crowded images that was killed with a limit of 300 detections, as every run of before."""
    folder = tmp_path_factory.mktemp("begun")
    data = make_tiny_dataset(folder / "tiny", num_train=8, num_val=4)
    boxes = np.random.default_rng(0).uniform(0.2, 0.8, (400, 2))
    (data / "labels" / "val" / "000.txt").write_text("".join(f"0 {x:.6f} {y:.6f} 0.1 0.1\n" for x, y in boxes))
    bucket = make_bucket(data, folder / "bucket")
    process = start_job(*TRAIN, "--max-det", "300", "--bucket", bucket, at="manifest:2:kill")
    process.communicate(timeout=TIMEOUT_S)
    assert Run(open_store(bucket), "zebra").record().facts.max_det == 300
    return bucket


@pytest.fixture
def bucket(begun, tmp_path):
    """A copy of it."""
    shutil.copytree(begun, tmp_path / "bucket", symlinks=True)
    return str(tmp_path / "bucket")


def test_a_run_keeps_the_limit_of_detections_that_it_began_with(bucket):
    """Where a new run would allow more detections, one that began with fewer keeps them to its end."""
    done = job(*TRAIN, "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    assert Run(open_store(bucket), "zebra").final().attempt == 2


def test_a_run_of_another_kind_of_device_goes_elsewhere(bucket):
    """A machine that would continue on its processor what a GPU began exits 78, which asks for another machine."""
    store = open_store(bucket)
    record = json.loads(store.read("runs/zebra/run.json"))
    record["facts"] |= {"device": "cuda", "amp": True}
    store.put("runs/zebra/run.json", json.dumps(record).encode(), overwrite=True)
    done = job(*TRAIN, "--bucket", bucket)
    assert (done.returncode, "device: the run has 'cuda', asked for 'cpu'" in done.stderr) == (78, True)
