"""Initial weights: refusals, and the share of parameters that is transferred."""

import json
import pickle
import zipfile

import pytest

from job.cli.app import main
from tests.support.cli_process import job, messages
from tests.support.tiny_dataset import make_tiny_dataset

SMALL = ("--epochs", "1", "--imgsz", "64", "--batch", "8", "--plots", "false", "--workers", "0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bucket with a dataset and a finished run on it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "bucket").mkdir()
    push(folder, "tiny")
    done = train(folder, "--recipe", "base", "--model", "yolo11n.yaml")
    assert done.returncode == 0, done.stderr
    return folder


def push(folder, name, classes=("animal", "bird")):
    """Make a dataset and push it."""
    made = make_tiny_dataset(folder / name, num_train=8, num_val=4)
    (made / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(classes)}]\n")
    assert main(["data", "push", str(made), "--dataset", name, "--bucket", str(folder / "bucket")]) == 0


def train(folder, *words):
    """Train for an epoch."""
    words = words if "--dataset" in words else (*words, "--dataset", "tiny")
    return job("train", *words, *SMALL, "--bucket", folder / "bucket", "--workdir", folder / "work")


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        pytest.param("run", "yolov11_tiny", marks=pytest.mark.full),
        pytest.param("key", "runs/yolov11_tiny/weights/best.pt", marks=pytest.mark.full),
        ("file", "{}/runs/yolov11_tiny/weights/best.pt"),
    ],
)
def test_a_run_a_key_and_a_file_are_the_same_start(trained, kind, weights):
    """Weights may be named by their run, by their path in the bucket, and by a file here."""
    done = train(trained, "--weights", weights.format(trained / "bucket"), "--run", f"by_{kind}")
    assert done.returncode == 0, done.stderr
    assert any("100.0 % of the parameters" in message for message in messages(done.stderr))


def test_weights_with_other_classes_are_refused_unless_that_is_meant(trained):
    """Classes in another order end before training with both lists, and --new-classes lets them pass."""
    push(trained, "swapped", classes=("bird", "animal"))
    words = ("--recipe", "continue", "--weights", "yolov11_tiny", "--dataset", "swapped")
    refused = train(trained, *words, "--run", "swapped")
    assert refused.returncode == 65
    assert "its classes are in another order" in refused.stderr
    assert "weights: 0 animal, 1 bird" in refused.stderr
    assert "data: 0 bird, 1 animal" in refused.stderr
    meant = train(trained, *words, "--new-classes", "--run", "swapped")
    assert meant.returncode == 0, meant.stderr


def test_a_start_is_measured_unless_its_classes_are_new(trained):
    """Start weights with one class of the data are measured; random weights, and weights with none of the classes, are
    not, and the log has the reason.
    """
    assert before_of(trained, "yolov11_tiny") is None
    for name, classes, measured in (("new", ("cat", "dog", "cow"), False), ("more", ("bird", "cat", "animal"), True)):
        push(trained, name, classes)
        words = ("--recipe", "continue", "--weights", "yolov11_tiny", "--new-classes", "--dataset", name, "--run", name)
        done = train(trained, *words)
        assert done.returncode == 0, done.stderr
        assert (before_of(trained, name) is not None) is measured
        told = [message for message in messages(done.stderr) if "find nothing yet" in message]
        assert told == [] if measured else told[0].startswith("the layers for the classes are new and find nothing yet")


def before_of(folder, run):
    """Return the metrics of a run's start weights."""
    return json.loads((folder / "bucket" / "runs" / run / "final.json").read_text())["comparison"]["before"]


def test_weights_of_another_size_are_refused(trained):
    """Weights that fit less than 90 % of backbone and neck end with the share and the reason."""
    refused = train(trained, "--weights", "yolov11_tiny", "--model", "yolo11s.yaml", "--run", "larger")
    assert refused.returncode == 65
    assert "% of backbone and neck, at least 90 % is needed" in refused.stderr
    assert "another model size" in refused.stderr


def test_a_file_that_would_run_code_is_refused_by_name_and_runs_none(trained, tmp_path):
    """A checkpoint that holds anything but classes of torch and Ultralytics is refused, and what it would run does
    not run.
    """

    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"model": Evil()}, protocol=2))
        archive.writestr("evil/version", "3")
        archive.writestr("evil/byteorder", "little")
    refused = train(trained, "--weights", evil, "--run", "evil")
    assert refused.returncode == 65
    assert "refused without running it" in refused.stderr
    assert "exec" in refused.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [*(pytest.param(content, marks=pytest.mark.full) for content in (b"", b"not weights")), b"PK\x03\x04 cut"],
)
def test_a_damaged_file_is_refused(trained, tmp_path, content):
    """Weights that are empty, something else, or cut end with one message."""
    file = tmp_path / "damaged.pt"
    file.write_bytes(content)
    refused = train(trained, "--weights", file, "--run", "damaged")
    assert refused.returncode == 65
    assert "damaged.pt" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        pytest.param(("--recipe", "C"), "there is no finished run of recipe A", marks=pytest.mark.full),
        (("--weights", "nothing"), "is neither a file nor a run"),
        (("--weights", "runs/nothing/weights/best.pt"), "is neither a file here nor an object"),
        (("--model", "yolo99n.yaml"), "Ultralytics has no such model"),
        (("--recipe", "base"), "could not be downloaded"),
    ],
)
def test_missing_start_weights_are_reported_with_what_to_do(trained, words, part):
    """Each way in which start weights can be missing ends before training with its own advice."""
    refused = train(trained, *words, "--run", "missing")
    assert refused.returncode == 65, refused.stderr
    assert part in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (trained / "bucket" / "runs" / "missing").exists()


def test_the_digest_of_weights_is_that_of_their_tensors(trained, capsys):
    """Two files with the same tensors and other metadata have one digest, which the run's record names."""
    import torch  # noqa: PLC0415  # seconds that only this test needs

    best = trained / "bucket" / "runs" / "yolov11_tiny" / "weights" / "best.pt"
    checkpoint = torch.load(best, weights_only=False)
    changed = trained / "changed.pt"
    torch.save(checkpoint | {"date": "another day"}, changed)
    assert changed.read_bytes() != best.read_bytes()
    digests = []
    for path in (best, changed):
        assert main(["weights", "digest", str(path)]) == 0
        digests.append(capsys.readouterr().out.strip())
    assert digests[0] == digests[1]
    assert len(digests[0]) == 64
    for parameter in checkpoint["model"].parameters():
        parameter.data[0] += 1
        break
    torch.save(checkpoint, changed)
    assert main(["weights", "digest", str(changed)]) == 0
    assert capsys.readouterr().out.strip() != digests[0]
