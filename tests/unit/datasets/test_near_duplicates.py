"""Pictures of different splits that look the same."""

import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from job.cli.app import main
from job.datasets.check import check_dataset
from job.datasets.labels import Findings
from job.datasets.near_duplicates import MAX_DIFFERENT, NUM_BITS, find_near_duplicates
from tests.support.tiny_dataset import make_tiny_dataset

SIZE = 320


def landscape(seed):
    """Draw patches of light and shadow, as from above."""
    pixels = np.random.default_rng(seed).integers(40, 200, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def smaller(picture):
    """Return a picture at nine tenths of its size."""
    return picture.resize((9 * SIZE // 10, 9 * SIZE // 10), Image.Resampling.LANCZOS)


@pytest.fixture
def data(tmp_path):
    """A dataset of different landscapes, two in train and two in val."""
    folder = make_tiny_dataset(tmp_path / "wild", num_train=2, num_val=2)
    for seed, name in enumerate(("train/000", "train/001", "val/000", "val/001")):
        landscape(seed).save(folder / f"images/{name}.jpg")
    return folder


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    "change",
    [lambda picture: picture, smaller, lambda picture: ImageEnhance.Brightness(picture).enhance(1.1)],
    ids=["encoded anew", "smaller", "brighter"],
)
def test_a_picture_that_comes_again_in_another_split_is_found(data, suffix, change):
    """A picture that is encoded anew, scaled or brightened is found across splits, and a different one is not."""
    assert check_dataset(data).near_duplicates == ()
    (data / "images/val/000.jpg").unlink()
    change(landscape(1)).save(data / f"images/val/000.{suffix}", quality=60)
    (found,) = check_dataset(data).near_duplicates
    pair = f"images/val/000.{suffix}", "images/train/001.jpg"
    assert (found.split, found.other, found.pairs) == ("val", "train", (pair,))


def test_pictures_of_one_split_may_look_the_same(data):
    """Pictures are compared across splits alone, with a split test as well."""
    smaller(landscape(0)).save(data / "images/train/001.jpg")
    assert check_dataset(data).near_duplicates == ()
    (data / "images/test").mkdir()
    smaller(landscape(2)).save(data / "images/test/000.jpg")
    with (data / "data.yaml").open("a") as opened:
        opened.write("test: images/test\n")
    assert [str(found) for found in check_dataset(data).near_duplicates] == [
        "test has 1 image like one of val: images/test/000.jpg like images/val/000.jpg"
    ]


def test_the_check_names_what_looks_the_same_in_80_columns(data, capsys):
    """The check says how many pictures come again, with an example; `--json` has all, and a run's record the number."""
    smaller(landscape(0)).save(data / "images/val/001.jpg")
    assert main(["data", "check", f"{data}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "  alike val has 1 image like one of train: images/val/001.jpg like",
        "        images/train/000.jpg",
    ]
    assert main(["data", "check", f"{data}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["near_duplicates"][0]["pairs"] == [["images/val/001.jpg", "images/train/000.jpg"]]
    assert printed["statistics"]["num_alike"] == 1


def test_a_tenth_of_the_bits_may_differ():
    """Of many pictures those within the threshold are found, in every block of them, and none beyond it."""
    rng = np.random.default_rng(0)
    bits = {f"train/{number}": rng.integers(0, 2, NUM_BITS) for number in range(700)}
    for number, num_different in ((0, 0), (300, MAX_DIFFERENT), (600, MAX_DIFFERENT + 1)):
        flipped = rng.permutation(NUM_BITS)[:num_different]
        bits[f"val/{number}"] = bits[f"train/{number}"].copy()
        bits[f"val/{number}"][flipped] ^= 1
    found = {name: Findings(hash=np.packbits(each).tobytes().hex()) for name, each in bits.items()}
    for first, second in (("train", "val"), ("val", "train")):
        splits = {split: [name for name in bits if name.startswith(split)] for split in (first, second)}
        (near,) = find_near_duplicates(splits, found)
        assert near.pairs == tuple((f"{second}/{number}", f"{first}/{number}") for number in (0, 300))
