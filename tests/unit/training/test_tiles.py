"""Tiles cover a picture, and an object counts where enough of it is visible."""

import numpy as np
import pytest
from sahi.slicing import get_slice_bboxes, process_coco_annotations
from sahi.utils.coco import CocoAnnotation

from job.training.tiles import Tile, tiles_of, visible_boxes


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5, 0.99])
def test_tiles_cover_every_pixel_at_full_size(overlap):
    """Of a picture of any shape each pixel is in a tile, and a tile is smaller than asked only where the picture is."""
    random = np.random.default_rng(0)
    for height, width in random.integers(1, 90, (100, 2)):
        covered = np.zeros((height, width), bool)
        for tile in tiles_of(height, width, 32, overlap):
            assert (tile.right - tile.left, tile.bottom - tile.top) == (min(32, width), min(32, height))
            covered[tile.top : tile.bottom, tile.left : tile.right] = True
        assert covered.all()


def test_tiles_overlap_by_the_share_and_more_only_at_the_far_ends():
    """Tiles of 100 pixels with an overlap of 20 % begin every 80 pixels; the last ends with the picture."""
    assert [tile.left for tile in tiles_of(100, 300, 100, 0.2)] == [0, 80, 160, 200]
    assert [tile.top for tile in tiles_of(260, 50, 100, 0.2)] == [0, 80, 160]
    assert tiles_of(60, 100, 100, 0.2) == [Tile(0, 0, 100, 60)]


def test_an_object_counts_where_half_of_it_is_visible():
    """A box is clipped to the tile, in the tile's pixels; one with less than the asked share inside is left out."""
    tile = Tile(100, 50, 200, 150)
    boxes = np.array([[110, 60, 120, 80], [90, 60, 110, 80], [89, 60, 109, 80], [195, 145, 205, 155], [0, 0, 20, 20]])
    kept, clipped = visible_boxes(boxes, tile, 0.5)
    assert kept.tolist() == [0, 1]
    assert clipped.tolist() == [[10, 10, 20, 30], [0, 10, 10, 30]]
    kept, _ = visible_boxes(boxes, tile, 0.25)
    assert kept.tolist() == [0, 1, 2, 3]
    kept, _ = visible_boxes(boxes, tile, 0.0)
    assert kept.tolist() == [0, 1, 2, 3]


def test_tiles_are_those_of_sahi():
    """Of a thousand pictures the tiles are SAHI's slices, in its order."""
    random = np.random.default_rng(0)
    for _ in range(1000):
        height, width, size = [*random.integers(1, 3000, 2).tolist(), int(random.integers(32, 1400))]
        overlap = random.uniform(0, 0.9)
        slices = get_slice_bboxes(height, width, size, size, False, overlap, overlap)  # noqa: FBT003 -- as SAHI has it
        assert tiles_of(height, width, size, overlap) == [tuple(corners) for corners in slices]


def test_visible_boxes_are_those_of_sahi():
    """Of a thousand tiles with boxes the visible ones and what is left of them are SAHI's.

    It counts the area of a box in whole pixels, rounded down, so the boxes of this test end at whole pixels. With a
    share of 0 it also keeps a box of which nothing is left after that, so the share is larger here.
    """
    random = np.random.default_rng(0)
    num_kept = num_clipped = 0
    for _ in range(1000):
        corners, sizes = random.integers(0, 200, (12, 2)), random.integers(1, 60, (12, 2))
        boxes = np.hstack([corners, corners + sizes])
        left, top = random.integers(0, 150, 2).tolist()
        tile, visible = Tile(left, top, left + 64, top + 64), random.uniform(0.01, 1)
        kept, clipped = visible_boxes(boxes, tile, visible)
        annotations = [
            CocoAnnotation(bbox=[*corner.tolist(), *size.tolist()], category_id=number, category_name="")
            for number, (corner, size) in enumerate(zip(corners, sizes, strict=True))
        ]
        theirs = process_coco_annotations(annotations, list(tile), visible)
        assert kept.tolist() == [annotation.category_id for annotation in theirs]
        found = np.hstack([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]])
        assert found.tolist() == [annotation.bbox for annotation in theirs]
        num_kept, num_clipped = (
            num_kept + len(kept),
            num_clipped + int((found != np.hstack([corners - [left, top], sizes])[kept]).any(1).sum()),
        )
    assert num_kept > num_clipped > 500
