"""Labelled images of a split, as training reads them."""

import pytest

from job.datasets.labelled import read_split
from job.datasets.labels import LabelledBox, read_boxes
from job.errors import DataError
from tests.support.tiny_dataset import make_tiny_dataset

BOX = "1 0.5 0.5 0.25 0.5"


def test_a_row_is_a_box_in_shares_with_its_line():
    """Empty lines count, and corners follow from the center."""
    assert read_boxes(f"\n{BOX}\n".encode()) == [LabelledBox(2, 1, 0.375, 0.25, 0.625, 0.75)]
    assert read_boxes(b"") == []


def test_a_polygon_is_its_bounding_box():
    """The box of a polygon goes from its least to its greatest coordinates."""
    assert read_boxes(b"0 0.25 0.5 0.75 0.125 0.5 1") == [LabelledBox(1, 0, 0.25, 0.125, 0.75, 1.0)]


def test_rows_count_as_in_training():
    """A row that is repeated counts once, one without area not at all, and key points are cut off."""
    assert read_boxes(f"{BOX}\n{BOX}\n0 0.5 0.5 0 0.5\n".encode()) == read_boxes(BOX.encode())
    assert read_boxes(f"{BOX} 0.1 0.2 2".encode(), 3) == read_boxes(BOX.encode())
    assert [box.category for box in read_boxes(BOX.encode(), single_class=True)] == [0]


def test_images_of_a_split_come_with_pixels_and_boxes(tmp_path):
    """Each image of the split is there once, and one without a label has no boxes."""
    folder = make_tiny_dataset(tmp_path / "tiny", num_train=3, num_val=2)
    (folder / "labels/val/001.txt").unlink()
    images = read_split(folder, "val", single_class=False)
    assert [image.name for image in images] == ["images/val/000.jpg", "images/val/001.jpg"]
    assert images[0].pixels(3).shape == (64, 64, 3)
    assert len(images[0].boxes()) == len((folder / "labels/val/000.txt").read_text().split("\n")) - 1
    assert images[0].boxes([]) == []
    assert images[1].boxes() == []


def test_a_split_that_is_not_there_is_named(tmp_path):
    """The message has the splits that there are."""
    folder = make_tiny_dataset(tmp_path / "tiny", num_train=1, num_val=1)
    with pytest.raises(DataError, match="has no split test; there are train, val"):
        read_split(folder, "test", single_class=False)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    """The message has its name and the reason."""
    folder = make_tiny_dataset(tmp_path / "tiny", num_train=1, num_val=1)
    (folder / "images/val/000.jpg").write_bytes(b"no picture")
    (image,) = read_split(folder, "val", single_class=False)
    with pytest.raises(DataError, match=r"images/val/000\.jpg: is none of"):
        image.pixels(3)
