"""Stock Ultralytics resumes from a run's folder."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import TIMEOUT_S, job, kill, start_job, surroundings, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

NUM_EPOCHS = 4

TRAIN = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", NUM_EPOCHS, "--imgsz", "32", "--batch", "4"),
    *("--optimizer", "SGD", "--plots", "false", "--workers", "0", "--run", "zebra"),
)


@pytest.fixture
def bucket(tmp_path):
    """A folder that holds a tiny dataset."""
    return make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=4, num_val=2), tmp_path / "bucket")


def yolo(*words):
    """Run stock Ultralytics' own command line, without a network."""
    program = [sys.executable, "-c", "from ultralytics.cfg import entrypoint; entrypoint()"]
    settings = {"YOLO_CONFIG_DIR": Path.cwd() / "settings", "YOLO_OFFLINE": "true", "MPLBACKEND": "Agg"}
    return subprocess.run(
        [*program, *words],
        env=surroundings(settings | {"YOLO_VERBOSE": "true"}),  # which tests that isolate Ultralytics here switch off
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_stock_ultralytics_resumes_from_the_last_pt_of_a_run_that_was_cut_off(bucket, tmp_path):
    """`yolo train resume model=last.pt data=...` trains the next epoch, with the state of the optimizer; our own
    checkpoints have no such file, our command resumes exactly, and the files of a finished run are stripped.
    """
    import torch  # noqa: PLC0415  # seconds that only running a test needs

    last = Path(bucket) / "runs" / "zebra" / "weights" / "last.pt"
    cut = start_job(*TRAIN, "--bucket", bucket, at="step:3:hold", TEST_HELD=tmp_path / "held")
    wait_until(last.exists, cut)  # an epoch is a step
    kill(cut)
    mirrored = torch.load(last, weights_only=False)
    done = mirrored["epoch"] + 1
    assert done in {1, 2}
    assert not {"save_dir", "device", "workers"} & mirrored["train_args"].keys()
    assert mirrored["optimizer"]["state"]
    assert {parameter.dtype for parameter in mirrored["ema"].parameters()} == {torch.float16}
    momenta = [moments["momentum_buffer"].dtype for moments in mirrored["optimizer"]["state"].values()]
    assert set(momenta) == {torch.float16}
    for identity in checkpoint.committed(Run(open_store(bucket), "zebra")):
        of_checkpoint = Path(bucket) / "runs" / "zebra" / "checkpoints" / str(identity)
        for stored in of_checkpoint.glob("last.pt"):
            assert torch.load(stored, weights_only=False)["epoch"] == -1

    data = tmp_path / "tiny" / "data.yaml"
    data.write_text(f"path: {tmp_path / 'tiny'}\n{data.read_text()}")
    stock = yolo("train", "resume", f"model={last}", f"data={data}", "device=cpu", f"save_dir={tmp_path / 'stock'}")
    assert stock.returncode == 0, stock.stdout + stock.stderr
    output = stock.stdout + stock.stderr
    assert f"from epoch {done + 1} to {NUM_EPOCHS} total epochs" in output
    with (tmp_path / "stock" / "results.csv").open() as opened:
        assert [int(row["epoch"]) for row in csv.DictReader(opened)] == list(range(done + 1, NUM_EPOCHS + 1))

    resumed = job(*TRAIN, "--bucket", bucket)
    assert resumed.returncode == 0, resumed.stderr
    finished = torch.load(last, weights_only=False)
    assert (finished["epoch"], finished["optimizer"], finished["ema"]) == (-1, None, None)
