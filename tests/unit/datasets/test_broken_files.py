"""Broken data stop the job before training, each kind with its own message."""

import shutil

import numpy as np
import pytest
from PIL import Image

from job.cli.app import main
from tests.support.tiny_dataset import make_tiny_dataset


def first(folder, kind, split="train"):
    """Return the first image or label of a split."""
    return min((folder / kind / split).iterdir())


def write_label(text):
    """Return what replaces a label."""
    return lambda folder: first(folder, "labels").write_text(text)


def truncate_image(folder):
    """Cut the end off an image."""
    image = first(folder, "images")
    image.write_bytes(image.read_bytes()[:-20])


def same_image_in_both_splits(folder):
    """Copy a training image, under another name, into the validation split."""
    image = first(folder, "images")
    shutil.copy(image, folder / "images" / "val" / f"copy{image.suffix}")


def empty_split(folder):
    """Remove every validation image."""
    for path in [*(folder / "images" / "val").iterdir(), *(folder / "labels" / "val").iterdir()]:
        path.unlink()


def thermal_image(folder):
    """Replace an image by a TIFF of 32-bit numbers, which Pillow reads and OpenCV does not."""
    image = first(folder, "images")
    Image.fromarray(np.ones((64, 64), np.float32)).save(image.with_suffix(".tif"))
    image.unlink()


def data_yaml(text):
    """Return what replaces data.yaml."""
    return lambda folder: (folder / "data.yaml").write_text(text)


BROKEN = {
    "class out of range": (write_label("7 0.5 0.5 0.1 0.1\n"), "class"),
    "coordinates outside": (write_label("0 1.5 0.5 0.1 0.1\n"), "outside"),
    "columns missing": (write_label("0 0.5 0.5 0.1\n"), "column"),
    "not a number": (write_label("0 half 0.5 0.1 0.1\n"), "number"),
    "unreadable image": (lambda folder: first(folder, "images").write_bytes(b"no image"), "image"),
    "truncated image": (truncate_image, "image"),
    "label without image": (lambda folder: first(folder, "images").unlink(), "label"),
    "duplicate across splits": (same_image_in_both_splits, "val"),
    "empty split": (empty_split, "val"),
    "data.yaml unreadable": (data_yaml("train: ["), "data.yaml"),
    "data.yaml no mapping": (data_yaml("- a\n"), "data.yaml"),
    "data.yaml elsewhere": (
        data_yaml("train: /etc\nval: images/val\nnames: [a, b]\n"),
        "data.yaml",
    ),
    "no label to validate on": (
        lambda folder: [path.unlink() for path in (folder / "labels/val").iterdir()],
        "`val` has images, but no labels",
    ),
    "labels beside the images": (
        lambda folder: first(folder, "labels").rename(first(folder, "images").with_suffix(".txt")),
        "could be it; move it there",
    ),
    "a TIFF of 32 bits": (thermal_image, "cannot be decoded by OpenCV, with which training reads it"),
    "data.yaml of Windows": (
        lambda folder: (folder / "data.yaml").write_bytes("names: [jabalí]".encode("cp1252")),
        "save it as UTF-8",
    ),
    "data.yaml above": (data_yaml("train: ../../images\nval: images/val\nnames: [a, b]\n"), "data.yaml"),
    "data.yaml without names": (data_yaml("train: images/train\nval: images/val\n"), "names"),
}


