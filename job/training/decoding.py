"""Decoding: pixels of an image file as Ultralytics reads them, by a faster decoder where that gives the same.

Guarantees the pixels of ``ultralytics.utils.patches.imread``, which reads with OpenCV. OpenCV turns a JPEG as its EXIF
says, mends a damaged one and converts CMYK; such files, and all that are no JPEG, are left to it. The others go to
simplejpeg, which has the same version of libjpeg-turbo and takes less time. Without it, OpenCV reads all.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from ultralytics.utils import patches

try:
    import simplejpeg
except ModuleNotFoundError:
    simplejpeg = None

SUFFIXES = (".jpg", ".jpeg")

NUM_CHANNELS = 3

BUFFER_BYTES = 150_000_000
"""Limit of a buffer: pictures of 50 megapixels."""

EXIF = b"Exif\0\0"

SHORT, UPRIGHT = 3, 1
"""EXIF's numbers for the type of an orientation, and for a picture that is not turned."""


class Buffer:
    """Memory for one thing after another: new memory for each costs a tenth of the decoding."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def sized(self, num_bytes: int) -> np.ndarray | None:
        """Return the memory, which has so many bytes at least; None for more than `BUFFER_BYTES`."""
        if num_bytes > BUFFER_BYTES:
            return None
        if self._bytes.size < num_bytes:
            self._bytes = np.empty(num_bytes, np.uint8)
        return self._bytes

    def holds(self, pixels: np.ndarray) -> bool:
        """Whether an array lies in the memory, so that the next picture changes it."""
        return np.may_share_memory(self._bytes, pixels)


class DecodingBuffers:
    """Memory for the files that are decoded, and for their pixels."""

    def __init__(self) -> None:
        self.files, self.pixels = Buffer(), Buffer()


_buffers: DecodingBuffers | None = None


@contextmanager
def decoded_into(buffers: DecodingBuffers) -> Iterator[None]:
    """Let `imread` of this process decode JPEGs into buffers within a block."""
    global _buffers  # noqa: PLW0603 -- Ultralytics calls `imread` with a file alone
    _buffers = buffers
    try:
        yield
    finally:
        _buffers = None


def imread(filename: str | Path, flags: int = cv2.IMREAD_COLOR) -> Any:  # noqa: ANN401 -- as the function it stands for
    """Return the pixels ``(h, w, c)`` uint8 of an image file, BGR if in colour; None if it cannot be read."""
    if simplejpeg and flags == cv2.IMREAD_COLOR and os.fspath(filename).lower().endswith(SUFFIXES):
        with suppress(OSError, ValueError), Path(filename).open("rb") as opened:  # absent, or one that has to be mended
            if size := _size_if_upright_colour(opened):
                buffer = _buffers.pixels.sized(NUM_CHANNELS * math.prod(size)) if _buffers else None
                return simplejpeg.decode_jpeg(_read_again(opened), "BGR", buffer=buffer)
    return patches.imread(filename, flags)


def describe_decoder() -> str:
    """Return the versions and the instructions of this processor by which images are decoded and resized, as text."""
    libraries = ["pillow", "ultralytics", *(["simplejpeg"] if simplejpeg else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return f"opencv {cv2.__version__} with {cv2.getCPUFeaturesLine()}, {versions}"


def _read_again(opened: BufferedReader) -> np.ndarray | bytes:
    """Return a file from its start on."""
    opened.seek(0)
    memory = _buffers.files.sized(os.fstat(opened.fileno()).st_size) if _buffers else None
    return opened.read() if memory is None else memory[: opened.readinto(memory.data)]


def _size_if_upright_colour(opened: BufferedReader) -> tuple[int, int] | None:
    """Return width and height of a JPEG of three channels without EXIF, or whose EXIF says that it is upright."""
    try:
        image = JpegImageFile(opened)
        has_exif = any(name == "APP1" and text.startswith(b"Exif") for name, text in image.applist)
        is_upright = not has_exif or _says_upright(image.info["exif"])
    except Exception:  # noqa: BLE001 -- Pillow raises many kinds for a damaged header
        return None
    return image.size if image.mode == "RGB" and is_upright else None


def _says_upright(exif: bytes) -> bool:
    """Whether the orientation is a short number, as OpenCV takes one of any type to be, and says upright."""
    stream = BytesIO(exif.removeprefix(EXIF))
    tags = ImageFileDirectory_v2(stream.read(8))
    stream.seek(tags.next)
    tags.load(stream)
    return (tags.tagtype.get(Base.Orientation), tags.get(Base.Orientation)) == (SHORT, UPRIGHT)
