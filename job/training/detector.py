"""Detector: weights put to use on pictures, as Ultralytics' predictor does it.

Guarantees that weights are loaded by the allow-list, and that without tiles the boxes are those of Ultralytics'
``predict`` with the same arguments and batches. Knows nothing of files.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils.checks import check_imgsz

from job.training.device import device_explained, require_device, set_kernels
from job.training.evaluation_record import Detection
from job.training.library_errors import explained_prediction
from job.training.tiled_detection import Detections, with_tiles
from job.training.tiles import tiles_of
from job.training.weights import load_weights

Output = torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor]
"""Of a model: candidates ``(n, 4 + classes, anchors)``, alone or before others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSettings:
    """Arguments of Ultralytics' ``predict``, and tiles."""

    conf: float
    """The least confidence of a detection, from 0 to 1."""

    iou: float
    imgsz: int
    """Pixels of the longer side of a picture, and of a tile, in the model."""

    max_det: int
    """Detections of a picture, at most."""

    classes: list[int] | None = None
    tiles: int | None = None
    """Width and height of tiles in pixels of the picture; `None` for none."""

    overlap: float = 0.0
    """Share of a tile that the next one shows again."""

    batch: int = 1
    """Tiles that the model sees at once."""

    square: bool = False
    """Pads every picture to a square, which a file exported for one size needs."""


class Detector:
    """A model on a device.

    Args:
        weights: A file in Ultralytics' format, or an ONNX file that this process has exported from one.
        settings: What counts as a detection.
        device: ``cpu``, ``0`` and so on; empty chooses.
        num_threads: Threads of torch on the CPU.

    Raises:
        WeightsError: If the weights are unsafe or damaged.
        MachineError: If the device does not exist or cannot be used.
    """

    def __init__(self, weights: Path, settings: DetectionSettings, device: str, num_threads: int) -> None:
        model = str(weights) if str(weights).endswith(".onnx") else load_weights(weights)
        require_device(device)
        self._settings = settings
        arguments = {name: getattr(settings, name) for name in ("conf", "iou", "imgsz", "max_det", "classes")}
        self._predictor = DetectionPredictor(
            overrides={
                **arguments,
                "device": device,
                "mode": "predict",
                "rect": not settings.square,
                "save": False,
                "verbose": False,
            }
        )
        with device_explained(device):
            self._predictor.setup_model(model, verbose=False)
        set_kernels(num_threads)
        self._size = check_imgsz(settings.imgsz, stride=self._predictor.model.stride, min_dim=2)
        self._predictor.imgsz = self._size
        names = self._predictor.model.names if isinstance(model, str) else model.names
        self.names = [names[number] for number in range(len(names))]
        """Names of the classes, by number."""

        self.num_channels = int(self._predictor.model.channels)
        """Channels of the pictures that the model takes."""

    def detect(self, pictures: list[np.ndarray]) -> list[list[Detection]]:
        """Return the detections in each picture ``(h, w, c)``, BGR and uint8, the most confident first.

        Pictures of one shape are padded less than pictures of several, as Ultralytics does; so a batch decides the last
        bits.

        Raises:
            JobError: If the device fails, or its memory is too small.
        """
        if not pictures:
            return []
        with explained_prediction(), torch.inference_mode():
            found = self._detect(self.prepare(pictures), pictures)
            if self._settings.tiles is not None:
                found = [
                    self._with_tiles(picture, whole, self._settings.tiles)
                    for picture, whole in zip(pictures, found, strict=True)
                ]
            return [_boxes(detections) for detections in found]

    def prepare(self, pictures: list[np.ndarray]) -> torch.Tensor:
        """Return the batch ``(n, c, h, w)`` that the model sees, RGB from 0 to 1."""
        batch: torch.Tensor = self._predictor.preprocess(pictures)
        return batch

    def infer(self, prepared: torch.Tensor) -> Output:
        """Return the model's output for a prepared batch, before suppression."""
        output: Output = self._predictor.model(prepared)
        return output

    def boxes_of(self, output: Output, prepared: torch.Tensor, pictures: list[np.ndarray]) -> list[list[Detection]]:
        """Return the detections in an output of `infer`, the most confident first."""
        return [_boxes(found) for found in self._suppress(output, prepared, pictures)]

    def _with_tiles(self, picture: np.ndarray, whole: Detections, tile_size: int) -> Detections:
        size, _ = self._size
        height, width = picture.shape[:2]
        blank = np.empty((size, size, picture.shape[2]), np.uint8)

        def detect(tiles: torch.Tensor) -> list[Detections]:
            return self._detect(tiles.to(self._predictor.device).float() / 255, [blank] * len(tiles))

        return with_tiles(
            picture,
            whole,
            tiles_of(height, width, tile_size, self._settings.overlap),
            size,
            detect,
            num_at_once=self._settings.batch,
            across_classes=False,
            max_det=self._settings.max_det,
        )

    def _detect(self, prepared: torch.Tensor, pictures: list[np.ndarray]) -> list[Detections]:
        """Run the model on a batch, and return detections in pixels of the pictures, of which the shape counts."""
        return self._suppress(self.infer(prepared), prepared, pictures)

    def _suppress(self, output: Output, prepared: torch.Tensor, pictures: list[np.ndarray]) -> list[Detections]:
        predictor = self._predictor
        predictor.batch = ([""] * len(pictures),)
        results = predictor.postprocess(output, prepared, pictures)
        return [
            {"bboxes": boxes.data[:, :4], "conf": boxes.data[:, 4], "cls": boxes.data[:, 5]}
            for boxes in (result.boxes for result in results)
        ]


def _boxes(found: Detections) -> list[Detection]:
    rows = zip(*(found[name].cpu().tolist() for name in ("cls", "conf", "bboxes")), strict=True)
    return [Detection(int(category), confidence, *box) for category, confidence, box in rows]
