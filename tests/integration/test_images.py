"""The images of a training, its limit of detections, and a loss that is not a number."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from job.errors import RecipeError, TrainingError
from job.recipes.recipe import load_recipe
from job.runs.records import Exactness
from job.runs.resume import exactness
from job.runs.run import Run
from job.session import attempt
from job.storage.local import FolderStore
from job.training.callbacks import TrainingCallbacks
from tests.support.bucket_records import recorded
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

SMALL = {"epochs": 2, "imgsz": 64, "batch": 4, "nbs": 4, "plots": False}


@pytest.fixture
def data(tmp_path):
    """A tiny dataset."""
    return make_tiny_dataset(tmp_path / "tiny", num_train=8, num_val=4)


@pytest.fixture
def training_of(confined, tmp_path, data):
    """A function that sets up a training on the tiny dataset."""
    from job.training.loop import Training  # noqa: PLC0415 -- reads what the line above has set

    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {data}\ntrain: images/train\nval: images/val\nnames: [animal, bird]\n")

    def make(**changes):
        train = load_recipe("base").train | SMALL | {"max_det": None} | changes.pop("train", {})
        return Training(replace(plan_tiny_training(tmp_path, yaml, train), **changes))

    return make


def crowd(data, split, num_objects):
    """Give the first image of a split so many objects."""
    label = data / "labels" / split / "000.txt"
    boxes = np.random.default_rng(0).uniform(0.2, 0.8, (num_objects, 2))
    label.write_text("".join(f"0 {x:.6f} {y:.6f} 0.1 0.1\n" for x, y in boxes))


def test_arrays_beside_images_are_never_read(training_of, data):
    """Beside .npy files, newer than the images or not, both splits are read from the images."""
    datasets = training_of().trainer.datasets
    expected = {name: [datasets[name].load_image(i)[0] for i in range(2)] for name in datasets}
    for image in (data / "images").rglob("*.jpg"):
        np.save(image.with_suffix(".npy"), np.zeros((64, 64, 3), np.uint8))
    again = training_of().trainer.datasets
    for name, images in expected.items():
        for i, pixels in enumerate(images):
            assert np.array_equal(again[name].load_image(i)[0], pixels)
    assert len(list((data / "images").rglob("*.npy"))) == 12  # nothing of the user's was deleted either


def test_the_digest_of_pictures_follows_from_their_bytes(training_of, data):
    """An image that is gone, one of another size, and a label that changed by a digit each change the digest of their
    split, and of no other.
    """
    first = training_of().environment["pictures"]
    assert training_of().environment["pictures"] == first
    label = data / "labels" / "val" / "001.txt"
    label.write_text(label.read_text().replace(label.read_text().split()[1], "0.412345"))
    changed = training_of().environment["pictures"]
    assert (changed["train"] == first["train"], changed["val"] == first["val"]) == (True, False)
    image = data / "images" / "train" / "003.jpg"
    image.write_bytes(image.read_bytes()[:-2] + b"\x00" * 10 + b"\xff\xd9")
    longer = training_of().environment["pictures"]
    assert (longer["train"] == changed["train"], longer["val"] == changed["val"]) == (False, True)
    (data / "images" / "train" / "007.jpg").unlink()
    assert training_of().environment["pictures"]["train"] != longer["train"]


@pytest.mark.parametrize("name", ["000.jpg", "./000.jpg", "../train/000.jpg"])
def test_the_digest_of_pictures_names_them_from_their_folder(confined, data, monkeypatch, name):
    """A path from the working directory has the digest of the absolute one."""
    from job.training.dataset import digest_pictures  # noqa: PLC0415 -- imports Ultralytics, confined by now

    monkeypatch.chdir(folder := data / "images" / "train")
    boxes = {"cls": np.zeros((0, 1)), "bboxes": np.zeros((0, 4))}
    absolute, relative = ([{"im_file": path, **boxes}] for path in (str(folder / "000.jpg"), name))
    assert digest_pictures(relative, folder) == digest_pictures(absolute, folder)


@pytest.mark.parametrize("split", ["train", "val"])
def test_classes_that_a_split_has_none_of_are_refused(training_of, data, split):
    """Chosen classes without an object in a split end before training, but not in a run that began with them."""
    for path in (data / "labels" / split).iterdir():
        path.write_text("0 0.5 0.5 0.2 0.2\n")
    other = "train" if split == "val" else "val"
    for path in (data / "labels" / other).iterdir():
        path.write_text("1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(RecipeError, match=f"no object of {split} is of them; pass other --classes"):
        training_of(train={"classes": [1]})
    training_of(train={"classes": [1]}, resumed=True)
    training_of(train={"classes": [0, 1]})


def test_a_fraction_without_an_object_is_refused(training_of, data):
    """A share of the training pictures in which nothing is labelled ends before training, whether they have empty label
    files or none.
    """
    labels = [data / "labels" / "train" / f"{number:03}.txt" for number in range(4)]
    for change in (lambda path: path.unlink(), lambda path: path.write_text("")):
        for path in labels:
            change(path)
        with pytest.raises(RecipeError, match=r"fraction 0\.25: no picture of it has an object; pass a larger --fract"):
            training_of(train={"fraction": 0.25})
    assert training_of(train={"fraction": 0.75}).trainer.batches.num_images == 6


def test_tiles_that_show_no_object_are_refused(training_of, data):
    """Tiles that are smaller than every object end before training, with the two ways out."""
    for path in (data / "labels" / "train").iterdir():
        path.write_text("0 0.5 0.5 0.9 0.9\n")
    with pytest.raises(RecipeError, match="tiles 32: none of train shows 50% of an object; pass larger --tiles, or"):
        training_of(train={"tiles": 32})
    training_of(train={"tiles": 32, "tile_visible": 0.2})


def test_a_class_whose_name_looks_like_a_formula_can_be_plotted(confined, tmp_path):
    """Dollar signs in a name are characters, and end no training at its last plots."""
    from ultralytics.utils.metrics import plot_pr_curve  # noqa: PLC0415 -- not before Ultralytics is confined

    px = np.linspace(0, 1, 10)
    plot_pr_curve(px, [1 - px], np.full((1, 10), 0.5), tmp_path / "curve.png", {0: r"$\foo$"})
    assert (tmp_path / "curve.png").stat().st_size > 0


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("num_objects", "max_det"), [(20, 300), (200, 300), (201, 302), (574, 861)])
def test_a_crowded_image_has_room_for_all_its_objects(training_of, data, caplog, split, num_objects, max_det):
    """An image may have 300 detections, or half as many again as the most crowded image of either split has objects,
    which is logged where it is more.
    """
    crowd(data, split, num_objects)
    with caplog.at_level(logging.INFO, logger="job"):
        training = training_of()
    assert training.facts["max_det"] == training.trainer.validator.args.max_det == max_det
    assert [f"max_det {max_det}" in text for text in caplog.messages] == [True] * (max_det > 300)


@pytest.mark.parametrize("asked", [10, 300, 1000])
def test_an_explicit_limit_of_detections_stays(training_of, data, caplog, asked):
    """An explicit limit is used, also where it is Ultralytics' default, with a warning where it is too low."""
    crowd(data, "val", 400)
    training = training_of(train={"max_det": asked})
    assert training.facts["max_det"] == training.trainer.validator.args.max_det == asked
    assert any("has 400 objects" in text for text in caplog.messages) == (asked < 400)


