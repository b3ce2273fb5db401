"""A whole run as a person starts it: killed, resumed, finished, on a folder and on GCS."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest

from job.cli.app import main
from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket, tensors_of
from tests.support.cli_process import TIMEOUT_S, job, kill, messages, start_job, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "4", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--run", "zebra"),
)
"""A small training; two batches make an optimizer step, and five an epoch, so gradients wait at an epoch's end."""

TINY = ("--model", "tiny.yaml")
"""Words of a training whose weights are compared with no other's."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk: 18 images to train on, 4 to validate on."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=18, num_val=4)


@pytest.fixture(params=[pytest.param("folder", marks=pytest.mark.full), "gcs"])
def any_bucket(request, data, tmp_path, monkeypatch):
    """A bucket of either kind with the tiny dataset."""
    location = tmp_path / "bucket"
    if request.param == "gcs":
        emulator = request.getfixturevalue("emulator")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        location = emulator.make_bucket() + "/wild/life"
    return make_bucket(data, location)


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A copy of the bucket of a finished run."""
    shutil.copytree(undisturbed, tmp_path / "bucket", symlinks=True)
    return str(tmp_path / "bucket")


@pytest.fixture
def own_data(data, tmp_path):
    """A copy of the tiny dataset."""
    shutil.copytree(data, tmp_path / "tiny")
    return tmp_path / "tiny"


def with_words(*words):
    """Return the words of the small training; flags that are given take the place of its own."""
    pairs = zip(TRAIN[1::2], TRAIN[2::2], strict=True)
    kept = [word for flag, value in pairs if flag not in words for word in (flag, value)]
    return (TRAIN[0], *kept, *words)


def train(bucket, *words):
    """Run the small training to its end, with these words in place of its own."""
    return job(*with_words(*words), "--bucket", bucket)


def epochs_of(bucket, run="zebra"):
    """Return the epochs in the results of a run, in their order."""
    text = open_store(bucket).read(f"runs/{run}/results.csv").decode()
    return [int(row["epoch"]) for row in csv.DictReader(io.StringIO(text))]


def has_committed(bucket, epoch, run="zebra"):
    """Whether a run has a committed checkpoint of an epoch or later."""
    committed = checkpoint.committed(Run(open_store(bucket), run))
    return bool(committed) and committed[-1].epoch >= epoch