@pytest.fixture
def bucket(tmp_path):
    """An empty bucket in a folder."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


def push(folder, bucket, *words):
    """Push a dataset as a person does."""
    assert main(["data", "push", str(folder), "--dataset", "wild", "--bucket", str(bucket), *words]) == 0


@pytest.mark.parametrize("case", BROKEN)
def test_broken_data_stop_the_job_before_training(tmp_path, bucket, capsys, case):
    """Each kind of broken data is refused by a push, and by training after a forced one: exit 65, what is broken."""
    break_it, part = BROKEN[case]
    folder = make_tiny_dataset(tmp_path / "wild")
    break_it(folder)
    assert main(["data", "push", str(folder), "--dataset", "wild", "--bucket", str(bucket)]) == 65
    said = capsys.readouterr().err
    assert "1 problem" in said
    assert part in said
    assert "--force" in said
    assert not (bucket / "datasets").exists()
    push(folder, bucket, "--force")
    assert part in capsys.readouterr().err
    assert main(["train", "--recipe", "base", "--model", "yolo11n.yaml", "--bucket", str(bucket)]) == 65
    said = capsys.readouterr().err
    assert "dataset wild: 1 problem" in said
    assert part in said
    assert not (bucket / "runs").exists()


def test_a_dataset_without_data_yaml_is_refused(tmp_path, bucket, capsys):
    """A folder that was copied into the bucket without its data.yaml ends with exit 65."""
    folder = make_tiny_dataset(tmp_path / "wild")
    (folder / "data.yaml").unlink()
    shutil.copytree(folder, bucket / "datasets" / "wild")
    assert main(["train", "--recipe", "base", "--model", "yolo11n.yaml", "--bucket", str(bucket)]) == 65
    assert "data.yaml" in capsys.readouterr().err


def test_all_problems_are_reported_at_once(tmp_path, bucket, capsys):
    """Three broken files are three lines of one message."""
    folder = make_tiny_dataset(tmp_path / "wild")
    truncate_image(folder)
    labels = sorted((folder / "labels" / "train").iterdir())
    labels[1].write_text("7 0.5 0.5 0.1 0.1\n")
    labels[2].write_text("0 1.5 0.5 0.1 0.1\n")
    push(folder, bucket, "--force")
    capsys.readouterr()
    assert main(["data", "check", "wild", "--bucket", str(bucket)]) == 65
    said = capsys.readouterr().err
    assert "3 problems" in said
    assert all(path.name in said for path in labels[1:3])


def test_an_image_without_a_label_is_background(tmp_path, bucket, capsys):
    """An image without a label is allowed and counted."""
    folder = make_tiny_dataset(tmp_path / "wild", num_train=8)
    first(folder, "labels").unlink()
    push(folder, bucket)
    assert "train: 1 of 8 images without a label file, counted as background" in capsys.readouterr().err
    assert main(["data", "check", "wild", "--bucket", str(bucket)]) == 0
    assert "8 images, 1 of them background" in capsys.readouterr().out


def test_a_push_that_was_cut_is_noticed(tmp_path, bucket, capsys):
    """Files that differ from the lock are named."""
    folder = make_tiny_dataset(tmp_path / "wild")
    push(folder, bucket)
    lost = first(bucket / "datasets" / "wild", "images")
    lost.unlink()
    capsys.readouterr()
    assert main(["data", "check", "wild", "--bucket", str(bucket)]) == 65
    said = capsys.readouterr().err
    assert "differs from its versions/0001.lock.json" in said
    assert f"images/train/{lost.name}: missing" in said


def test_a_second_pull_fetches_nothing(tmp_path, bucket, capsys):
    """Unchanged files are not fetched again; changed ones are."""
    folder = make_tiny_dataset(tmp_path / "wild", num_train=8, num_val=4)
    push(folder, bucket)
    for fetched in (25, 0):
        capsys.readouterr()
        assert main(["data", "pull", "wild", "--bucket", str(bucket)]) == 0
        assert f"{fetched} of them fetched now" in capsys.readouterr().out
    first(folder, "labels").write_text("0 0.5 0.5 0.2 0.2\n")
    push(folder, bucket)
    assert "1 of them sent now" in capsys.readouterr().out
    assert main(["data", "pull", "wild", "--bucket", str(bucket)]) == 0
    assert "1 of them fetched now" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--workdir", "file/below"), ("--workdir", "/proc/nowhere")])
def test_a_workdir_that_cannot_be_written_ends_the_job(tmp_path, bucket, capsys, words):
    """A working folder that cannot be made or written ends with exit 78 and its name."""
    (tmp_path / "file").write_text("in the way")
    push(make_tiny_dataset(tmp_path / "wild"), bucket)
    capsys.readouterr()
    assert main(["train", "--recipe", "base", "--model", "yolo11n.yaml", "--bucket", str(bucket), *words]) == 78
    said = capsys.readouterr().err
    assert words[1].split("/")[-1] in said or "file" in said
    assert "--workdir" in said
