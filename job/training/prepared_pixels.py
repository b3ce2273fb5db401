"""Prepared pixels: images decoded and resized once, kept raw on the local disk, read through memory maps.

Guarantees the pixels that were decoded, or none: a file is named by the content of its image and by what else decides
its pixels, is on the disk before it has its name, and is not read if its size or its time of change differs. Any file
may be deleted at any time, which costs time only, and checkpoints and data find room. Knows nothing of augmentation.
"""

import hashlib
import math
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from job.background import Background
from job.text import counted

PIXELS = "pixels"
"""Name of the folder in the working folder."""

RESERVED_BYTES = 20_000_000_000
"""Disk space that stays free for checkpoints and data, twice what a start requires."""

SHARE_OF_MEMORY = 0.5
"""Of the machine's memory, at most, that the pixels of a training take. What the system cannot keep in memory it reads
from the disk in each epoch, for which a network disk needs longer than a processor for decoding.
"""

SEALED_NS = 10**18
"""Time of change of each file, in 2001: a file that is written to later gets another."""

NAME = re.compile(r"[0-9a-f]{64}-[0-9]+x[0-9]+")
"""Name of a file: digest of its image, height and width before resizing."""

NUM_DIGITS = 12

Shape = tuple[int, int, int]
"""Height, width and channels."""


@dataclass(frozen=True, slots=True)
class PixelFolder:
    """Folder of prepared pixels on this machine, and the digests that name images in it."""

    path: Path
    digests: Mapping[str, str]
    """SHA-256 of each image's file, and of its rules of decoding, by its path."""