def test_a_killed_run_ends_like_an_undisturbed_one(any_bucket, undisturbed):
    """A run that is killed after its first committed epoch resumes with the next, has each epoch once, and ends
    with the same tensors.
    """
    process = start_job(*TRAIN, "--bucket", any_bucket)
    wait_until(lambda: has_committed(any_bucket, 1), process)
    kill(process)
    done = checkpoint.committed(Run(open_store(any_bucket), "zebra"))[-1].epoch
    resumed = train(any_bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert f"run zebra: attempt 2 resumes after epoch {done} of 4" in messages(resumed.stderr)
    assert epochs_of(any_bucket) == [1, 2, 3, 4]
    assert "after" in resumed.stdout
    assert tensors_of(any_bucket) == tensors_of(undisturbed)


def test_a_finished_run_says_so_and_writes_nothing(finished, capsys):
    """Starting a finished run again exits 0, shows its table, and changes no object of the bucket."""
    store = open_store(finished)
    before = store.list()
    assert main([*TRAIN, "--bucket", finished]) == 0
    said = capsys.readouterr()
    assert "run zebra was finished before" in said.err
    assert "mAP50-95" in said.out
    assert store.list() == before


def test_a_changed_recipe_on_an_existing_run_is_refused(finished, capsys):
    """Another value for a run that exists ends with exit 65 and the key that differs."""
    assert main([*with_words("--epochs", "5", "--rotate", "3"), "--bucket", finished]) == 65
    said = capsys.readouterr().err
    assert "train.epochs: the run has 4, asked for 5" in said
    assert "train.degrees: the run has 0.0, asked for 3.0" in said


def test_a_resumed_run_keeps_the_version_of_its_data(bucket, undisturbed, own_data):
    """A new version of the data, pushed while a run is cut off, changes no bit of that run."""
    process = start_job(*TRAIN, "--bucket", bucket)
    wait_until(lambda: has_committed(bucket, 1), process)
    kill(process)
    next((own_data / "labels" / "train").iterdir()).write_text("0 0.5 0.5 0.1 0.1\n")
    assert main(["data", "push", str(own_data), "--dataset", "tiny", "--bucket", bucket]) == 0
    resumed = train(bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert "dataset tiny: has version 2 now, run zebra stays on version 1" in resumed.stderr
    assert tensors_of(bucket) == tensors_of(undisturbed)


def test_of_two_attempts_at_once_the_later_one_finishes(bucket, tmp_path):
    """A machine that starts a run during another one's attempt takes it over: it finishes the run, and the other
    exits 75 at its next commit.
    """
    run, held = Run(open_store(bucket), "zebra"), tmp_path / "held"
    words = (*with_words(*TINY), "--bucket", bucket, "--workdir")
    first = start_job(*words, "work1", at="step:3:wait", TEST_HELD=held)
    wait_until(held.exists, first)
    second = start_job(*words, "work2")
    wait_until(lambda: run.attempt_numbers() == [1, 2], second)
    held.unlink()
    said = [process.communicate(timeout=TIMEOUT_S)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [75, 0], said
    assert "was superseded by attempt 2" in said[0]
    assert epochs_of(bucket) == [1, 2, 3, 4]
    assert [run.attempt(number).end.reason for number in (1, 2)] == ["superseded", "finished"]
    assert main(["runs", "verify", "zebra", "--bucket", bucket]) == 0


def test_a_damaged_checkpoint_is_found_and_passed_over(bucket, tmp_path, capsys):
    """After one byte of the newest checkpoint changed, verify names the file, and the next start restores the one
    before and says why.
    """
    words = (*with_words(*TINY), "--bucket", bucket)
    process = start_job(*words, at="step:12:wait", TEST_HELD=tmp_path / "held")
    wait_until(lambda: has_committed(bucket, 2), process)
    kill(process)
    store = open_store(bucket)
    older, newest = checkpoint.committed(Run(store, "zebra"))[-2:]
    key = f"runs/zebra/checkpoints/{newest}/state.pt"
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data), overwrite=True)
    assert main(["runs", "verify", "zebra", "--bucket", bucket]) == 74
    assert key in capsys.readouterr().err
    resumed = train(bucket, *TINY)
    assert resumed.returncode == 0, resumed.stderr
    assert f"checkpoint {newest} is skipped" in resumed.stderr
    assert f"resumes after epoch {older.epoch} of 4" in resumed.stderr
    assert epochs_of(bucket) == [1, 2, 3, 4]


def test_a_new_run_takes_the_next_name_and_leaves_old_ones_alone(bucket):
    """Without a name, another request becomes the next run of the family, from the newest finished one, which does
    not change.
    """
    small = ("--epochs", "1", "--imgsz", "64", "--batch", "4", "--plots", "false", "--workers", "0", "--bucket", bucket)
    base = job("train", "--recipe", "base", "--model", "yolo11n.yaml", *small)
    assert base.returncode == 0, base.stderr
    store = open_store(bucket)
    before = store.list("runs/yolov11_tiny/")
    improved = job("train", "--recipe", "A", *small)
    assert improved.returncode == 0, improved.stderr
    assert any("took over 499 of 499 tensors, 100.0 %" in message for message in messages(improved.stderr))
    record = Run(store, "yolov11_tiny2").record()
    assert record.start.point.run == "yolov11_tiny"
    assert store.list("runs/yolov11_tiny/") == before
    # Row 0 of the new run is what the old one's weights reached at its end.
    start = json.loads(store.read("runs/yolov11_tiny2/final.json"))["comparison"]["before"]
    assert start == json.loads(store.read("runs/yolov11_tiny/final.json"))["comparison"]["after"]


def test_broken_files_are_set_aside_when_that_is_asked_for(bucket, own_data, capsys):
    """With --quarantine a run trains without the broken files, and its record names them."""
    image = min((own_data / "images" / "train").iterdir())
    image.write_bytes(image.read_bytes()[:-20])
    words = ("--dataset", "tiny", "--bucket", bucket, "--force")
    assert main(["data", "push", str(own_data), *words]) == 0
    capsys.readouterr()
    assert main([*with_words(*TINY), "--bucket", bucket]) == 65
    assert image.name in capsys.readouterr().err
    done = train(bucket, *TINY, "--quarantine", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    record = Run(open_store(bucket), "zebra").record()
    assert f"images/train/{image.name}" in record.dataset.set_aside
    assert record.facts.num_train_images == 17


def test_the_weights_are_ordinary_ultralytics_files(undisturbed, own_data, tmp_path):
    """`best.pt` and `last.pt` load, validate and predict in Ultralytics alone, in a process that does not import the
    job.
    """
    script = tmp_path / "elsewhere" / "load.py"
    script.parent.mkdir()
    data_yaml = script.with_name("data.yaml")
    names = "{0: animal, 1: bird}"
    data_yaml.write_text(f"path: {own_data}\ntrain: images/train\nval: images/val\nnames: {names}\n")
    weights = [f"{undisturbed}/runs/zebra/weights/{name}.pt" for name in ("best", "last")]
    script.write_text(
        "import sys\nimport numpy\nfrom ultralytics import YOLO\n"
        f"for path in {weights!r}:\n"
        "    model = YOLO(path)\n"
        "    assert model.names == {0: 'animal', 1: 'bird'}\n"
        "    model.predict(numpy.zeros((64, 64, 3), numpy.uint8), imgsz=64, verbose=False)\n"
        f"    model.val(data={str(data_yaml)!r}, imgsz=64, device='cpu', plots=False, verbose=False)\n"
        "assert 'job' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", str(script)],
        capture_output=True,
        text=True,
        cwd=script.parent,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
