"""Detection in a picture and in its tiles, merged so that an object counts once, wherever tiles end.

One function for validation and prediction. Knows nothing of files, batches or metrics.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torchvision.ops import batched_nms, box_area

from job.training.tiles import Tile

Detections = dict[str, torch.Tensor]
"""``bboxes`` (n, 4) left, top, right, bottom; ``conf`` (n,), ``cls`` (n,) and, in a validation, ``extra`` (n, 0)."""

MERGE_IOU = 0.5
"""Two boxes of a class that overlap more are one object: those of one small object in two tiles differ by a pixel."""

MERGE_SHARE = 0.5
"""A box that a tile's border cuts is part of another of which it lies in by more than this share."""

BORDER_PX = 2.0
"""A box that ends so near to a border of its tile, in pixels of the file, is cut by it."""

PADDING = 114
"""Grey value beside a picture, as in Ultralytics' letterbox."""


def with_tiles(
    picture: np.ndarray,
    whole: Detections,
    tiles: list[Tile],
    imgsz: int,
    detect: Callable[[torch.Tensor], list[Detections]],
    *,
    num_at_once: int,
    across_classes: bool,
    max_det: int,
) -> Detections:
    """Return the detections in a picture and in its tiles, the most confident first, in pixels of the picture.

    Returns `whole` itself if there is one tile, which is the picture.

    Args:
        picture: ``(h, w, 3)`` BGR.
        whole: Detections in the whole picture, in its pixels.
        tiles: Of the picture.
        imgsz: Width and height to which a tile is scaled.
        detect: Takes tiles ``(n, 3, imgsz, imgsz)`` RGB, uint8, and returns the detections of each in its pixels.
        num_at_once: Tiles that `detect` takes, at most.
        across_classes: Whether boxes of two classes can be one object.
        max_det: Detections of a picture, at most.
    """
    height, width = picture.shape[:2]
    if len(tiles) == 1:
        return whole
    device = whole["conf"].device
    parts, cut = [whole], [torch.zeros(len(whole["conf"]), dtype=torch.bool, device=device)]
    for first in range(0, len(tiles), num_at_once):
        some = tiles[first : first + num_at_once]
        pixels, scale = _pixels(picture, some, imgsz)
        for tile, found in zip(some, detect(pixels), strict=True):
            boxes = found["bboxes"] / scale + torch.tensor([tile.left, tile.top] * 2, device=device)
            cut.append(is_cut(boxes, tile, height, width))
            parts.append(found | {"bboxes": boxes})
    found = {name: torch.cat([part[name] for part in parts]) for name in whole}
    classes = torch.zeros_like(found["cls"]) if across_classes else found["cls"]
    kept = merge(found["bboxes"], found["conf"], classes, torch.cat(cut))[:max_det]
    return {name: values[kept] for name, values in found.items()}


def is_cut(boxes: torch.Tensor, tile: Tile, height: int, width: int) -> torch.Tensor:
    """Return which boxes ``(n, 4)`` end at a border of their tile that is none of the picture.

    Args:
        boxes: In pixels of the picture.
        tile: Where they were found.
        height: Of the picture.
        width: Of the picture.
    """
    left, top, right, bottom = boxes.unbind(1)
    cut = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if tile.left > 0:
        cut |= left < tile.left + BORDER_PX
    if tile.top > 0:
        cut |= top < tile.top + BORDER_PX
    if tile.right < width:
        cut |= right > tile.right - BORDER_PX
    if tile.bottom < height:
        cut |= bottom > tile.bottom - BORDER_PX
    return cut


def merge(boxes: torch.Tensor, confidences: torch.Tensor, classes: torch.Tensor, cut: torch.Tensor) -> torch.Tensor:
    """Return the indices of boxes that stand for one object each, the most confident first.

    Whole boxes suppress each other by IoU, as in any detector. A cut one counts only where no other box of its class
    shows that object, by the share of the smaller box that lies in the other.

    Args:
        boxes: ``(n, 4)`` left, top, right, bottom.
        confidences: ``(n,)``.
        classes: ``(n,)``.
        cut: ``(n,)`` whether a tile's border cuts it.
    """
    entire = torch.nonzero(~cut).flatten()
    kept = entire[batched_nms(boxes[entire], confidences[entire], classes[entire], MERGE_IOU)]
    pieces = torch.nonzero(cut).flatten()
    pieces = pieces[torch.argsort(confidences[pieces], descending=True, stable=True)]
    for piece in pieces:
        of_class = kept[classes[kept] == classes[piece]]
        if not (_share_within(boxes[of_class], boxes[piece]) > MERGE_SHARE).any():
            kept = torch.cat([kept, piece[None]])
    return kept[torch.argsort(confidences[kept], descending=True, stable=True)]


def _share_within(boxes: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the overlap of boxes ``(n, 4)`` with another box, as shares of the smaller of both."""
    corner, end = torch.maximum(boxes[:, :2], other[:2]), torch.minimum(boxes[:, 2:], other[2:])
    overlap = (end - corner).clamp(min=0).prod(1)
    smaller = torch.minimum(box_area(boxes), box_area(other[None]))
    return overlap / smaller.clamp(min=torch.finfo(boxes.dtype).tiny)


def _pixels(picture: np.ndarray, tiles: list[Tile], imgsz: int) -> tuple[torch.Tensor, float]:
    """Return tiles as squares, and their scale; the tiles of a picture are of one size."""
    height, width = tiles[0].bottom - tiles[0].top, tiles[0].right - tiles[0].left
    scale = imgsz / max(height, width)
    size = round(width * scale), round(height * scale)
    square = np.full((len(tiles), imgsz, imgsz, picture.shape[2]), PADDING, np.uint8)
    for number, tile in enumerate(tiles):
        pixels = picture[tile.top : tile.bottom, tile.left : tile.right]
        square[number, : size[1], : size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(square[..., ::-1].transpose(0, 3, 1, 2))), scale
