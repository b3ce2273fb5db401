"""Validation on tiles and whole pictures: an object counts once, wherever tiles end."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from job.recipes.arguments import DEFAULTS
from job.training.tiles import Tile
from tests.support.red_squares import RedSquares
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

ARGUMENTS = DEFAULTS | {"epochs": 1, "batch": 2, "imgsz": 64, "plots": False}


@pytest.fixture(scope="module")
def tiled(confined):
    """The module of tiled detection; it imports torch."""
    from job.training import tiled_detection  # noqa: PLC0415 -- seconds that only some tests need

    return tiled_detection


@pytest.fixture
def make_trainer(confined, tmp_path):
    """A function that sets up a trainer on pictures of 192 pixels with red squares, which are the objects."""
    from job.training.trainer import Trainer  # noqa: PLC0415 -- once Ultralytics is confined

    def make(squares, tiles, architecture="tiny.yaml"):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        data = make_tiny_dataset(folder / "data", num_train=4, num_val=1)
        picture = np.full((192, 192, 3), 255, np.uint8)
        lines = []
        for left, top, size in squares:
            cv2.rectangle(picture, (left, top), (left + size - 1, top + size - 1), (0, 0, 255), -1)
            lines.append(f"0 {(left + size / 2) / 192} {(top + size / 2) / 192} {size / 192} {size / 192}")
        (image,) = (data / "images/val").iterdir()
        cv2.imwrite(str(image.with_suffix(".png")), picture)
        image.unlink()
        (data / "labels/val" / f"{image.stem}.txt").write_text("\n".join(lines) + "\n")
        yaml = data / "data.yaml"
        yaml.write_text(f"path: {data}\n{yaml.read_text()}")
        asked = {"tiles": tiles, "tile_overlap": 0.25, "tile_empty": 0.9, "val_tiles": tiles > 0}
        return Trainer(plan_tiny_training(folder / "run", yaml, ARGUMENTS | asked, architecture=architecture))

    return make


def detections(trainer):
    """Return the boxes that the validator finds in the picture, in its pixels."""
    validator = trainer.get_validator()
    validator.device, validator.data = trainer.device, trainer.data
    validator.args.conf, validator.args.quantize = 0.25, None
    model = RedSquares()
    validator.init_metrics(model)
    (batch,) = [validator.preprocess(batch) for batch in trainer.test_loader]
    (found,) = validator.postprocess(model(batch["img"]))
    scale = 192 / 64
    (pad_x, pad_y) = batch["ratio_pad"][0][1]
    return sorted(
        tuple(round(value) for value in ((box - torch.tensor([pad_x, pad_y] * 2)) * scale).tolist())
        for box in found["bboxes"]
    )


def test_an_object_too_small_for_the_whole_picture_is_found_in_a_tile(make_trainer):
    """At a third of its pixels the picture shows no square of six pixels; its tiles do, with their place in it."""
    squares = [(20, 30, 6), (150, 160, 6), (100, 8, 30)]
    assert len(detections(make_trainer(squares, 0))) == 1
    found = detections(make_trainer(squares, 64))
    assert len(found) == 3
    for left, top, size in squares:
        assert any(np.allclose(box, (left, top, left + size, top + size), atol=3) for box in found)


@pytest.mark.parametrize("size", [6, 12, 40, 90])
@pytest.mark.parametrize("offset", range(0, 9, 2))
def test_an_object_on_the_border_of_four_tiles_counts_once(make_trainer, size, offset):
    """Tiles of 64 pixels overlap by 16: an object that several of them show or cut is one, whatever its size."""
    corner = 48 + offset - size // 2
    trainer = make_trainer([(max(corner, 0), max(corner, 0), size)], 64)
    assert len(detections(trainer)) == 1


def test_two_objects_side_by_side_stay_two(tiled):
    """Boxes of a class that overlap little, or of two classes, are all kept; of equal ones the most confident is."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [8, 0, 18, 10], [0, 0, 10, 10], [0, 0, 10, 11]])
    confidences, classes = torch.tensor([0.9, 0.8, 0.7, 0.95]), torch.tensor([0.0, 0, 1, 0])
    assert tiled.merge(boxes, confidences, classes, torch.zeros(4, dtype=torch.bool)).tolist() == [3, 1, 2]


def test_a_cut_box_counts_only_where_no_other_shows_the_object(tiled):
    """A piece within a box of its class is left out even if it is more confident; one of an object that no other box
    shows, or of another class, is kept.
    """
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 20, 8], [40, 0, 60, 8], [0, 0, 20, 8], [40, 0, 60, 10]])
    confidences, classes = torch.tensor([0.5, 0.9, 0.8, 0.7, 0.6]), torch.tensor([0.0, 0, 0, 1, 0])
    cut = torch.tensor([False, True, True, True, True])
    assert tiled.merge(boxes, confidences, classes, cut).tolist() == [2, 3, 0]


def test_a_box_at_the_end_of_the_picture_is_not_cut(tiled):
    """A border that the tile shares with the picture cuts nothing."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [54, 20, 64, 30], [20, 54, 30, 63], [20, 20, 30, 30]])
    assert tiled.is_cut(boxes, Tile(0, 0, 64, 64), 100, 100).tolist() == [False, True, True, False]
    assert tiled.is_cut(boxes, Tile(0, 0, 64, 64), 64, 64).tolist() == [False] * 4


def test_a_picture_no_larger_than_a_tile_is_validated_as_without_tiles(make_trainer):
    """Metrics are those of stock Ultralytics where a tile is the whole picture."""
    squares = [(20, 30, 40), (100, 8, 60)]
    rows = []
    from job.training.loop import LOSSES  # noqa: PLC0415 -- once Ultralytics is confined

    for tiles in (0, 192):
        trainer = make_trainer(squares, tiles, "yolo11n.yaml")
        trainer.epoch, trainer.loss_items = 0, {name: torch.zeros(1) for name in LOSSES}
        rows.append(trainer.validator(trainer))
    assert rows[0] == rows[1]
