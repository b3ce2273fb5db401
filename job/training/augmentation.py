"""Augmentation: Ultralytics' transforms with the same pixels, written into arrays that are kept.

Guarantees that each transform draws the numbers that its base class draws, and makes the same pixels and boxes. A new
array of many megabytes costs more in page faults than the work that fills it. Knows nothing of keys and files.
"""

from dataclasses import dataclass
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
"""Pixels of an image that are changed at once: what is between the steps stays in a core's cache."""

NUM_CHANNELS = 3
"""Of the images that are augmented here; others are left to the base classes."""

NUM_HUES = 180
"""Hues of a byte, as OpenCV has them."""

LEVELS = np.arange(256, dtype=np.uint8)

TRUNCATES, MARGIN = 1e-4 - 0.5, 5e-5
"""What is added before OpenCV rounds, so that it rounds down, and more than its 32-bit floats are wrong by."""

CHANGES = "changes"
"""What of a sample's labels has its `Changes` on their way to `PlanarFormat`, which comes last of all transforms."""

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


class Recolouring:
    """New hues, saturations and values by the old, as tables ``(3, 256)`` uint8 have them.

    To look up takes more than twice as long as to compute the same: a shift around the circle of hues, and a product.
    """

    def __init__(self, tables: np.ndarray, gains: tuple[float, float]) -> None:
        """Find out whether the first table is that of a shift, and the others those of gains, up to 255."""
        self._tables = tables
        shift = int(tables[0, 0])
        is_shift = np.array_equal(tables[0, :NUM_HUES], (np.arange(NUM_HUES) + shift) % NUM_HUES)
        self._shift = shift if is_shift else None
        self._gains = [
            gain if _is_product(gain, table) else None for gain, table in zip(gains, tables[1:], strict=True)
        ]

    def apply(self, channels: list[np.ndarray], spare: np.ndarray) -> None:
        """Change the planes of hue, saturation and value in place; a further plane is overwritten."""
        hue, *others = channels
        if self._shift is None:
            cv2.LUT(hue, self._tables[0], dst=hue)
        elif self._shift:
            np.greater_equal(hue, NUM_HUES - self._shift, out=spare.view(np.bool_))
            np.multiply(spare, NUM_HUES, out=spare)
            np.add(hue, self._shift, out=hue)
            np.subtract(hue, spare, out=hue)  # both may have wrapped at 256
        for channel, gain, table in zip(others, self._gains, self._tables[1:], strict=True):
            if gain is None:
                cv2.LUT(channel, table, dst=channel)
            else:
                cv2.convertScaleAbs(channel, dst=channel, alpha=gain, beta=TRUNCATES)


def _is_product(gain: float, table: np.ndarray) -> bool:
    """Whether each level of a table is the old one times a gain, rounded down as OpenCV does it, whatever it errs."""
    return all(
        np.array_equal(cv2.convertScaleAbs(LEVELS, alpha=gain, beta=TRUNCATES + error).ravel(), table)
        for error in (-MARGIN, MARGIN)
    )


@dataclass(slots=True)
class Changes:
    """What is to be done to the pixels of an image where they are; `PlanarFormat` does it in one pass."""

    colours: Recolouring | None = None
    is_upside_down: bool = False
    is_mirrored: bool = False

    @property
    def flip(self) -> int | None:
        """OpenCV's number for the axes that are flipped."""
        return {(True, False): 0, (False, True): 1, (True, True): -1}.get((self.is_upside_down, self.is_mirrored))


class LaterHSV(RandomHSV):
    """Hue, saturation and value of an image, to be changed."""

    def apply_image(self, labels: Labels, params: Labels | None = None) -> Labels:  # noqa: ARG002 -- overrides
        """Draw what changes."""
        if labels["img"].shape[-1] != NUM_CHANNELS or not (self.hgain or self.sgain or self.vgain):
            return labels
        hue, saturation, value = augment.np.random.uniform(-1, 1, 3) * [self.hgain, self.sgain, self.vgain]
        levels = np.arange(256, dtype=np.float64)
        tables = np.empty((NUM_CHANNELS, 256), np.uint8)
        tables[0] = (levels + hue * 180) % 180
        tables[1] = np.clip(levels * (saturation + 1), 0, 255)
        tables[2] = np.clip(levels * (value + 1), 0, 255)
        tables[1, 0] = 0  # white stays white
        _changes(labels).colours = Recolouring(tables, (saturation + 1, value + 1))
        return labels


