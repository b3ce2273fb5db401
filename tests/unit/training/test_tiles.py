"""Tiles cover a picture, and an object counts where enough of it is visible."""

import numpy as np
import pytest

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
