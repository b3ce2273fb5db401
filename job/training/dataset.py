"""Keyed dataset: Ultralytics' dataset and augmentation, with samples that depend on their key alone.

The stock dataset picks mosaic partners from the images that its worker process happened to load last
(``data/base.py``: 315-322, ``data/augment.py``: 499-502), and switches mosaic off by changing itself
(``engine/trainer.py``: 508-511). Here both come with the sample.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info
from ultralytics.data.augment import Compose
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import IterableSimpleNamespace, colorstr

from job.training.rng import start_streams
from job.training.sampler import STRIDE, Sample

Batch = dict[str, Any]
"""One sample or batch of Ultralytics: ``img``, ``cls``, ``bboxes`` and further entries."""

Image = tuple[np.ndarray, tuple[int, int], tuple[int, int]]
"""Pixels ``(h, w, 3)`` BGR uint8, and height and width before and after resizing."""

START_OF_JPEG, END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"


def read_only_images(dataset: YOLODataset) -> None:
    """Let a dataset of Ultralytics decode each image file, never an ``.npy`` file beside it.

    Stock Ultralytics prefers ``x.npy`` to ``x.jpg`` in any cache mode (``data/base.py``: 275-278): pixels of an unknown
    training, which no digest of the dataset covers.
    """
    dataset.npy_files = [Path(os.devnull, "npy")] * len(dataset.im_files)  # a path that cannot exist


def digest_pictures(dataset: YOLODataset, folder: Path) -> str:
    """Return the SHA-256 over the images of a dataset, by name and size of their files, and over their boxes."""
    digest = hashlib.sha256()
    for label in sorted(dataset.labels, key=lambda label: str(label["im_file"])):
        image = Path(label["im_file"])
        digest.update(f"{os.path.relpath(image, folder)}\t{image.stat().st_size}\t{len(label['cls'])}\n".encode())
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


class KeyedDataset(YOLODataset):
    """The training split; indexed by `Sample`."""

    transforms: Compose

    def __init__(
        self, args: IterableSimpleNamespace, data: Mapping[str, Any], batch_size: int, epochs: int, stride: int
    ) -> None:
        self.seed = args.seed
        self.first_epoch_without_mosaic = epochs - args.close_mosaic if args.close_mosaic else epochs
        self.recent: dict[int, Image] = {}  # first in, first out
        self.num_recent = 0
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
        with_mosaic = self.transforms
        self.close_mosaic(copy(args))
        self.transforms_without_mosaic, self.transforms = self.transforms, with_mosaic

    def __getitem__(self, sample: Sample) -> Batch:
        """Return one augmented sample, the same in every process and at every time."""
        closed = sample.epoch >= self.first_epoch_without_mosaic
        transforms = self.transforms_without_mosaic if closed else self.transforms
        self.buffer = list(sample.partners)
        worker = get_worker_info()
        num_needed = len(sample.partners) * math.ceil(STRIDE / (worker.num_workers if worker else 1))
        self.num_recent = num_needed * 5 // 4  # else each image that is decoded again evicts one that is still needed
        start_streams("augment", self.seed, sample.epoch, sample.position)
        augmented: Batch = transforms(self.get_image_and_label(sample.image))
        return augmented

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Image:  # noqa: FBT001, FBT002 -- overrides
        """Return a copy of an image, decoded unless it was among the last few."""
        loaded = self.recent.get(i)
        if loaded is None:
            self.augment = False  # the base class would add the image to its history of mosaic partners
            try:
                loaded = super().load_image(i, rect_mode, resize_short)
            finally:
                self.augment = True
            if i in self.buffer:  # another one is for MixUp, which takes any
                self.recent[i] = loaded
            while len(self.recent) > self.num_recent:
                del self.recent[next(iter(self.recent))]
        pixels, original, resized = loaded
        return pixels.copy(), original, resized  # RandomHSV writes into the image it is given
