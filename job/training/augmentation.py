"""Augmentation: Ultralytics' transforms with the same pixels, written into arrays that are kept.

Guarantees that each transform draws the numbers that its base class draws, and makes the same pixels and boxes. A new
array of many megabytes costs more in page faults than the work that fills it. Knows nothing of keys and files.
"""

from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.data import augment
from ultralytics.data.augment import Compose, CopyPaste, Format, Mosaic, RandomFlip, RandomHSV, RandomPerspective

PADDING = 114
"""Grey of a mosaic where no picture lies, in each channel."""

FARTHEST_PX = 1 << 16
"""To which coordinates of OpenCV are exact to a fraction of a pixel: 32-bit floats, or integers that overflow."""

STRIP_PX = 1 << 18
"""Pixels of an image whose colours are changed at once: what is between the steps stays in a core's cache."""

NUM_CHANNELS = 3
"""Of the images that are augmented here; others are left to the base classes."""

Labels = dict[str, Any]
"""What Ultralytics knows of an image and its objects; ``img`` has the pixels ``(h, w, c)`` uint8."""


class Canvas:
    """The pixels of a mosaic, in one array: pictures that were laid on it are pasted where they are looked at."""

    def __init__(self) -> None:
        self.pixels = np.empty((0, 0, 0), np.uint8)
        self._laid: list[tuple[np.ndarray, Labels]] = []

    def lay(self, shape: tuple[int, int, int], laid: list[tuple[np.ndarray, Labels]]) -> np.ndarray:
        """Lay pictures out, each with Ultralytics' patch of it.

        Returns:
            Pixels ``(h, w, c)`` that are those of the mosaic where they were pasted.
        """
        if self.pixels.shape != shape:
            self.pixels = np.empty(shape, np.uint8)
        self._laid = laid
        return self.pixels

    def paste(self, left: int, top: int, right: int, bottom: int) -> None:
        """Paste what is laid out, within the bounds of a rectangle, and forget it."""
        if not self._laid:
            return
        self.pixels[top:bottom, left:right] = PADDING
        for img, patch in self._laid:
            x1, y1 = max(left, patch["x1a"]), max(top, patch["y1a"])
            x2, y2 = min(right, patch["x2a"]), min(bottom, patch["y2a"])
            if x1 < x2 and y1 < y2:
                dx, dy = patch["x1b"] - patch["x1a"], patch["y1b"] - patch["y1a"]
                self.pixels[y1:y2, x1:x2] = img[y1 + dy : y2 + dy, x1 + dx : x2 + dx]
        self._laid = []

    def paste_all(self) -> None:
        """Paste all that is laid out, and forget it."""
        self.paste(0, 0, *self.pixels.shape[1::-1])


class CanvasMosaic(Mosaic):
    """Mosaic of four images laid on a canvas, which the affine transform reads before the next mosaic."""

    canvas: Canvas

    def apply_image(self, labels: Labels, params: Labels) -> Labels:
        """Lay the four images out."""
        shape = (2 * self.imgsz, 2 * self.imgsz, labels["img"].shape[2])
        laid = [(patch["labels_patch"]["img"], patch) for patch in params["layout"]]
        labels["img"] = self.canvas.lay(shape, laid)
        return labels


class CanvasCopyPaste(CopyPaste):
    """Objects copied on the whole mosaic."""

    canvas: Canvas

    def __call__(self, labels: Labels) -> Labels:
        """Copy them, if any are to be."""
        if self.p:
            self.canvas.paste_all()
        pasted: Labels = super().__call__(labels)
        return pasted


class VisibleAffine(RandomPerspective):
    """Affine transform for which of a mosaic only what it reads is pasted."""

    canvas: Canvas

    def apply_image(self, labels: Labels, params: Labels) -> Labels:
        """Transform the image."""
        if self.perspective:
            self.canvas.paste_all()
        else:
            self.canvas.paste(*visible_bounds(params["M"], params["size"], labels["img"].shape[1::-1]))
        transformed: Labels = super().apply_image(labels, params)
        return transformed


def visible_bounds(
    matrix: np.ndarray, size: tuple[int, int], size_before: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the pixels that an affine transform reads.

    Args:
        matrix: ``(3, 3)``, from pixels before to pixels after.
        size: Width and height after it.
        size_before: Those before.
    """
    if not np.linalg.det(matrix):
        return (0, 0, *size_before)
    width, height = size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    read = (np.linalg.inv(matrix.astype(np.float64)) @ corners)[:2]
    if np.abs(read).max() > FARTHEST_PX:
        return (0, 0, *size_before)
    margin = 2  # of which interpolation needs one, and coordinates of 1/32 px less than another
    left, top = np.clip(np.floor(read.min(axis=1)) - margin, 0, size_before).astype(int).tolist()
    right, bottom = np.clip(np.ceil(read.max(axis=1)) + margin, 0, size_before).astype(int).tolist()
    return left, top, right, bottom


class InPlaceHSV(RandomHSV):
    """Hue, saturation and value of an image, changed strip by strip by way of kept arrays."""

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
        height, width = img.shape[:2]
        num_rows = min(height, max(1, STRIP_PX // width))
        if self.hsv is None or self.hsv.shape[:2] != (num_rows, width):
            self.hsv = np.empty((num_rows, width, NUM_CHANNELS), np.uint8)
            self.planes = np.empty((NUM_CHANNELS, num_rows, width), np.uint8)
        for top in range(0, height, num_rows):
            strip = img[top : top + num_rows]
            hsv, planes = self.hsv[: len(strip)], list(self.planes[:, : len(strip)])
            cv2.cvtColor(strip, cv2.COLOR_BGR2HSV, dst=hsv)
            cv2.split(hsv, planes)
            for plane, table in zip(planes, tables, strict=True):
                cv2.LUT(plane, table, dst=plane)
            cv2.merge(planes, dst=hsv)
            cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=strip)
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


KEPT = {
    Mosaic: CanvasMosaic,
    CopyPaste: CanvasCopyPaste,
    RandomPerspective: VisibleAffine,
    RandomHSV: InPlaceHSV,
    RandomFlip: InPlaceFlip,
    Format: PlanarFormat,
}
"""Transforms of Ultralytics that have a counterpart here."""


def keep_arrays(transforms: Compose) -> None:
    """Let the transforms of a training write into kept arrays, also those before which one mixes images."""
    _keep_arrays(transforms, Canvas())


def _keep_arrays(transforms: Compose, canvas: Canvas) -> None:
    for transform in transforms.transforms:
        transform.__class__ = KEPT.get(type(transform), type(transform))
        if isinstance(transform, CanvasMosaic | CanvasCopyPaste | VisibleAffine):
            transform.canvas = canvas
        for inner in (transform, getattr(transform, "pre_transform", None)):
            if isinstance(inner, Compose):
                _keep_arrays(inner, canvas)