class LaterFlip(RandomFlip):
    """Flip of an image, to be done."""

    def apply_image(self, labels: Labels, params: Labels) -> Labels:
        """Note the flip if the draw says so."""
        if labels["img"].shape[-1] != NUM_CHANNELS:
            flipped: Labels = super().apply_image(labels, params)
            return flipped
        changes = _changes(labels)
        if params["direction"] == "vertical":
            changes.is_upside_down ^= params["flip"]
        else:
            changes.is_mirrored ^= params["flip"]
        return labels


class PlanarFormat(Format):
    """Changes of an image, and its channels split into planes, strip by strip by way of kept arrays."""

    planes: np.ndarray | None = None
    """Planes ``(c, h, w)`` that the next image is written into, if it has their shape; else it gets new ones."""

    _strips: np.ndarray = np.empty((2, 0, 0, NUM_CHANNELS), np.uint8)
    _channels: np.ndarray = np.empty((NUM_CHANNELS + 1, 0, 0), np.uint8)

    def apply_image(self, labels: Labels, params: Labels | None = None) -> Labels:
        """Make the planes ``(c, h, w)`` of an image, RGB, or BGR as often as ``bgr`` says."""
        changes = labels.pop(CHANGES, Changes())
        img = labels["img"]
        if img.shape[-1] != NUM_CHANNELS:
            formatted: Labels = super().apply_image(labels, params)
            return formatted
        shape = (NUM_CHANNELS, *img.shape[:2])
        planes, self.planes = self.planes, None
        if planes is None or planes.shape != shape:
            planes = np.empty(shape, np.uint8)
        self._write(img, changes, planes[::-1] if augment.random.uniform(0, 1) > self.bgr else planes)
        labels["img"] = torch.from_numpy(planes)
        return labels

    def _write(self, img: np.ndarray, changes: Changes, planes: np.ndarray) -> None:
        height, width = img.shape[:2]
        num_rows = min(height, max(1, STRIP_PX // width))
        if self._channels.shape[1:] != (num_rows, width):
            self._strips = np.empty((2, num_rows, width, NUM_CHANNELS), np.uint8)
            self._channels = np.empty((NUM_CHANNELS + 1, num_rows, width), np.uint8)
        for top in range(0, height, num_rows):
            strip = img[top : top + num_rows]
            rows = len(strip)
            if changes.colours is not None:
                strip = self._recoloured(strip, changes.colours)
            if changes.flip is not None:
                strip = cv2.flip(strip, changes.flip, dst=self._strips[0, :rows])
            first = height - top - rows if changes.is_upside_down else top
            cv2.split(strip, list(planes[:, first : first + rows]))

    def _recoloured(self, strip: np.ndarray, colours: Recolouring) -> np.ndarray:
        """Return other colours of a strip."""
        rows = len(strip)
        hsv, (*channels, spare) = self._strips[0, :rows], self._channels[:, :rows]
        cv2.split(cv2.cvtColor(strip, cv2.COLOR_BGR2HSV, dst=hsv), channels)
        colours.apply(channels, spare)
        cv2.merge(channels, dst=hsv)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=self._strips[1, :rows])


def _changes(labels: Labels) -> Changes:
    """Return what is to be done to an image."""
    changes: Changes = labels.setdefault(CHANGES, Changes())
    return changes


KEPT = {
    Mosaic: CanvasMosaic,
    CopyPaste: CanvasCopyPaste,
    RandomPerspective: VisibleAffine,
    RandomHSV: LaterHSV,
    RandomFlip: LaterFlip,
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
