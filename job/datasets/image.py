"""Check of an image: accepted as by Ultralytics' ``check_image``, decoded as by its ``imread``.

Guarantees that an image is opened in one of the formats that training reads and in no other, that its size is limited
before its pixels are decoded, and that an image which passes was decoded to its end by the decoder of training.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, cast

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.Image import open as open_image  # Ultralytics replaces it by a function that installs packages
from PIL.TiffImagePlugin import TiffImageFile

from job.datasets.labels import Findings
from job.datasets.near_duplicates import HASHED_PX, hash_of
from job.errors import DataError

DECODER = f"pillow-{PIL.__version__}_opencv-{cv2.__version__}_ultralytics-8.4.190"
"""Versions that decide which images are accepted and how they are decoded; of Ultralytics, the one that is followed."""

FORMATS = ("AVIF", "BMP", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
"""Pillow's names of the formats that training decodes; its other formats include some that run programs."""

BY_PAGES, BY_PILLOW = frozenset({"tif", "tiff"}), frozenset({"avif", "heic", "heif"})
"""Suffixes that training decodes in another way."""

DECODED_BY_NAME = BY_PAGES | BY_PILLOW

END_OF_JPEG = b"\xff\xd9"

MIN_PX = 10

MAX_BYTES = 2_000_000_000
"""Limit of a file: more than the largest image takes without compression."""

MAX_PIXELS = 178_956_970
"""Limit of all pages together, that of Pillow and so of Ultralytics."""

LARGE_PIXELS = 25_000_000
"""Larger images are decoded one at a time, or many threads would fill the memory."""

MAX_PAGES = 100

TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations of a picture that lies on its side."""

SWAPPED = frozenset({"AVIF", "JPEG", "MPO", "PNG"})
"""Formats whose pictures are turned by their EXIF whatever decodes them; those of others depend on the decoder."""

_one_large = threading.Lock()


def check_image(data: bytes, name: str, num_channels: int = 3, *, known_hash: str | None = None) -> Findings:
    """Check that training with so many channels can read an image; the suffix of its name selects the decoder.

    The pixels of an image that has been decoded before are not decoded again; `known_hash` is what they gave.
    """
    try:
        with _opened(data) as opened:
            opened.verify()  # reads the checksums of a PNG, but makes its pixels unusable
            (width, height), turned = opened.size, _is_turned(opened)
            is_jpeg, is_swapped = opened.format == "JPEG", turned and opened.format in SWAPPED
        num_pixels = _num_pixels(data, opened)
        if num_pixels > MAX_PIXELS:
            return Findings.of("large", f"has {num_pixels:,} pixels, and at most {MAX_PIXELS:,} are read; make tiles")
    except UnidentifiedImageError:
        what = f"is none of {', '.join(FORMATS)}, which training reads; convert it, or leave it out"
        return Findings.of("unreadable", what if data else "is empty; replace it")
    except Image.DecompressionBombError:
        return Findings.of("large", f"has more than {MAX_PIXELS:,} pixels, which are not read; make tiles")
    except Exception as error:  # noqa: BLE001 -- decoders raise anything on broken data
        return Findings.of("unreadable", f"cannot be decoded, {' '.join(str(error).split())}; replace it")
    if min(width, height) < MIN_PX:
        return Findings.of(
            "small", f"is {width} x {height} px, and Ultralytics takes none below {MIN_PX}; leave it out"
        )
    if known_hash is not None and (is_swapped or not turned):
        found = Findings(hash=known_hash)
    else:
        with _one_large if num_pixels > LARGE_PIXELS else nullcontext():
            found = _check_pixels(data, name, num_channels, reduced=is_jpeg and min(width, height) >= 8 * HASHED_PX)
    is_decided = bool(found.problems) or (turned and not is_swapped)  # by the decoder
    return found if is_decided else replace(found, shape=(width, height) if is_swapped else (height, width))


def load_image(data: bytes) -> Image.Image:
    """Return an image, upright and in colour; raises `DataError` if it cannot be decoded."""
    try:
        with _opened(data) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:
        raise DataError(f"picture: cannot be decoded, {error}; replace it") from error


def decode(data: bytes, name: str, num_channels: int = 3, *, reduced: bool = False) -> NDArray[Any] | None:
    """Return the pixels ``(h, w, c)`` of training, as ``imread`` (``utils/patches.py``: 18); `None` if it reads none.

    The flags are those of ``data/base.py``, line 140. A JPEG in colour can be reduced to an eighth, for which it is
    read to its end all the same, in a third of the time.
    """
    flags = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(num_channels, cv2.IMREAD_UNCHANGED)
    suffix, content = name.rpartition(".")[2].lower(), np.frombuffer(data, np.uint8)
    pixels: Any = None
    if flags != cv2.IMREAD_GRAYSCALE and suffix in BY_PAGES:
        success, pages = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED)
        stack = flags == cv2.IMREAD_UNCHANGED and len(pages) > 1 and all(page.shape == pages[0].shape for page in pages)
        if success and (pages[0].ndim > 2 or stack):  # noqa: PLR2004 -- has channels
            pixels = pages[0] if pages[0].ndim > 2 else np.stack(pages, axis=2)  # noqa: PLR2004 -- has channels
            pixels = pixels if flags == cv2.IMREAD_UNCHANGED else pixels[..., :3]
    if pixels is None and suffix in BY_PILLOW:
        picture = load_image(data)
        pixels = np.asarray(picture.convert("L")) if num_channels == 1 else np.asarray(picture)[..., ::-1]
    if pixels is None:
        reduced = reduced and flags == cv2.IMREAD_COLOR
        pixels = cv2.imdecode(content, cv2.IMREAD_REDUCED_COLOR_8 if reduced else flags)
    if pixels is not None and pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels is not None and pixels.ndim == 2:  # noqa: PLR2004 -- no channels
        pixels = pixels[..., None]
    return cast("NDArray[Any] | None", pixels)


def read_picture(data: bytes, name: str, num_channels: int = 3) -> NDArray[Any]:
    """Return the pixels of a picture that is to be searched for objects, as `decode`, of any size up to the limits.

    Raises:
        DataError: If it is no picture, is damaged or cut short, or is too large; the message is the reason alone.
    """
    try:
        with _opened(data) as opened:
            opened.verify()
        num_pixels = _num_pixels(data, opened)
        with _opened(data) as opened:
            if num_pixels <= MAX_PIXELS and opened.format == "JPEG" and not data.endswith(END_OF_JPEG):
                opened.draft("RGB", (1, 1))
                opened.load()  # OpenCV would fill up one that is cut short with grey
    except UnidentifiedImageError as error:
        raise DataError(f"is none of {', '.join(FORMATS)}" if data else "is empty") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:
        raise DataError(f"cannot be decoded, {' '.join(str(error).split())}") from error
    if num_pixels > MAX_PIXELS:
        raise DataError(f"has {num_pixels:,} pixels, and at most {MAX_PIXELS:,} are read")
    try:
        with _one_large if num_pixels > LARGE_PIXELS else nullcontext():
            pixels = decode(data, name, num_channels)
    except (cv2.error, MemoryError) as error:
        raise DataError(f"cannot be decoded, {' '.join(str(error).split())}") from error
    if pixels is None:
        raise DataError("cannot be decoded by OpenCV")
    if pixels.dtype != np.uint8 or pixels.shape[2] != num_channels:
        raise DataError(
            f"has {pixels.shape[2]} channels of {pixels.dtype}, and the model takes {num_channels} of uint8"
        )
    return pixels


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """Silence OpenCV's log; the check reports the problem."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _opened(data: bytes) -> ImageFile.ImageFile:
    return open_image(io.BytesIO(data), formats=FORMATS)


