"""A whole run as a person starts it: killed, resumed, finished, on a folder and on GCS."""

import csv
import io
import json
import subprocess
import sys

import pytest

from job.cli.app import main
from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.attempt_records import final_tensors
from tests.support.bucket import make_bucket
from tests.support.cli_process import TIMEOUT_S, job, kill, messages, start_job, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

ORDER = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "4", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--run", "zebra"),
)
"""A small training; two batches make an optimizer step, and five an epoch, so gradients wait at an epoch's end."""


@pytest.fixture(params=["folder", "gcs"])
def bucket(request, tmp_path, monkeypatch):
    """A bucket of either kind that holds a tiny dataset."""
    location = tmp_path / "bucket"
    if request.param == "gcs":
        emulator = request.getfixturevalue("emulator")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        location = emulator.make_bucket() + "/wild/life"
    return make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=18, num_val=4), location)


@pytest.fixture
def folder_bucket(tmp_path):
    """A folder that holds a tiny dataset."""
    return make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=18, num_val=4), tmp_path / "bucket")


def train(bucket, *words):
    """Run the small training to its end; flags that are given take the place of its own."""
    pairs = zip(ORDER[1::2], ORDER[2::2], strict=True)
    kept = [word for flag, value in pairs if flag not in words for word in (flag, value)]
    return job(ORDER[0], *kept, *words, "--bucket", bucket)


def epochs_of(bucket, run="zebra"):
    """Return the epochs in the results of a run, in their order."""
    text = open_store(bucket).read(f"runs/{run}/results.csv").decode()
    return [int(row["epoch"]) for row in csv.DictReader(io.StringIO(text))]


def tensors_of(bucket, run="zebra"):
    """Return the digests of the final weights of a run."""
    final = Run(open_store(bucket), run).final()
    return final_tensors(final)


def has_committed(bucket, epoch, run="zebra"):
    """Whether a run has a committed checkpoint of an epoch or later."""
    committed = checkpoint.committed(Run(open_store(bucket), run))
    return bool(committed) and committed[-1].epoch >= epoch