class PreparedPixels:
    """Prepared pixels of a dataset's images at one size; an image goes by its number in the dataset."""

    def __init__(
        self, folder: PixelFolder, labels: Sequence[Mapping[str, Any]], *, imgsz: int, num_channels: int, decoder: str
    ) -> None:
        """Take the images of a dataset.

        Args:
            folder: Where their pixels are.
            labels: Ultralytics' labels, which have the path and the shape of each image.
            imgsz: Longer side after resizing, px.
            num_channels: Of the pixels.
            decoder: All that decides the pixels beside the file and the size, as text.
        """
        self._path, self._digests, self._labels = folder.path, folder.digests, labels
        self._imgsz, self._num_channels = imgsz, num_channels
        self._prefix = f"{folder.path}/{imgsz}-{hashlib.sha256(decoder.encode()).hexdigest()[:NUM_DIGITS]}"
        self._chosen: set[int] = set()
        self._writing: Background | None = None

    def choose(self) -> str:
        """Choose the images to keep as they are decoded, delete pixels of others for them; return this in words."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            for part in self._path.glob(".*.part"):  # of killed processes; a living one decodes once more
                part.unlink(missing_ok=True)
            return self._choose()
        except OSError as error:
            return f"prepared pixels: none are kept, {self._path} cannot be used, {error.strerror}"

    def _choose(self) -> str:
        files = {number: file for number in range(len(self._labels)) if (file := self._file(number))}
        sizes = {number: math.prod(shape) for number, (_, shape) in files.items()}
        folders = {folder.name for folder in Path(self._prefix).glob("*")}  # in no other is a file looked for
        missing = {
            number: size
            for number, size in sizes.items()
            if files[number][0].split("/")[-2] not in folders or not _is_there(files[number][0], size)
        }
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        most = max(0, int(SHARE_OF_MEMORY * memory) - sum(sizes.values()) + sum(missing.values()))
        wanted = min(sum(missing.values()), most)
        make_room(self._path, RESERVED_BYTES + wanted, kept={path for path, _ in files.values()})
        room = min(shutil.disk_usage(self._path).free - RESERVED_BYTES, most)
        for number, size in missing.items():
            if size <= room:
                self._chosen.add(number)
                room -= size
        left = [size for number, size in missing.items() if number not in self._chosen]
        text = (
            f"prepared pixels: {len(files) - len(missing)} of {counted(len(self._labels), 'picture')} in {self._path}"
        )
        if self._chosen:
            chosen_bytes = sum(missing.values()) - sum(left)
            text += f", {len(self._chosen)} more ({chosen_bytes / 1e9:.1f} GB) are kept there as they are decoded"
        if left:
            text += f", {len(left)} ({sum(left) / 1e9:.1f} GB) are not, which leaves "
            text += f"{RESERVED_BYTES / 1e9:.0f} GB of the disk and half of the memory free"
        return text

    def load(self, number: int) -> np.ndarray | None:
        """Return the pixels ``(h, w, c)`` of an image, which cannot be written to; None if they are not kept."""
        file = self._file(number)
        if file is None:
            return None
        path, shape = file
        try:
            with Path(path).open("rb", buffering=0) as opened:
                if not _is_whole(os.fstat(opened.fileno()), math.prod(shape)):
                    return None
                mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            return None
        mapped.madvise(mmap.MADV_WILLNEED)  # reads ahead by more than the few pages of each fault
        return np.frombuffer(mapped, np.uint8).reshape(shape)

    def save(self, number: int, pixels: np.ndarray, size: tuple[int, int]) -> None:
        """Keep the pixels of an image in the background if it is a chosen one; they must not change any more.

        An image that comes while another is being written is kept when it is decoded again: no sample waits for a disk.

        Args:
            number: Of the image.
            pixels: As decoded and resized.
            size: Height and width before resizing.
        """
        if self._writing is not None:
            if self._writing.is_running:
                return
            self._writing.check()
        file = self._file(number) if number in self._chosen else None
        if file is None or pixels.dtype != np.uint8:
            return
        if (pixels.shape, size) == (file[1], tuple(self._labels[number]["shape"])):
            self._writing = Background("prepared pixels", partial(self._write, Path(file[0]), pixels))
            self._writing.start()

    def _file(self, number: int) -> tuple[str, Shape] | None:
        """Return the path, as text since a start names thousands, and the shape of an image's pixels.

        None if its digest is not known.
        """
        label = self._labels[number]
        digest = self._digests.get(label["im_file"])
        if digest is None:
            return None
        height, width = label["shape"]
        path = f"{self._prefix}/{digest[:2]}/{digest}-{height}x{width}"
        return path, (*resized(height, width, self._imgsz), self._num_channels)

    def _write(self, path: Path, pixels: np.ndarray) -> None:
        part = self._path / f".{secrets.token_hex(8)}.part"
        try:
            if shutil.disk_usage(self._path).free < RESERVED_BYTES + pixels.nbytes:
                return
            with part.open("xb") as opened:
                opened.write(np.ascontiguousarray(pixels).data)
                opened.flush()
                os.utime(opened.fileno(), ns=(SEALED_NS, SEALED_NS))
                os.fsync(opened.fileno())  # else a machine that vanishes may leave the name without the bytes
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
        except OSError:  # a full disk, or one that fails
            with suppress(OSError):
                part.unlink(missing_ok=True)


def resized(height: int, width: int, imgsz: int) -> tuple[int, int]:
    """Return the height and width that Ultralytics gives an image (``data/base.py``: 297-316)."""
    ratio = imgsz / max(height, width)
    return min(math.ceil(height * ratio), imgsz), min(math.ceil(width * ratio), imgsz)


def make_room(folder: Path, num_bytes: int, *, kept: Collection[str] = ()) -> None:
    """Delete prepared pixels, but not the paths in `kept`, until the disk has so many bytes free."""
    if not folder.is_dir():
        return
    missing = num_bytes - shutil.disk_usage(folder).free
    for path in sorted(folder.rglob("*")) if missing > 0 else ():
        if NAME.fullmatch(path.name) and str(path) not in kept:
            with suppress(OSError):  # another process has deleted it
                size = path.stat().st_size
                path.unlink()
                missing -= size
        if missing <= 0:
            return


def _is_there(path: str, num_bytes: int) -> bool:
    with suppress(OSError):
        return _is_whole(os.stat(path), num_bytes)  # noqa: PTH116 -- as text: thousands are named in a row
    return False


def _is_whole(status: os.stat_result, num_bytes: int) -> bool:
    return (status.st_size, status.st_mtime_ns) == (num_bytes, SEALED_NS)
