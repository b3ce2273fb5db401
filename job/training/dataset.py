"""Keyed dataset: Ultralytics' dataset and augmentation, with samples that depend on their key alone.

The stock dataset picks mosaic partners from the images that its worker process happened to load last
(``data/base.py``: 315-322, ``data/augment.py``: 499-502), and switches mosaic off by changing itself
(``engine/trainer.py``: 508-511). Here both come with the sample.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate, get_worker_info
from ultralytics.data.augment import Compose
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import IterableSimpleNamespace, colorstr
from ultralytics.utils.ops import xywh2xyxy, xyxy2xywh

from job.training.augmentation import NUM_CHANNELS, Labels, keep_arrays
from job.training.decoding import DecodingBuffers, decoded_into, describe_decoder, imread
from job.training.prepared_pixels import PixelFolder, PreparedPixels, resized
from job.training.rng import start_streams
from job.training.sampler import CACHE_BYTES, PICTURES_TOGETHER, Sample, num_kept
from job.training.tiles import Tile, Tiling, tiles_of, visible_boxes

Batch = dict[str, Any]
"""One sample or batch of Ultralytics: ``img``, ``cls``, ``bboxes`` and further entries."""

Image = tuple[np.ndarray, tuple[int, int], tuple[int, int]]
"""Pixels ``(h, w, 3)`` BGR uint8, and height and width before and after resizing."""

Value = TypeVar("Value")

START_OF_JPEG, END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"


def read_only_images(dataset: YOLODataset) -> None:
    """Let a dataset of Ultralytics decode each image file, never an ``.npy`` file beside it.

    Stock Ultralytics prefers ``x.npy`` to ``x.jpg`` in any cache mode (``data/base.py``: 275-278): pixels of an unknown
    training, which no digest of the dataset covers.
    """
    dataset.npy_files = [Path(os.devnull, "npy")] * len(dataset.im_files)  # a path that cannot exist


def digest_pictures(labels: list[Labels], folder: Path) -> str:
    """Return the SHA-256 over the images of a split, by name and size of their files, and over their boxes."""
    digest, within = hashlib.sha256(), dict[str, str]()
    for label in sorted(labels, key=lambda label: str(label["im_file"])):
        image = str(label["im_file"])
        size = os.stat(image).st_size  # noqa: PTH116 -- as text: thousands are named in a row
        parent, name = os.path.split(image)
        if parent not in within:
            within[parent] = os.path.relpath(os.path.join(parent, "-"), folder)[:-1]  # noqa: PTH118 -- as text, too
        digest.update(f"{within[parent]}{name}\t{size}\t{len(label['cls'])}\n".encode())
        digest.update(label["cls"].tobytes() + label["bboxes"].tobytes())
    return digest.hexdigest()


def is_recompressed(image: str) -> bool:
    """Whether stock Ultralytics recompresses an image, a JPEG with bytes behind its end; see `patch_ultralytics`."""
    with Path(image).open("rb") as opened:
        opened.seek(-2, os.SEEK_END)
        if opened.read() == END_OF_JPEG:
            return False
        opened.seek(0)
        return opened.read(len(START_OF_JPEG)) == START_OF_JPEG


class Samples(list[Batch]):
    """Samples of a batch, and the tensor ``(n, c, h, w)`` uint8 that their images were made in."""

    def __init__(self, samples: Iterable[Batch], images: torch.Tensor) -> None:
        super().__init__(samples)
        self.images = images

    @property
    def are_in_place(self) -> bool:
        """Whether the image of each sample is that of the tensor."""
        pairs = zip(self, self.images, strict=True)
        return all(sample["img"].data_ptr() == image.data_ptr() for sample, image in pairs)


class KeyedDataset(YOLODataset):
    """The training split; indexed by `Sample`."""

    transforms: Compose
    labels: list[Labels]

    def __init__(
        self,
        args: IterableSimpleNamespace,
        data: Mapping[str, Any],
        batch_size: int,
        epochs: int,
        *,
        stride: int,
        mosaic_stride: int,
        pixels: PixelFolder | None = None,
    ) -> None:
        self.seed = args.seed
        self.first_epoch_without_mosaic = epochs - args.close_mosaic if args.close_mosaic else epochs
        self.mosaic_stride = mosaic_stride
        self.recent: dict[int, Image] = {}  # first in, first out
        self.decoding = DecodingBuffers()
        self.planes: np.ndarray | None = None  # in which the image of the next sample is made
        # The arguments of ultralytics.data.build.build_yolo_dataset in mode "train".
        super().__init__(
            img_path=data["train"],
            imgsz=args.imgsz,
            batch_size=batch_size,
            augment=True,
            hyp=args,
            rect=False,
            cache=None,
            single_cls=args.single_cls or False,
            stride=stride,
            pad=0.0,
            prefix=colorstr("train: "),
            task=args.task,
            classes=args.classes,
            data=data,
            fraction=args.fraction,
        )
        read_only_images(self)
        self.prepared: PreparedPixels | None = None
        if pixels:
            self.prepared = PreparedPixels(
                pixels, self.labels, imgsz=args.imgsz, num_channels=self.channels, decoder=describe_decoder()
            )
        with_mosaic = self.transforms
        self.close_mosaic(copy(args))
        self.transforms_without_mosaic, self.transforms = self.transforms, with_mosaic

    def __getitem__(self, sample: Sample) -> Batch:
        """Return one augmented sample, the same in every process and at every time."""
        closed = sample.epoch >= self.first_epoch_without_mosaic
        transforms = self.transforms_without_mosaic if closed else self.transforms
        transforms.transforms[-1].planes, self.planes = self.planes, None
        self.buffer = list(sample.partners)
        start_streams("augment", self.seed, sample.epoch, sample.position)
        augmented: Batch = transforms(self.get_image_and_label(sample.image))
        return augmented

    def __getitems__(self, samples: Sequence[Sample]) -> list[Batch]:
        """Return the samples of a batch; images of three channels are made where the batch has them."""
        if self.channels != NUM_CHANNELS:
            return [self[sample] for sample in samples]
        images = _empty_images(len(samples), self.imgsz)
        made = []
        for sample, planes in zip(samples, images.numpy(), strict=True):
            self.planes = planes
            made.append(self[sample])
        return Samples(made, images)

    def build_transforms(self, hyp: IterableSimpleNamespace) -> Compose:
        """Build the stock transforms, which here keep their arrays from one sample to the next."""
        transforms: Compose = super().build_transforms(hyp)
        keep_arrays(transforms)
        return transforms

    @staticmethod
    def collate_fn(samples: list[Batch]) -> Batch:
        """Collate samples as the base class does, with the images in the memory that a worker shares."""
        together = samples.images if isinstance(samples, Samples) and samples.are_in_place else None
        images = [sample.pop("img") for sample in samples]
        batch: Batch = YOLODataset.collate_fn(samples)
        batch["img"] = default_collate(images) if together is None else together
        return batch

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Image:  # noqa: FBT001, FBT002 -- overrides
        """Return an image that cannot be written to, decoded if it is neither among the last few nor prepared."""
        loaded = self.recent.get(i) or self._load_prepared(i)  # which takes a file for each map, so that none is kept
        if loaded is None:
            self.augment = False  # the base class would add the image to its history of mosaic partners
            try:
                loaded = self._decode(i, rect_mode, resize_short)
            finally:
                self.augment = True
            loaded[0].flags.writeable = False
            if i in self.buffer:  # another one is for MixUp, which takes any
                self.recent[i] = loaded
            _evict(self.recent, num_kept(len(self.buffer)) * self._num_sequences, lambda image: int(image[0].nbytes))
            if self.prepared:
                self.prepared.save(i, *loaded[:2])
        return loaded

    def _load_prepared(self, i: int) -> Image | None:
        """Return an image from its prepared pixels, if there are any."""
        pixels = self.prepared.load(i) if self.prepared else None
        return None if pixels is None else (pixels, self.labels[i]["shape"], pixels.shape[:2])

    @property
    def _num_sequences(self) -> int:
        """Sequences of batches a stride apart that this process makes."""
        worker = get_worker_info()
        return math.ceil(self.mosaic_stride / (worker.num_workers if worker else 1))

    def _decode(self, i: int, rect_mode: bool, resize_short: bool) -> Image:  # noqa: FBT001 -- as the base class
        with decoded_into(self.decoding):
            pixels, *sizes = super().load_image(i, rect_mode, resize_short)
        return (pixels.copy() if self.decoding.pixels.holds(pixels) else pixels, *sizes)

    @property
    def pictures(self) -> list[Labels]:
        """Labels of whole pictures."""
        return self.labels


class TiledDataset(KeyedDataset):
    """The training split cut into tiles of its files; an image of a `Sample` is a tile.

    Nothing is written: a tile is cut from the decoded picture when it comes, and the last few decoded are kept. Boxes
    stand for outlines, which are not clipped.
    """

    def __init__(self, tiling: Tiling, *args: Any, **options: Any) -> None:  # noqa: ANN401 -- those of the base class
        """Cut the split into tiles, of which those with objects come first in no order.

        Args:
            tiling: How.
            args: Of `KeyedDataset`.
            options: Of `KeyedDataset`.
        """
        self.decoded: dict[int, np.ndarray] = {}  # least recently used first
        super().__init__(*args, **options)
        self._pictures: list[Labels] = self.labels
        tiles: list[tuple[int, Tile]] = []
        for number, label in enumerate(self._pictures):
            height, width = label["shape"]
            tiles += [(number, tile) for tile in tiles_of(height, width, tiling.size, tiling.overlap)]
        self.picture_of = np.array([number for number, _ in tiles])
        self.tiles = [tile for _, tile in tiles]
        self.labels = [_labels_in(self._pictures[number], tile, tiling.visible) for number, tile in tiles]
        self.ni = len(tiles)

    @property
    def pictures(self) -> list[Labels]:
        """Labels of whole pictures."""
        return self._pictures

    @property
    def empty(self) -> np.ndarray:
        """Whether each tile ``(n,)`` has no object."""
        return np.array([not len(label["cls"]) for label in self.labels])

    def _decode(self, i: int, _rect_mode: bool, _resize_short: bool) -> Image:  # noqa: FBT001 -- as the base class
        """Cut a tile, and resize it as the base class resizes a picture (``data/base.py``: 292-297)."""
        tile = self.tiles[i]
        pixels = self._picture(int(self.picture_of[i]))[tile.top : tile.bottom, tile.left : tile.right]
        height, width = pixels.shape[:2]
        size = resized(height, width, self.imgsz)
        if size == (height, width):
            return np.ascontiguousarray(pixels), size, size
        sized = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
        return sized.reshape(*size, -1), (height, width), size  # OpenCV drops the axis of a single channel

    def _picture(self, number: int) -> np.ndarray:
        """Return a picture, decoded only if it was not among the last few."""
        pixels = self.decoded.pop(number, None)
        if pixels is None:
            pixels = imread(self.pictures[number]["im_file"], flags=self.cv2_flag)
        self.decoded[number] = pixels
        _evict(self.decoded, 2 * PICTURES_TOGETHER * self._num_sequences, lambda pixels: int(pixels.nbytes))
        return pixels


def _empty_images(num: int, px: int) -> torch.Tensor:
    """Return memory for the images of a batch, which a worker shares as `default_collate` does."""
    shape = (num, NUM_CHANNELS, px, px)
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, np.uint8))  # which asks for huge pages; torch.empty does not
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # noqa: SLF001 -- no public way without a copy
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def _evict(cache: dict[int, Value], most: int, size: Callable[[Value], int]) -> None:
    """Remove the oldest of a cache until it has so many, and `CACHE_BYTES`, at most."""
    total = sum(map(size, cache.values()))
    while len(cache) > most or total > CACHE_BYTES:
        total -= size(cache.pop(next(iter(cache))))


def _labels_in(label: Labels, tile: Tile, visible: float) -> Labels:
    """Return what of a picture's labels is visible in a tile, in Ultralytics' form."""
    height, width = label["shape"]
    boxes = xywh2xyxy(label["bboxes"].astype(np.float64)) * [width, height, width, height]
    kept, clipped = visible_boxes(boxes, tile, visible)
    shape = tile.bottom - tile.top, tile.right - tile.left
    shares = xyxy2xywh(clipped / [shape[1], shape[0], shape[1], shape[0]]).astype(np.float32)
    return label | {"shape": shape, "cls": label["cls"][kept], "bboxes": shares, "segments": []}
