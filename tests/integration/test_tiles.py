"""A run on tiles: killed, resumed with another number of loader workers, and refused where a tile is not meant."""

import pytest

from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket, tensors_of
from tests.support.cli_process import job, kill, start_job, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--run", "zebra", "--checkpoint-every", "0.01"),
    *("--tiles", "40", "--val-tiles", "true"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk, of pictures that have more than one tile."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=12, num_val=4)


def test_a_killed_run_on_tiles_ends_like_an_undisturbed_one(data, tmp_path):
    """A run on tiles that is killed within each epoch and goes on with other workers ends with the same tensors and
    the same metrics; the record says how the pictures were cut.
    """
    straight, killed = (make_bucket(data, tmp_path / name) for name in ("straight", "killed"))
    done = job(*TRAIN, "--workers", "0", "--bucket", straight)
    assert done.returncode == 0, done.stderr
    assert "tiles of 12 pictures" in done.stderr
    for epoch, workers in ((0, 2), (1, 0)):
        process = start_job(*TRAIN, "--workers", workers, "--bucket", killed)
        wait_until(lambda epoch=epoch: within_epoch(killed, epoch), process)
        kill(process)
    done = job(*TRAIN, "--workers", "3", "--bucket", killed)
    assert done.returncode == 0, done.stderr
    assert Run(open_store(killed), "zebra").attempt_numbers() == [1, 2, 3]
    assert tensors_of(killed) == tensors_of(straight)
    key = "runs/zebra/results.csv"
    assert metrics(open_store(killed).read(key)) == metrics(open_store(straight).read(key))
    record = Run(open_store(killed), "zebra").record()
    assert {name: record.request["train"][name] for name in ("tiles", "val_tiles")} == {"tiles": 40, "val_tiles": True}
    assert record.facts.num_train_images > 12
    assert (record.dataset.statistics.imgsz, record.dataset.statistics.tiles) == (64, 40)
    whole = job(*TRAIN[:-4], "--bucket", killed)
    assert (whole.returncode, "train.tiles: the run has 40" in whole.stderr) == (65, True), whole.stderr


def within_epoch(bucket, epoch):
    """Whether a checkpoint within an epoch (0-based), or a later one, is committed."""
    committed = checkpoint.committed(Run(open_store(bucket), "zebra"))
    return any((found.epoch, found.batch) > (epoch, 0) for found in committed)


def metrics(results):
    """Return the rows of results without their times."""
    header, *rows = [line.split(",") for line in results.decode().splitlines()]
    time = header.index("time")
    return [row[:time] + row[time + 1 :] for row in rows]