def test_a_killed_run_ends_like_one_that_never_was(bucket):
    """A run that is killed after its first committed epoch goes on with the next, has each epoch once, and ends
    with the same tensors.
    """
    process = start_job(*ORDER, "--bucket", bucket)
    wait_until(lambda: has_committed(bucket, 1), process)
    kill(process)
    done = checkpoint.committed(Run(open_store(bucket), "zebra"))[-1].epoch
    resumed = train(bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert f"run zebra: attempt 2 resumes after epoch {done} of 4" in messages(resumed.stderr)
    assert epochs_of(bucket) == [1, 2, 3, 4]
    assert "before" in resumed.stdout
    twin = job(*ORDER[:-1], "twin", "--bucket", bucket)
    assert twin.returncode == 0, twin.stderr
    assert tensors_of(bucket) == tensors_of(bucket, "twin")


def test_a_finished_run_says_so_and_writes_nothing(folder_bucket):
    """Starting a finished run again exits 0, shows its table, and changes no object of the bucket."""
    assert train(folder_bucket).returncode == 0
    store = open_store(folder_bucket)
    before = store.list()
    again = train(folder_bucket)
    assert again.returncode == 0
    assert any("run zebra was finished before" in message for message in messages(again.stderr))
    assert "mAP50-95" in again.stdout
    assert store.list() == before


def test_a_changed_recipe_on_an_existing_run_is_refused(folder_bucket):
    """Another value for a run that exists ends with exit 65 and the key that differs."""
    assert train(folder_bucket).returncode == 0
    changed = train(folder_bucket, "--epochs", "5", "--rotate", "3")
    assert changed.returncode == 65
    assert "train.epochs: the run has 4, asked for 5" in changed.stderr
    assert "train.degrees: the run has 0.0, asked for 3.0" in changed.stderr


def test_a_run_goes_on_with_the_version_of_its_data(folder_bucket, tmp_path):
    """A new version of the data, pushed while a run is cut off, changes no bit of that run."""
    process = start_job(*ORDER, "--bucket", folder_bucket)
    wait_until(lambda: has_committed(folder_bucket, 1), process)
    kill(process)
    label = next((tmp_path / "tiny" / "labels" / "train").iterdir())
    words = ("--dataset", "tiny", "--bucket", folder_bucket)
    untouched = make_bucket(tmp_path / "tiny", tmp_path / "straight")
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    assert main(["data", "push", str(tmp_path / "tiny"), *words, "--replace"]) == 0
    resumed = train(folder_bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert train(untouched).returncode == 0
    assert tensors_of(folder_bucket) == tensors_of(untouched)


def test_of_two_attempts_at_once_one_goes_on(folder_bucket, tmp_path):
    """A machine that starts a run in the midst of another one's attempt takes it over: it ends the run, and the other
    exits 75 at its next commit.
    """
    run, held = Run(open_store(folder_bucket), "zebra"), tmp_path / "held"
    words = (*ORDER, "--bucket", folder_bucket, "--workdir")
    first = start_job(*words, "work1", at="step:3:wait", TEST_HELD=held)
    wait_until(held.exists, first)
    second = start_job(*words, "work2")
    wait_until(lambda: run.attempts() == [1, 2], second)
    held.unlink()
    said = [process.communicate(timeout=TIMEOUT_S)[1] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [75, 0], said
    assert "was superseded by attempt 2" in said[0]
    assert epochs_of(folder_bucket) == [1, 2, 3, 4]
    assert [run.attempt(number).end.reason for number in (1, 2)] == ["superseded", "finished"]
    assert main(["runs", "verify", "zebra", "--bucket", folder_bucket]) == 0


def test_a_damaged_checkpoint_is_found_and_passed_over(folder_bucket, capsys):
    """After one byte of the newest checkpoint changed, verify names the file, and the next start restores the one
    before and says why.
    """
    process = start_job(*ORDER, "--bucket", folder_bucket)
    wait_until(lambda: has_committed(folder_bucket, 2), process)
    kill(process)
    store = open_store(folder_bucket)
    older, newest = checkpoint.committed(Run(store, "zebra"))[-2:]
    key = f"runs/zebra/checkpoints/{newest}/state.pt"
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data), overwrite=True)
    assert main(["runs", "verify", "zebra", "--bucket", folder_bucket]) == 74
    assert key in capsys.readouterr().err
    resumed = train(folder_bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert f"checkpoint {newest} is skipped" in resumed.stderr
    assert f"resumes after epoch {older.epoch} of 4" in resumed.stderr
    assert epochs_of(folder_bucket) == [1, 2, 3, 4]


def test_a_new_run_takes_the_next_name_and_leaves_old_ones_alone(folder_bucket):
    """Without a name, another order becomes the next run of the family, from the newest finished one, which stays
    as it was.
    """
    base = job(*ORDER[:-2], "--bucket", folder_bucket)
    assert base.returncode == 0, base.stderr
    store = open_store(folder_bucket)
    before = store.list("runs/yolov11_wildlife/")
    improve = ("train", "--recipe", "A", "--epochs", "1", "--imgsz", "64", "--batch", "4", "--plots", "false")
    improved = job(*improve, "--workers", "0", "--bucket", folder_bucket)
    assert improved.returncode == 0, improved.stderr
    assert any("took over 499 of 499 tensors, 100.0 %" in message for message in messages(improved.stderr))
    record = Run(store, "yolov11_wildlife2").record()
    assert record.start.point.run == "yolov11_wildlife"
    assert store.list("runs/yolov11_wildlife/") == before
    # Row 0 of the new run is what the old one's weights reached at its end.
    start = json.loads(store.read("runs/yolov11_wildlife2/final.json"))["comparison"]["before"]
    assert start == json.loads(store.read("runs/yolov11_wildlife/final.json"))["comparison"]["after"]


def test_the_folder_that_people_know_is_there(folder_bucket):
    """After a run its folder holds what Ultralytics users look for, plots included."""
    assert train(folder_bucket, "--plots", "true").returncode == 0
    names = {stored.key.removeprefix("runs/zebra/") for stored in open_store(folder_bucket).list("runs/zebra/")}
    wanted = {"weights/best.pt", "weights/last.pt", "results.csv", "args.yaml", "results.png", "BoxPR_curve.png"}
    assert wanted | {"run.json", "final.json", "attempts/0001.json"} <= names


def test_broken_files_are_set_aside_when_that_is_asked_for(folder_bucket, tmp_path):
    """With --quarantine a run trains without the broken files, and its record says which they were."""
    image = min((tmp_path / "tiny" / "images" / "train").iterdir())
    image.write_bytes(image.read_bytes()[:-20])
    words = ("--dataset", "tiny", "--bucket", folder_bucket, "--replace", "--force")
    assert main(["data", "push", str(tmp_path / "tiny"), *words]) == 0
    refused = train(folder_bucket)
    assert refused.returncode == 65
    assert image.name in refused.stderr
    done = train(folder_bucket, "--quarantine")
    assert done.returncode == 0, done.stderr
    record = Run(open_store(folder_bucket), "zebra").record()
    assert f"images/train/{image.name}" in record.dataset.set_aside
    assert record.facts.num_train_images == 17


def test_the_weights_are_ordinary_ultralytics_files(folder_bucket, tmp_path):
    """`best.pt` and `last.pt` load, validate and predict in Ultralytics alone, in a process that does not import the
    job.
    """
    assert train(folder_bucket).returncode == 0
    script = tmp_path / "elsewhere" / "load.py"
    script.parent.mkdir()
    data = script.with_name("data.yaml")
    names = "{0: animal, 1: bird}"
    data.write_text(f"path: {tmp_path / 'tiny'}\ntrain: images/train\nval: images/val\nnames: {names}\n")
    weights = [f"{folder_bucket}/runs/zebra/weights/{name}.pt" for name in ("best", "last")]
    script.write_text(
        "import sys\nimport numpy\nfrom ultralytics import YOLO\n"
        f"for path in {weights!r}:\n"
        "    model = YOLO(path)\n"
        "    assert model.names == {0: 'animal', 1: 'bird'}\n"
        "    model.predict(numpy.zeros((64, 64, 3), numpy.uint8), imgsz=64, verbose=False)\n"
        f"    model.val(data={str(data)!r}, imgsz=64, device='cpu', plots=False, verbose=False)\n"
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
