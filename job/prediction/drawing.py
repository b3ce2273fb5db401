"""Pictures for people: with boxes, or the part of one for a page."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from job.training.evaluation_record import Detection

COLOURS = ((60, 60, 240), (60, 180, 60), (240, 120, 40), (0, 200, 240), (220, 80, 200), (200, 200, 0))
"""BGR, for the classes in turn."""

QUALITY = 85

PX_PER_LINE = 800
"""A line is one pixel thicker for each of these of the longer side."""


def draw_boxes(picture: np.ndarray, detections: Sequence[Detection], names: Sequence[str]) -> bytes:
    """Return a picture ``(h, w, c)``, BGR and uint8, with boxes, names and confidences, as a JPEG."""
    drawn = _in_colour(picture)
    thickness = 1 + max(drawn.shape[:2]) // PX_PER_LINE
    for detection in reversed(detections):  # the most confident on top
        colour = COLOURS[detection.category % len(COLOURS)]
        left, top, right, bottom = (round(value) for value in detection[2:])
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, thickness)
        label = f"{names[detection.category]} {detection.confidence:.2f}".encode("ascii", "replace").decode()
        cv2.putText(
            drawn,
            label,
            (left, max(top - 2 * thickness, 12)),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4 * thickness,
            colour,
            thickness,
        )
    return _as_jpeg(drawn)


def cut(picture: np.ndarray, window: tuple[int, int, int, int], max_px: float = math.inf) -> bytes:
    """Return the part of a picture, by its left, top, right and bottom in pixels, as a JPEG of at most `max_px`."""
    left, top, right, bottom = window
    part = _in_colour(picture[top:bottom, left:right])
    scale = max_px / max(part.shape[:2])
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return _as_jpeg(part)


def _in_colour(picture: np.ndarray) -> np.ndarray:
    """Return a copy with three channels."""
    return np.array(picture[..., :3] if picture.shape[2] > 2 else picture[..., [0, 0, 0]], order="C")  # noqa: PLR2004 -- has colours


def _as_jpeg(picture: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()
