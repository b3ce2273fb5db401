"""Augmentation: Ultralytics' transforms with the same pixels, written into arrays that are kept.

Guarantees that each transform draws the numbers that its base class draws, and makes the same pixels and boxes. A new
array of many megabytes costs more in page faults than the work that fills it. Knows nothing of keys and files.
"""

from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.data import augment
from ultralytics.data.augment import Compose, Format, Mosaic, RandomFlip, RandomHSV

PADDING = 114
"""Grey of a mosaic where no picture lies, in each channel."""

NUM_CHANNELS = 3
"""Of the images that are augmented here; others are left to the base classes."""

Labels = dict[str, Any]
"""What Ultralytics knows of an image and its objects; ``img`` has the pixels ``(h, w, c)`` uint8."""


class CanvasMosaic(Mosaic):
    """Mosaic of four images on one canvas, which the affine transform reads before the next mosaic."""

    canvas: np.ndarray | None = None

    def apply_image(self, labels: Labels, params: Labels) -> Labels:
        """Paste the four images."""
        shape = (2 * self.imgsz, 2 * self.imgsz, labels["img"].shape[2])
        if self.canvas is None or self.canvas.shape != shape:
            self.canvas = np.empty(shape, np.uint8)
        self.canvas.fill(PADDING)
        for part in params["layout"]:
            pasted = part["labels_patch"]["img"][part["y1b"] : part["y2b"], part["x1b"] : part["x2b"]]
            self.canvas[part["y1a"] : part["y2a"], part["x1a"] : part["x2a"]] = pasted
        labels["img"] = self.canvas
        return labels


class InPlaceHSV(RandomHSV):
    """Hue, saturation and value of an image, changed by way of kept arrays."""

    hsv: np.ndarray | None = None
    planes: np.ndarray
    """The same, channel by channel: a table is looked up in half the time."""

    def apply_image(self, labels: Labels, params: Labels | None = None) -> Labels:  # noqa: ARG002 -- overrides
        """Change the image in place."""
        img = labels["img"]
        if img.shape[-1] != NUM_CHANNELS or not (self.hgain or self.sgain or self.vgain):
            return labels
        hue, saturation, value = augment.np.random.uniform(-1, 1, 3) * [self.hgain, self.sgain, self.vgain]
        levels = np.arange(256, dtype=np.float64)
        tables = np.empty((NUM_CHANNELS, 256), np.uint8)
        tables[0] = (levels + hue * 180) % 180
        tables[1] = np.clip(levels * (saturation + 1), 0, 255)
        tables[2] = np.clip(levels * (value + 1), 0, 255)
        tables[1, 0] = 0  # white stays white
        if self.hsv is None or self.hsv.shape != img.shape:
            self.hsv = np.empty_like(img)
            self.planes = np.empty((NUM_CHANNELS, *img.shape[:2]), np.uint8)
        cv2.cvtColor(img, cv2.COLOR_BGR2HSV, dst=self.hsv)
        cv2.split(self.hsv, list(self.planes))
        for plane, table in zip(self.planes, tables, strict=True):
            cv2.LUT(plane, table, dst=plane)
        cv2.merge(list(self.planes), dst=self.hsv)
        cv2.cvtColor(self.hsv, cv2.COLOR_HSV2BGR, dst=img)
        return labels


class InPlaceFlip(RandomFlip):
    """Flip of an image in place."""

    def apply_image(self, labels: Labels, params: Labels) -> Labels:
        """Flip the image if the draw says so."""
        if labels["img"].shape[-1] != NUM_CHANNELS:
            flipped: Labels = super().apply_image(labels, params)
            return flipped
        if params["flip"]:
            cv2.flip(labels["img"], 0 if params["direction"] == "vertical" else 1, dst=labels["img"])
        return labels


class PlanarFormat(Format):
    """Channels of an image split into planes in one pass."""

    planes: np.ndarray | None = None
    """Planes ``(c, h, w)`` that the next image is written into, if it has their shape; else it gets new ones."""

    def _format_img(self, img: np.ndarray) -> torch.Tensor:
        """Return the planes ``(c, h, w)``, RGB, or BGR as often as ``bgr`` says."""
        if img.shape[-1] != NUM_CHANNELS:
            formatted: torch.Tensor = super()._format_img(img)
            return formatted
        shape = (NUM_CHANNELS, *img.shape[:2])
        planes, self.planes = self.planes, None
        if planes is None or planes.shape != shape:
            planes = np.empty(shape, np.uint8)
        ordered = planes[::-1] if augment.random.uniform(0, 1) > self.bgr else planes
        cv2.split(img, list(ordered))
        return torch.from_numpy(planes)


KEPT = {Mosaic: CanvasMosaic, RandomHSV: InPlaceHSV, RandomFlip: InPlaceFlip, Format: PlanarFormat}
"""Transforms of Ultralytics that have a counterpart here."""


def keep_arrays(transforms: Compose) -> None:
    """Let the transforms of a training write into kept arrays, also those before which one mixes images."""
    for transform in transforms.transforms:
        transform.__class__ = KEPT.get(type(transform), type(transform))
        for inner in (transform, getattr(transform, "pre_transform", None)):
            if isinstance(inner, Compose):
                keep_arrays(inner)
