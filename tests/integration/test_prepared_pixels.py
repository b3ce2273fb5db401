"""Prepared pixels change no bit of a training, in real loader processes and in real runs."""

import hashlib
import multiprocessing
import re
from dataclasses import replace
from unittest.mock import patch

import pytest

from job.training import prepared_pixels
from tests.support.bucket import make_bucket, tensors_of
from tests.support.cli_process import TIMEOUT_S, start_job
from tests.support.prepared_pixels import fill, pixel_folder
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import ARGUMENTS, plan_tiny_training

NUM_IMAGES = 18

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--close-mosaic", "1", "--plots", "false", "--run", "zebra", "--workers", "2"),
)


@pytest.fixture(autouse=True)
def whole_disk(monkeypatch):
    """Nothing of the disk has to stay free."""
    monkeypatch.setattr(prepared_pixels, "RESERVED_BYTES", 0)


@pytest.fixture(scope="module")
def make_trainer(confined, tmp_path_factory):
    """A function that sets up a trainer on images that are larger than the training's, with a folder of pixels."""
    folder = tmp_path_factory.mktemp("prepared")
    data = make_tiny_dataset(folder / "data", num_train=NUM_IMAGES, num_val=4, px=96)
    yaml = data / "data.yaml"
    yaml.write_text(f"path: {data}\n{yaml.read_text()}")
    from job.training.trainer import Trainer  # noqa: PLC0415 -- once Ultralytics is confined

    def make(pixels=None, workers=0, **train):
        plan = plan_tiny_training(folder / "run", yaml, ARGUMENTS | train, workers, architecture="tiny.yaml")
        return Trainer(replace(plan, pixels=pixels and pixel_folder(pixels, data)))

    return make


@pytest.fixture
def stream(make_trainer):
    """A function that returns a digest of each batch of a training, and how many images its processes decode."""
    from job.training.dataset import KeyedDataset  # noqa: PLC0415 -- Ultralytics is confined first

    decode = KeyedDataset._decode

    def digests(*args, **train):
        trainer, count, found = make_trainer(*args, **train), multiprocessing.Value("i"), []

        def counted(*args):
            with count.get_lock():
                count.value += 1
            return decode(*args)

        with patch.object(KeyedDataset, "_decode", counted):  # the loader's processes are forked within
            for epoch in range(ARGUMENTS["epochs"]):
                trainer.epoch = epoch
                for index, batch in enumerate(trainer.epoch_of_batches(epoch, 0)):
                    ready, digest = trainer.preprocess_keyed(batch, index), hashlib.sha256()
                    for name in ("img", "cls", "bboxes", "batch_idx"):
                        digest.update(ready[name].numpy().tobytes())
                    found.append(digest.hexdigest())
        trainer.shut_loaders()
        return found, count.value

    return digests


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_prepared_pixels(make_trainer, stream, tmp_path, workers):
    """Batches are equal to the last bit while pixels are being prepared, when all are and none is decoded, and when
    half of them are gone again.
    """
    pixels = tmp_path / "pixels"
    bare, num_decoded = stream(None, workers)
    assert len(set(bare)) == len(bare) == 15
    assert stream(pixels, workers)[0] == bare
    fill(make_trainer(pixels).train_loader.dataset)
    files = [path for path in pixels.rglob("*-96x96") if path.is_file()]
    assert len(files) == NUM_IMAGES
    assert stream(pixels, workers) == (bare, 0)
    for file in files[::2]:
        file.unlink()
    half, num_of_half = stream(pixels, workers)
    assert half == bare
    assert 0 < num_of_half < num_decoded


def test_pictures_that_are_cut_into_tiles_are_not_prepared(stream, tmp_path):
    """A training on tiles writes no pixels, and has the batches that it has without a folder for them."""
    pixels = tmp_path / "pixels"
    assert stream(pixels, 2, tiles=40) == stream(None, 2, tiles=40)
    assert not pixels.exists()


def test_a_run_on_prepared_pixels_ends_like_one_that_decodes_all(data, undisturbed, tmp_path):
    """A run that prepares pixels, and another one that reads them, end with the tensors of a run on another disk, and
    say how many pictures are prepared.
    """
    said = []
    for name in ("first", "second"):
        bucket = make_bucket(data, tmp_path / name)
        process = start_job(*TRAIN, "--bucket", bucket, program="tests.support.prepared_pixels_cli")
        _, log = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, log
        said.append(re.search(r"prepared pixels: (\d+) of 22 pictures in \S+/work/pixels", log))
        assert tensors_of(bucket) == tensors_of(undisturbed)
    first, second = (int(found[1]) for found in said)
    assert first == 0
    assert second > 0
