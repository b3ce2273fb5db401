"""Validation on whole pictures: detections in tiles of the file and in the whole picture, merged.

Guarantees that metrics count objects of pictures, as without tiles: an object that several tiles show counts once. Each
detection of a tile is one of the whole picture by the time that Ultralytics counts.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import nn

from job.training.decoding import imread
from job.training.distributed_validation import DistributedValidator
from job.training.tiled_detection import Detections, with_tiles
from job.training.tiles import tiles_of


class TiledValidator(DistributedValidator):
    """Ultralytics' validator, which looks at tiles besides."""

    tile_size: int
    """Width and height of a tile, in pixels of the file."""

    tile_overlap: float
    """Share of a tile that the next one shows again."""

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
        """Add detections in the tiles of a picture to those in the whole picture."""
        (gain_y, gain_x), pad = self._batch["ratio_pad"][index]
        gain = torch.tensor([gain_x, gain_y] * 2, device=self.device)
        offset = torch.tensor([*pad] * 2, device=self.device)
        height, width = picture.shape[:2]
        in_picture = whole | {"bboxes": (whole["bboxes"] - offset) / gain}
        found = with_tiles(
            picture,
            in_picture,
            tiles_of(height, width, self.tile_size, self.tile_overlap),
            self.args.imgsz,
            self._detect,
            num_at_once=len(self._batch["img"]),
            across_classes=bool(self.args.single_cls or self.args.agnostic_nms),
            max_det=self.args.max_det,
        )
        return whole if found is in_picture else found | {"bboxes": found["bboxes"] * gain + offset}

    def _detect(self, pixels: torch.Tensor) -> list[Detections]:
        """Return the detections in each tile, in pixels of the tile."""
        found: list[Detections] = super().postprocess(self._model(super().preprocess({"img": pixels})["img"]))
        self.run_callbacks("on_val_batch_end")  # a notice is acted on between any two passes of the model
        return found


def _decoded(files: list[str]) -> Iterator[np.ndarray]:
    """Yield pictures in turn, the next one decoded in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(imread, file) for file in files[:1]]
        for following in [*files[1:], None]:
            picture = coming.pop().result()
            if following is not None:
                coming.append(pool.submit(imread, following))
            yield picture
