"""A run on tiles: killed, resumed with another number of loader workers, and refused where a tile is not meant."""

import math

import pytest

from job.cli.app import main
from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket, tensors_of
from tests.support.cli_process import job, kill, start_job, wait_until
from tests.support.learned_weights import learn
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--close-mosaic", "1", "--plots", "false", "--run", "zebra", "--checkpoint-every", "0.01"),
    *("--tiles", "40", "--val-tiles", "true"),
)

NUM_KILLS, NUM_EPOCHS, BATCH = 10, 5, 4

OF_T = (
    *("train", "--recipe", "T", "--epochs", NUM_EPOCHS, "--imgsz", "64", "--tiles", "40", "--batch", BATCH),
    *("--nbs", "8", "--optimizer", "AdamW", "--lr0", "0.0005", "--warmup-epochs", "0", "--close-mosaic", "2"),
    *("--plots", "false", "--run", "zebra", "--checkpoint-every", "0.01"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk, of pictures that have more than one tile."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=12, num_val=4)


def test_a_killed_run_on_tiles_ends_like_an_undisturbed_one(data, tmp_path, capsys):
    """A run on tiles that is killed within each epoch and goes on with other workers ends with the same tensors and
    the same metrics; the record says how the pictures were cut.
    """
    straight, killed = (make_bucket(data, tmp_path / name) for name in ("straight", "killed"))
    done = job(*TRAIN, "--workers", "0", "--bucket", straight)
    assert done.returncode == 0, done.stderr
    assert "tiles of 12 pictures" in done.stderr
    for epoch, workers in ((0, 2), (1, 0)):
        process = start_job(*TRAIN, "--workers", workers, "--bucket", killed)
        wait_until(lambda epoch=epoch: is_beyond(killed, epoch), process)
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
    assert main([*TRAIN[:-4], "--bucket", killed]) == 65
    assert "train.tiles: the run has 40" in capsys.readouterr().err


@pytest.mark.full
def test_a_run_of_recipe_t_killed_ten_times_ends_like_an_undisturbed_one(data, tmp_path):
    """A run of recipe T that is killed ten times from its first epoch to its last, each time going on with another
    number of workers, ends with the tensors and the metrics of one that was never killed; it finds something, so that
    metrics can differ.
    """
    straight, killed = (make_bucket(data, tmp_path / name) for name in ("straight", "killed"))
    words = (*OF_T, "--weights", learn(tmp_path))
    done = job(*words, "--workers", "0", "--bucket", straight)
    assert done.returncode == 0, done.stderr
    undisturbed = Run(open_store(straight), "zebra")
    assert undisturbed.final().comparison.after["f1"] > 0
    num_batches = math.ceil(undisturbed.record().facts.num_train_images / BATCH)
    num_steps = NUM_EPOCHS * num_batches // (NUM_KILLS + 1)  # so that no attempt gets to the end before it is killed
    for number in range(NUM_KILLS):
        held = tmp_path / f"held{number}"
        at = f"step:{num_steps}:wait"
        process = start_job(*words, "--workers", (number + 1) % 4, "--bucket", killed, at=at, TEST_HELD=held)
        wait_until(held.exists, process)
        kill(process)
    done = job(*words, "--workers", "3", "--bucket", killed)
    assert done.returncode == 0, done.stderr
    disturbed = Run(open_store(killed), "zebra")
    assert disturbed.attempt_numbers() == list(range(1, NUM_KILLS + 2))
    assert tensors_of(killed) == tensors_of(straight)
    key = "runs/zebra/results.csv"
    assert metrics(open_store(killed).read(key)) == metrics(open_store(straight).read(key))
    assert disturbed.final().comparison == undisturbed.final().comparison


def is_beyond(bucket, epoch, batch=0):
    """Whether a checkpoint beyond a batch of an epoch, both counted from 0, is committed."""
    committed = checkpoint.committed(Run(open_store(bucket), "zebra"))
    return any((found.epoch, found.batch) > (epoch, batch) for found in committed)


def metrics(results):
    """Return the rows of results without their times."""
    header, *rows = [line.split(",") for line in results.decode().splitlines()]
    time = header.index("time")
    return [row[:time] + row[time + 1 :] for row in rows]
