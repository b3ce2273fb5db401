"""The tables of a prediction."""

import csv
import json

import pytest
from pydantic import ValidationError

from job.prediction.output import write_tables
from job.prediction.records import PictureResult, ShardRecord, shard_key
from job.training.evaluation_record import Detection
from tests.support.megadetector_format import Results
from tests.support.prediction_request import prediction_request

NAMES = ["zebra", "gnu, blue"]

REQUEST = prediction_request(max_det=2)

SHARDS = [
    ShardRecord(
        shard=1,
        pictures=[
            PictureResult(
                picture="a, b.jpg",
                width=200,
                height=100,
                detections=(Detection(1, 0.9, 20.0, 10.0, 60.0, 30.0), Detection(0, 0.5, 0.0, 0.0, 200.0, 100.0)),
            ),
            PictureResult(picture="broken.jpg", failure="is empty"),
        ],
    ),
    ShardRecord(shard=2, pictures=[PictureResult(picture="c.jpg", width=10, height=10)]),
]


def rows_of(path):
    """Return the rows of a table."""
    with path.open(newline="") as opened:
        return list(csv.reader(opened))


def test_counts_have_a_row_for_each_picture_and_a_column_for_each_class(tmp_path):
    """A picture without objects has zeros, and one that cannot be read has empty cells."""
    write_tables(tmp_path, REQUEST, NAMES, SHARDS)
    assert rows_of(tmp_path / "counts.csv") == [
        ["picture", "zebra", "gnu, blue"],
        ["a, b.jpg", "1", "1"],
        ["broken.jpg", "", ""],
        ["c.jpg", "0", "0"],
    ]


def test_detections_have_boxes_in_pixels(tmp_path):
    """Each detection is a row with class, confidence and the four sides."""
    write_tables(tmp_path, REQUEST, NAMES, SHARDS)
    assert rows_of(tmp_path / "detections.csv") == [
        ["picture", "class", "confidence", "left", "top", "right", "bottom"],
        ["a, b.jpg", "gnu, blue", "0.9", "20.0", "10.0", "60.0", "30.0"],
        ["a, b.jpg", "zebra", "0.5", "0.0", "0.0", "200.0", "100.0"],
    ]


def test_json_is_of_megadetectors_format(tmp_path):
    """Categories are numbered from 1, boxes are shares, and a failure has no list of detections."""
    write_tables(tmp_path, REQUEST, NAMES, SHARDS)
    content = json.loads((tmp_path / "detections.json").read_text())
    Results.model_validate(content)
    assert content["info"]["detector_metadata"]["typical_detection_threshold"] == 0.3
    assert content["detection_categories"] == {"1": "zebra", "2": "gnu, blue"}
    assert content["images"] == [
        {
            "file": "a, b.jpg",
            "detections": [
                {"category": "2", "conf": 0.9, "bbox": [0.1, 0.1, 0.2, 0.2]},
                {"category": "1", "conf": 0.5, "bbox": [0.0, 0.0, 1.0, 1.0]},
            ],
            "failure": None,
        },
        {"file": "broken.jpg", "detections": None, "failure": "is empty"},
        {"file": "c.jpg", "detections": [], "failure": None},
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("info", "format_version"), 1.4),
        (("info", "detector"), "runs/zebra.pt"),
        (("detection_categories",), {"1": " ", "2": "gnu"}),
        (("images", 0, "detections", 0, "category"), "7"),
        (("images", 0, "detections", 0, "conf"), 1.2),
        (("images", 0, "detections", 0, "bbox"), [0.9, 0.1, 0.2, 0.2]),
        (("images", 1, "detections"), []),
        (("images", 2, "detections"), None),
    ],
)
def test_the_check_of_the_format_finds_mistakes(tmp_path, path, value):
    """What the format does not allow is refused by the check that the JSON passes."""
    write_tables(tmp_path, REQUEST, NAMES, SHARDS)
    content = place = json.loads((tmp_path / "detections.json").read_text())
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValidationError):
        Results.model_validate(content)


def test_blank_classes_have_a_name_in_json(tmp_path):
    """The format has no class without a name."""
    write_tables(tmp_path, REQUEST, ["", " "], SHARDS)
    content = json.loads((tmp_path / "detections.json").read_text())
    assert Results.model_validate(content).detection_categories == {"1": "class 1", "2": "class 2"}


def test_the_end_counts_objects_pictures_and_failures(tmp_path):
    """Totals are of all shards; a picture with as many detections as are allowed is counted."""
    found = write_tables(tmp_path, REQUEST, NAMES, SHARDS)
    assert (found.totals, found.num_with_objects) == ({"zebra": 1, "gnu, blue": 1}, {"zebra": 1, "gnu, blue": 1})
    assert (found.num_unreadable, found.unreadable, found.num_full) == (1, {"broken.jpg": "is empty"}, 1)


def test_a_shard_is_the_same_after_it_was_stored():
    """What is read from a shard's bytes gives the same bytes again."""
    for shard in SHARDS:
        assert ShardRecord.read("key", shard.to_json()) == shard
    assert [shard_key(number) for number in (1, 12)] == ["shards/00001.json", "shards/00012.json"]
    assert REQUEST.num_shards == 2
