"""Tiles of a picture: where they lie, and which objects are visible in each.

Guarantees that tiles cover every pixel, and are of full size wherever the picture is large enough: those at the right
and at the bottom overlap more instead (as SAHI's do, arXiv 2202.06934). Knows nothing of files, models or order.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, slots=True)
class Tiling:
    """How pictures are cut into tiles for training."""

    size: int
    """Width and height of a tile, in pixels of the file."""

    overlap: float
    """Share of a tile that the next one shows again, from 0 up to but not including 1."""

    visible: float
    """Share of an object's box that lies in a tile, at least, for the object to count there."""


class Tile(NamedTuple):
    """A window of a picture, in pixels of the file."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_of(height: int, width: int, size: int, overlap: float) -> list[Tile]:
    """Return the tiles of a picture, row by row; one that has the whole picture if it is no larger than a tile."""
    return [
        Tile(left, top, min(left + size, width), min(top + size, height))
        for top in _starts(height, size, overlap)
        for left in _starts(width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    step = size - int(overlap * size)
    num_steps = max(0, math.ceil((length - size) / step))
    return [min(number * step, max(length - size, 0)) for number in range(num_steps + 1)]


def visible_boxes(boxes: np.ndarray, tile: Tile, visible: float) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to a tile.

    Args:
        boxes: ``(n, 4)`` left, top, right, bottom in pixels of the picture.
        tile: The window.
        visible: Share of a box that lies in the tile, at least.

    Returns:
        The indices ``(m,)`` of boxes that are visible, in order, and what of them lies in the tile ``(m, 4)``, in
        pixels of the tile.
    """
    corner = np.array([tile.left, tile.top, tile.left, tile.top])
    end = np.array([tile.right, tile.bottom, tile.right, tile.bottom])
    clipped = np.clip(boxes, corner, end)
    inside = _areas(clipped)
    kept = np.flatnonzero((inside > 0) & (inside >= visible * _areas(boxes)))
    return kept, clipped[kept] - corner


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return areas