def _is_turned(verified: ImageFile.ImageFile) -> bool:
    """Whether a picture lies on its side by its EXIF, as Ultralytics' ``exif_size`` reads it of a verified one."""
    with suppress(Exception):
        exif: Any = verified.tag_v2 if isinstance(verified, TiffImageFile) else verified.getexif()
        return exif.get(ExifTags.Base.Orientation) in TURNED
    return False


def _num_pixels(data: bytes, verified: ImageFile.ImageFile) -> int:
    """Return the number of pixels of all pages of an image that was verified."""
    num_pixels = verified.width * verified.height
    if verified.format == "TIFF":
        with _opened(data) as opened:
            for page in range(1, MAX_PAGES + 1):
                try:
                    opened.seek(page)
                except EOFError:
                    break
                num_pixels += MAX_PIXELS if page == MAX_PAGES else opened.width * opened.height
    return num_pixels


def _check_pixels(data: bytes, name: str, num_channels: int, *, reduced: bool) -> Findings:
    try:
        pixels = decode(data, name, num_channels, reduced=reduced)
    except (cv2.error, DataError, MemoryError) as error:
        return Findings.of(
            "unreadable", f"cannot be decoded as for training, {' '.join(str(error).split())}; convert it"
        )
    if pixels is None:
        message = "cannot be decoded by OpenCV, with which training reads it; convert it to JPEG or PNG of 8 bits"
        return Findings.of("unreadable", message)
    if pixels.dtype != np.uint8 or pixels.shape[2] != num_channels:
        message = f"has {pixels.shape[2]} channels of {pixels.dtype}, and training takes {num_channels} of uint8"
        return Findings.of("unreadable", f"{message}; convert it, or correct `channels` in data.yaml")
    return Findings(hash=hash_of(pixels), shape=pixels.shape[:2])
