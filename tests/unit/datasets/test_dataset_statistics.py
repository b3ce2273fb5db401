"""What bounds the recall of a training: sizes of objects, crowded pictures, rare classes."""

import json

import numpy as np
import pytest
from PIL import Image

from job.cli.app import main
from job.datasets import scan
from job.datasets.check import check_dataset
from job.datasets.dataset_statistics import statistics_of
from job.datasets.labels import Findings
from job.datasets.scan import SCAN_CACHE
from job.runs.records import PinnedDataset
from job.storage.cache_file import CacheFile
from tests.support.tiny_dataset import make_tiny_dataset


@pytest.fixture
def data(tmp_path):
    """Two pictures of 400 x 100 px in train, with two objects and one, and one of 100 x 200 px in val."""
    folder = make_tiny_dataset(tmp_path / "wild", num_train=2, num_val=1)
    rng = np.random.default_rng(0)
    for name, (width, height) in {"train/000": (400, 100), "train/001": (400, 100), "val/000": (100, 200)}.items():
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{name}.jpg")
        (folder / f"labels/{name}.txt").write_text("")
    (folder / "labels/train/000.txt").write_text("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n1 0.2 0.5 0.1 0.4\n")
    (folder / "labels/train/001.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (folder / "labels/val/000.txt").write_text("1 0.5 0.5 0.2 0.1\n")
    return folder


@pytest.mark.parametrize(
    ("imgsz", "tiles", "median_px", "num_small"),
    [
        (400, 0, 40.0, 0),  # 20, 40 and 80 px, and 40 px of val, where 200 px become 400
        (200, 0, 20.0, 1),
        (100, 0, 10.0, 3),
        (200, 100, 60.0, 0),  # of each file 100 px become 200
        (400, 400, 40.0, 0),  # a tile that is no smaller than a picture is the picture
    ],
)
def test_sizes_are_those_computed_by_hand(data, imgsz, tiles, median_px, num_small):
    """An object's size is the root of its box's area in the file, scaled as training scales its picture or tile; a row
    that is there twice counts once, and an outline as its box.
    """
    # In the files: sqrt(40 * 10) = 20, sqrt(40 * 40) = 40, sqrt(160 * 40) = 80 and sqrt(20 * 20) = 20 px.
    found = check_dataset(data, imgsz=imgsz, tiles=tiles).statistics
    assert (found.num_objects, found.median_in_files_px, found.num_small_in_files, found.side_px) == (4, 30.0, 0, 400)
    assert (found.median_px, found.num_small) == (median_px, num_small)
    assert (found.max_objects, found.most_objects_in) == (2, "images/train/000.jpg")


def test_the_check_shows_what_bounds_recall_in_80_columns(data, capsys):
    """Few lines have the splits, the sizes at the asked image size and in the files, and the most crowded picture;
    `--json` has the same.
    """
    assert main(["data", "check", f"{data}", "--imgsz", "100"]) == 0
    _first, *lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "  train 2 images, 0 of them background, 3 objects",
        "  val   1 image, 0 of them background, 1 object",
        "  sizes 75% of objects are under 16 px at 100 px, 0% in the files (400 px)",
        "  most  2 objects in one picture, images/train/000.jpg",
        "  note: labels/train/000.txt: has rows more than once, which count once",
    ]
    assert main(["data", "check", f"{data}", "--imgsz", "100", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["dataset"], printed["splits"]["train"]["num_background"]) == (str(data), 0)
    assert (printed["statistics"]["num_small"], printed["statistics"]["side_px"]) == (3, 400)


def test_a_push_shows_what_bounds_recall(data, tmp_path, capsys):
    """A push shows the lines of the check below its own, and has the same in `--json`."""
    (tmp_path / "bucket").mkdir()
    words = ["data", "push", f"{data}", "--dataset", "wild", "--bucket", f"{tmp_path / 'bucket'}"]
    assert main(words) == 0
    assert "  sizes 0% of objects are under 16 px at 2048 px, 0% in the files (400 px)" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["version"], printed["num_sent"], printed["statistics"]["num_objects"]) == (1, 0, 4)


def test_training_objects_are_counted_by_class_and_size(data):
    """Of train alone, at the size that training sees: of class 0 one of 20 and one of 80 px, of class 1 one of 40."""
    first, second, *_ = (counted := check_dataset(data, imgsz=400).statistics.train)
    assert counted[first] == [0, 0, 1, 0, 1, 0]
    assert counted[second] == [0, 0, 0, 1, 0, 0]
    together = check_dataset(data, imgsz=400, single_class=True).statistics.train
    assert together == {"object": [0, 0, 1, 1, 1, 0]}


@pytest.mark.parametrize(
    ("train", "val", "rare"),
    [
        ({"cow": 100, "deer": 100}, {"cow": 10, "deer": 10}, {}),
        ({"cow": 100, "deer": 99}, {"cow": 10, "deer": 10}, {"deer": {"train": 99, "val": 10}}),
        ({"cow": 100, "deer": 100}, {"cow": 10, "deer": 9}, {"deer": {"train": 100, "val": 9}}),
        ({"cow": 100, "deer": 0}, {"cow": 10, "deer": 0}, {}),
        ({"cow": 4, "deer": 3}, {"cow": 1, "deer": 1}, {}),
    ],
    ids=["enough", "few in train", "few in val", "a name that nothing has", "a tiny dataset"],
)
def test_classes_with_few_objects_are_named(train, val, rare):
    """A class with fewer than 100 objects in train or 10 in val is rare, where others are not."""
    found = {"images/a.jpg": Findings(shape=(10, 10)), "labels/a.txt": Findings(sizes=(0.5,))}
    instances = {"train": tuple(train.values()), "val": tuple(val.values())}
    statistics = statistics_of(["images/a.jpg"], (), found, ("cow", "deer"), instances, num_alike=0, imgsz=10, tiles=0)
    assert statistics.rare == rare
    assert statistics.describe().get("few") == (
        "deer {train} in train and {val} in val".format(**rare["deer"]) if rare else None
    )


def test_the_record_of_a_run_has_the_statistics(data):
    """What the check found is what a run's record reads; without a labelled object there is nothing to record."""
    found = check_dataset(data).statistics
    pinned = PinnedDataset.model_validate(
        {"name": "wild", "digest": "", "set_aside": [], "statistics": found.to_json()}
    )
    assert (pinned.statistics.side_px, pinned.statistics.median_in_files_px) == (400, 30.0)
    for label in data.rglob("labels/*/*.txt"):
        label.write_text("")
    assert check_dataset(data).statistics is None


def test_a_cache_of_an_older_version_costs_time_only(data):
    """Findings that were cached without sizes are found anew, and cached with them."""
    image = "images/train/000.jpg"
    whole = check_dataset(data, cache_file=data / SCAN_CACHE)
    rows = CacheFile(data / SCAN_CACHE, scan.SCHEMA).read()
    version, digest, _ = json.loads(rows[image])
    (data / SCAN_CACHE).unlink()
    CacheFile(data / SCAN_CACHE, "4" + scan.SCHEMA[1:]).write({image: json.dumps([version, digest, {}])})
    for _ in range(2):
        assert check_dataset(data, cache_file=data / SCAN_CACHE) == whole
