"""Keyed sampler: order of images and mosaic partners as pure functions of seed and position.

Guarantees that order and partners depend on ``(seed, epoch, position)`` alone: never on the number of workers, on
prefetching, or on earlier steps. Ultralytics re-seeds one stream at every start, so that a resumed run sees its
first epochs again (``data/build.py``: 232-236, 398-414).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from job.training.rng import generator

PARTNERS = 16
"""Images, at least, beyond those of its own batch, that a mosaic may draw from."""

STRIDE = 8
"""Partners are the images of every eighth batch before, or of nearer ones in an epoch too short for that.

Batches are dealt to the workers in turn, so each of 1, 2, 4 or 8 workers has just decoded its partners, as in stock
Ultralytics. The first batches of an epoch draw from those to come, which find their images decoded.
"""


class Sample(NamedTuple):
    """Key of one sample; any worker makes the same image of it."""

    epoch: int
    """0-based."""

    position: int
    """0-based place in the epoch's order."""

    image: int
    """Index of the image in the dataset."""

    partners: tuple[int, ...]
    """Images that a mosaic may draw its other three from."""


class EpochBatches(Sampler[list[Sample]]):
    """The batches of one epoch from any batch on; `start` chooses which.

    Of several processes each has its share of every batch, in one piece and of equal size; where a last batch cannot
    be shared evenly, images from the beginning of the epoch fill it up.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, num_processes: int = 1) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.num_processes = num_processes
        self.num_earlier = min(math.ceil(PARTNERS * num_processes / batch_size), len(self) - 1)
        self.stride = min(STRIDE, len(self) // (self.num_earlier + 1))
        self.epoch = 0
        self.first_batch = 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch (0-based) and the batch (0-based) that the next iteration begins with."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __len__(self) -> int:
        return math.ceil(self.num_images / self.batch_size)

    def __iter__(self) -> Iterator[list[Sample]]:
        epoch = self.epoch
        images = generator("order", self.seed, epoch).permutation(self.num_images)
        order: list[int] = np.resize(images, self.num_images + self.num_processes).tolist()  # begins again at its end
        for batch in range(self.first_batch, len(self)):
            earliest = max(batch - self.num_earlier * self.stride, batch % self.stride)
            drawn_from = range(earliest, earliest + self.num_earlier * self.stride + 1, self.stride)
            partners = tuple(order[position] for other in drawn_from for position in self._positions(other))
            yield [Sample(epoch, position, order[position], partners) for position in self._positions(batch)]

    def _positions(self, batch: int) -> range:
        """Return the places in the epoch's order that this process has in a batch."""
        size = min(self.batch_size, self.num_images - batch * self.batch_size)
        share = math.ceil(size / self.num_processes)
        first = batch * self.batch_size + self.rank * share
        return range(first, first + share)
