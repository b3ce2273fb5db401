"""Validation on whole pictures: detections in tiles of the file and in the whole picture, merged.

Guarantees that metrics count objects of pictures, as without tiles: an object that several tiles show counts once. Each
detection of a tile is one of the whole picture by the time that Ultralytics counts.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torchvision.ops import batched_nms, box_area
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.patches import imread

from job.training.tiles import Tile

Detections = dict[str, torch.Tensor]
"""``bboxes`` (n, 4) left, top, right, bottom; ``conf`` (n,), ``cls`` (n,) and ``extra`` (n, 0)."""

MERGE_IOU = 0.5
"""Two boxes of a class that overlap more are one object: those of one small object in two tiles differ by a pixel."""

MERGE_SHARE = 0.5
"""A box that a tile's border cuts is part of another of which it lies in by more than this share."""

BORDER_PX = 2.0
"""A box that ends so near to a border of its tile, in pixels of the file, is cut by it."""

PADDING = 114
"""Grey value beside a picture, as in Ultralytics' letterbox."""


class TiledValidator(DetectionValidator):
    """Ultralytics' validator, which looks at tiles besides."""

    tiles_of: Callable[[int, int], list[Tile]]
    """Returns the tiles of a picture by its height and width."""

    _model: nn.Module
    _batch: dict[str, Any]

    def init_metrics(self, model: nn.Module) -> None:
        """Keep the model."""
        super().init_metrics(model)
        self._model = model

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Keep the batch."""
        self._batch = super().preprocess(batch)
        return self._batch

    def postprocess(self, preds: Any) -> list[Detections]:  # noqa: ANN401 -- what the model returns
        """Return the detections of each picture of the batch, in pixels of the batch."""
        whole: list[Detections] = super().postprocess(preds)
        files = self._batch["im_file"]
        return [
            self._with_tiles(index, found, picture)
            for index, (found, picture) in enumerate(zip(whole, _decoded(files), strict=True))
        ]

    def _with_tiles(self, index: int, whole: Detections, picture: np.ndarray) -> Detections:
        """Add what the tiles of a picture show to what was found in the whole picture."""
        height, width = picture.shape[:2]
        tiles = self.tiles_of(height, width)
        if len(tiles) == 1:
            return whole
        (gain_y, gain_x), pad = self._batch["ratio_pad"][index]
        gain = torch.tensor([gain_x, gain_y] * 2, device=self.device)
        offset = torch.tensor([*pad] * 2, device=self.device)
        parts, cut = [whole], [torch.zeros(len(whole["conf"]), dtype=torch.bool, device=self.device)]
        num_at_once = len(self._batch["img"])
        for first in range(0, len(tiles), num_at_once):
            some = tiles[first : first + num_at_once]
            pixels, scale = self._pixels(picture, some)
            for tile, found in zip(some, super().postprocess(self._model(pixels)), strict=True):
                corner = torch.tensor([tile.left, tile.top] * 2, device=self.device)
                boxes = found["bboxes"] / scale + corner
                cut.append(is_cut(boxes, tile, height, width))
                parts.append(found | {"bboxes": boxes * gain + offset})
            self.run_callbacks("on_val_batch_end")  # a notice is acted on between any two passes of the model
        found = {name: torch.cat([part[name] for part in parts]) for name in whole}
        classes = torch.zeros_like(found["cls"]) if self.args.single_cls or self.args.agnostic_nms else found["cls"]
        kept = merge(found["bboxes"], found["conf"], classes, torch.cat(cut))[: self.args.max_det]
        return {name: values[kept] for name, values in found.items()}

    def _pixels(self, picture: np.ndarray, tiles: list[Tile]) -> tuple[torch.Tensor, float]:
        """Return tiles as the model takes them, and their scale; the tiles of a picture are of one size."""
        height, width = tiles[0].bottom - tiles[0].top, tiles[0].right - tiles[0].left
        scale = self.args.imgsz / max(height, width)
        size = round(width * scale), round(height * scale)
        square = np.full((len(tiles), self.args.imgsz, self.args.imgsz, 3), PADDING, np.uint8)
        for number, tile in enumerate(tiles):
            pixels = picture[tile.top : tile.bottom, tile.left : tile.right]
            square[number, : size[1], : size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        channels_first = np.ascontiguousarray(square[..., ::-1].transpose(0, 3, 1, 2))
        prepared = super().preprocess({"img": torch.from_numpy(channels_first)})
        return prepared["img"], scale


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


def _decoded(files: list[str]) -> Iterator[np.ndarray]:
    """Yield pictures in turn, the next one decoded in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(imread, file) for file in files[:1]]
        for following in [*files[1:], None]:
            picture = coming.pop().result()
            if following is not None:
                coming.append(pool.submit(imread, following))
            yield picture