def test_a_loss_that_is_not_a_number_ends_training(training_of, monkeypatch):
    """The epoch in which it happened is neither validated nor counted, and the message says what to do."""
    training = training_of()
    step = training._forward_backward

    def spoilt(batch, index):
        step(batch, index)
        if training.progress.epoch == 1:
            training.trainer.loss = torch.tensor(float("nan"))

    monkeypatch.setattr(training, "_forward_backward", spoilt)
    with pytest.raises(
        TrainingError, match=r"the loss is not a number in epoch 2, found nan; .* lower --lr0"
    ) as raised:
        training.run(TrainingCallbacks())
    assert raised.value.exit_code == 70
    assert (training.progress.epoch, len(training.progress.rows)) == (1, 1)


def test_a_fitness_that_is_not_a_number_ends_training(training_of, monkeypatch):
    """A validation that comes to nothing is no result: the epoch is not counted."""
    training = training_of()
    monkeypatch.setattr(training.trainer, "validate", lambda: ({}, float("nan")))
    with pytest.raises(TrainingError, match="the fitness is not a number in epoch 1"):
        training.run(TrainingCallbacks())
    assert training.progress.rows == []


def test_a_run_that_began_on_pictures_compressed_anew_is_not_exact(training_of, data, tmp_path, caplog):
    """A run of an older version of the job, which let Ultralytics compress JPEGs with bytes behind their end anew and
    recorded no digest of its pictures, logs and records that it continues with other pixels, and is inexact; where all
    JPEGs end as they should, and for a run of this version, there is nothing to say.
    """
    store = FolderStore.create(str(tmp_path / "bucket"))
    new, old = Run(store, "new"), Run(store, "old")
    before = recorded().record.model_copy(update={"environment": {}})

    def start(run, record):
        attempt.record_start(run.claim({"host": "here"}), record, training, None)
        return exactness(record, [run.attempt(number) for number in run.attempt_numbers()])

    training = training_of()
    assert start(old, before) == Exactness(exact=True)
    for image in sorted((data / "images" / "train").iterdir())[:2]:
        image.write_bytes(image.read_bytes() + b"of a camera")
    training = training_of()
    assert start(new, before.model_copy(update={"environment": attempt.environment_of(training)})) == Exactness(
        exact=True
    )
    verdict = start(old, before)
    assert (verdict.exact, verdict.from_attempt) == (False, 2)
    assert verdict.because[0].startswith("pictures: 2 JPEGs have bytes behind their end; the version that began")
    assert verdict.because[0] in caplog.text
