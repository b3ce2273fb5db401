import hashlib
from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image

from job.datasets import synthetic
from job.datasets.synthetic import draw_demo_dataset

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def few_pictures():
    """Draw fewer pictures than people get."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "NUM_IMAGES", {"train": 12, "val": 12})
        yield


@pytest.fixture(scope="module")
def drawn(few_pictures, tmp_path_factory):
    """A dataset that was drawn."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_demo_dataset(folder)
    return folder


def test_a_seed_decides_every_byte(drawn, few_pictures, tmp_path):
    """The same seed draws the same files, and another seed draws others."""
    draw_demo_dataset(tmp_path / "again")
    draw_demo_dataset(tmp_path / "other", seed=1)
    assert digests(tmp_path / "again") == digests(drawn)
    other = digests(tmp_path / "other")
    assert other.keys() == digests(drawn).keys()
    assert [name for name, digest in other.items() if digest == digests(drawn)[name] and name.endswith(".jpg")] == []


def test_the_data_file_stands_for_itself(drawn):
    """The data file names the splits relative to where it lies, and the classes in order."""
    data = yaml.safe_load((drawn / "data.yaml").read_text())
    assert data == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "elephant", 1: "zebra", 2: "antelope", 3: "ostrich"},
    }


@pytest.mark.parametrize("split", SPLITS)
def test_each_picture_has_its_labels(drawn, split):
    """Every picture can be read and has a label file, and no label file is left over."""
    pictures = sorted((drawn / "images" / split).iterdir())
    assert len(pictures) == synthetic.NUM_IMAGES[split]
    assert [path.stem for path in pictures] == sorted(path.stem for path in (drawn / "labels" / split).iterdir())
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (synthetic.SIZE, synthetic.SIZE))


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_lie_inside_their_picture(drawn, split):
    """Every label row is a known class and a box with an area that leaves the picture nowhere."""
    for row in np.concatenate(list(rows_by_picture(drawn, split).values())):
        number, x, y, width, height = row
        assert number in range(4)
        assert 0 < width <= 1
        assert 0 < height <= 1
        rounding = 2e-6
        assert min(x - width / 2, y - height / 2) >= -rounding
        assert max(x + width / 2, y + height / 2) <= 1 + rounding


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_all_classes_and_pictures_without_animals(drawn, split):
    """No class is missing from a split, and some pictures show only what is not an animal."""
    rows = rows_by_picture(drawn, split)
    assert set(Counter(np.concatenate(list(rows.values()))[:, 0])) == {0, 1, 2, 3}
    num_empty = sum(len(boxes) == 0 for boxes in rows.values())
    assert 0 < num_empty < len(rows) / 4


def test_bushes_hide_parts_of_animals_and_boxes_hold_what_is_seen(drawn, monkeypatch, tmp_path):
    """Some animals stand under bushes, and their boxes are smaller than if the bushes had been cut."""
    monkeypatch.setattr(synthetic, "_grow_bushes", lambda _rng, _layer, _animals, ids: ids)
    draw_demo_dataset(tmp_path)
    num_hidden = 0
    for split in SPLITS:
        in_the_open, among_bushes = rows_by_picture(tmp_path, split), rows_by_picture(drawn, split)
        for name, whole in in_the_open.items():
            seen = among_bushes[name]
            assert len(seen) == len(whole)
            area, seen_area = whole[:, 3] * whole[:, 4], seen[:, 3] * seen[:, 4]
            assert np.all(seen_area <= area + 1e-9)
            num_hidden += int(np.sum(seen_area < 0.95 * area))
    assert num_hidden > 5


def digests(folder):
    """Return the digest of every file of a folder by its relative name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_by_picture(folder, split):
    """Return the label rows of a split, ``(n, 5)`` each, by picture."""
    return {
        path.stem: np.array([line.split() for line in path.read_text().splitlines()], float).reshape(-1, 5)
        for path in sorted((folder / "labels" / split).iterdir())
    }
