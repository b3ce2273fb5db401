"""Decoding: pixels of an image file as Ultralytics reads them, by a faster decoder where that gives the same.

Guarantees the pixels of ``ultralytics.utils.patches.imread``, which reads with OpenCV. OpenCV turns a JPEG as its EXIF
says, mends a damaged one and converts CMYK; such files, and all that are no JPEG, are left to it. The others go to
simplejpeg, which has the same version of libjpeg-turbo and takes less time. Without it, OpenCV reads all.
"""

import os
from contextlib import suppress
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile
from ultralytics.utils import patches

try:
    import simplejpeg
except ModuleNotFoundError:
    simplejpeg = None

SUFFIXES = (".jpg", ".jpeg")

UPRIGHT = 1
"""EXIF's number for a picture that is not turned."""


def imread(filename: str | Path, flags: int = cv2.IMREAD_COLOR) -> Any:  # noqa: ANN401 -- as the function it stands for
    """Return the pixels ``(h, w, c)`` uint8 of an image file, BGR if in colour; None if it cannot be read."""
    if simplejpeg and flags == cv2.IMREAD_COLOR and os.fspath(filename).lower().endswith(SUFFIXES):
        with suppress(OSError, ValueError):  # no such file, or one that has to be mended
            data = Path(filename).read_bytes()
            if _is_upright_colour(data):
                return simplejpeg.decode_jpeg(data, "BGR")
    return patches.imread(filename, flags)


def describe_decoder() -> str:
    """Return the versions and the instructions of this processor by which images are decoded and resized, as text."""
    libraries = ["pillow", "ultralytics", *(["simplejpeg"] if simplejpeg else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return f"opencv {cv2.__version__} with {cv2.getCPUFeaturesLine()}, {versions}"


def _is_upright_colour(data: bytes) -> bool:
    """Whether a file is a JPEG of three channels, and has no EXIF or one that says that it is upright."""
    try:
        image = JpegImageFile(BytesIO(data))
        num_exif = sum(name == "APP1" and text.startswith(b"Exif") for name, text in image.applist)
        return image.mode == "RGB" and (not num_exif or image.getexif().get(Base.Orientation) == UPRIGHT)
    except Exception:  # noqa: BLE001 -- Pillow raises many kinds for a damaged header
        return False
