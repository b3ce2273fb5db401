"""Which image comes when, and what a mosaic may show beside it: pure functions of the seed and the position.

Guarantees that the order of an epoch depends on ``(seed, epoch)`` alone, and the partners of a sample on
``(seed, epoch, position)`` alone: never on the number of workers, on prefetching, or on what happened before.
Ultralytics re-seeds one stream at every start, so that a resumed run sees its first epochs again (``data/build.py``:
232-236, 398-414).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from job.training.randomness import generator

PARTNERS = 16
"""Images, beyond those of its own batch, that a mosaic may draw from."""

BATCHES_PER_POOL = 8
"""Consecutive batches that share their partners, so that a partner is decoded once for several batches."""


class Sample(NamedTuple):
    """One place in an epoch: what a worker needs to make it, whichever worker it is."""

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
        order = generator("order", self.seed, epoch).permutation(self.num_images).tolist()
        for batch in range(self.first_batch, len(self)):
            size = min(self.batch_size, self.num_images - batch * self.batch_size)
            share = math.ceil(size / self.num_processes)
            first = batch * self.batch_size + self.rank * share
            images = [order[position % self.num_images] for position in range(first, first + share)]
            partners = (*images, *self._pool(epoch, batch // BATCHES_PER_POOL))
            yield [Sample(epoch, first + i, image, partners) for i, image in enumerate(images)]

    def _pool(self, epoch: int, block: int) -> list[int]:
        drawn = generator("partners", self.seed, epoch, block).integers(self.num_images, size=PARTNERS)
        return [int(image) for image in drawn]
