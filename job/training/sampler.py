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
"""Partners are the images of every eighth batch before in a run whose record has no other stride, or of nearer ones in
an epoch too short for that.

Batches are dealt to the workers in turn, so a worker has just decoded its partners if the stride is a multiple of the
number of workers, as in stock Ultralytics. The first batches of an epoch draw from those to come, which find their
images decoded.
"""

CACHE_BYTES = 1 << 30
"""Memory for decoded pictures, at most, in each process that loads, for those of either size."""


def choose_stride(workers: int, batch_size: int, imgsz: int, num_processes: int = 1) -> int:
    """Return the stride of a new run: a multiple of the workers, of at least `STRIDE` where their memory allows.

    Args:
        workers: Of each process; with 0 it loads by itself.
        batch_size: Of all processes together.
        imgsz: Longer side of the images, px.
        num_processes: That train together.
    """
    workers = max(workers, 1)
    pool_bytes = num_kept(batch_size // num_processes + PARTNERS) * 3 * imgsz**2
    num_pools = 1 << max(0, math.ceil(math.log2(STRIDE / workers)))
    while num_pools > 1 and num_pools * pool_bytes > CACHE_BYTES:
        num_pools //= 2
    return workers * num_pools


def num_kept(num_partners: int) -> int:
    """Return how many images to keep for so many partners: some more, else one that comes evicts one still needed."""
    return num_partners * 5 // 4


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

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_processes: int = 1,
        stride: int = STRIDE,
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.num_processes = num_processes
        self.num_earlier = min(math.ceil(PARTNERS * num_processes / batch_size), len(self) - 1)
        self.is_short = stride > len(self) // (self.num_earlier + 1)
        self.stride = len(self) // (self.num_earlier + 1) if self.is_short else stride
        self.epoch = 0
        self.first_batch = 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch (0-based) and the batch (0-based) that the next iteration begins with."""
        self.epoch = epoch
        self.first_batch = first_batch

    def fit_workers(self, most: int) -> int:
        """Return how many workers, of so many at most, decode each image once; all of them in a short epoch."""
        return most if self.is_short else max((n for n in range(1, most + 1) if self.stride % n == 0), default=0)

    def __len__(self) -> int:
        return math.ceil(self.num_images / self.batch_size)

    def __iter__(self) -> Iterator[list[Sample]]:
        epoch = self.epoch
        images = self._order(epoch)
        order: list[int] = np.resize(images, self.num_images + self.num_processes).tolist()  # begins again at its end
        for batch in range(self.first_batch, len(self)):
            earliest = max(batch - self.num_earlier * self.stride, batch % self.stride)
            drawn_from = range(earliest, earliest + self.num_earlier * self.stride + 1, self.stride)
            partners = tuple(order[position] for other in drawn_from for position in self._positions(other))
            yield [Sample(epoch, position, order[position], partners) for position in self._positions(batch)]

    def _order(self, epoch: int) -> np.ndarray:
        """Return the images of an epoch (0-based) in their order."""
        return generator("order", self.seed, epoch).permutation(self.num_images)

    def _positions(self, batch: int) -> range:
        """Return the places in the epoch's order that this process has in a batch."""
        size = min(self.batch_size, self.num_images - batch * self.batch_size)
        share = math.ceil(size / self.num_processes)
        first = batch * self.batch_size + self.rank * share
        return range(first, first + share)


PICTURES_TOGETHER = 4
"""Pictures whose tiles are shuffled together; a worker keeps twice as many decoded for each of its sequences."""


class TileBatches(EpochBatches):
    """Batches of tiles, in which the tiles of a picture come to the same worker and near each other.

    Batches a stride apart belong together (see `STRIDE`): pictures in a keyed shuffle are dealt to these sequences, and
    within one the tiles of four pictures at a time are shuffled. Empty tiles are drawn anew for each epoch.
    """

    def __init__(
        self,
        pictures: np.ndarray,
        empty: np.ndarray,
        max_empty: float,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_processes: int = 1,
        stride: int = STRIDE,
    ) -> None:
        """Take the tiles of a dataset.

        Args:
            pictures: ``(n,)`` number of each tile's picture.
            empty: ``(n,)`` whether a tile has no object.
            max_empty: Share of empty tiles, at most, in an epoch, from 0 up to but not including 1.
            batch_size: Of all processes together.
            seed: Of the run.
            rank: Of this process.
            num_processes: That train together.
            stride: Batches from one of a sequence to its next.
        """
        self.pictures = pictures
        self.with_objects, self.empty = np.flatnonzero(~empty), np.flatnonzero(empty)
        self.num_empty = min(len(self.empty), int(len(self.with_objects) * max_empty / (1 - max_empty)))
        super().__init__(
            len(self.with_objects) + self.num_empty,
            batch_size,
            seed,
            rank=rank,
            num_processes=num_processes,
            stride=stride,
        )

    def _order(self, epoch: int) -> np.ndarray:
        drawn = generator("empty", self.seed, epoch).choice(self.empty, self.num_empty, replace=False)
        tiles = np.sort(np.concatenate([self.with_objects, drawn]))
        shuffle = generator("order", self.seed, epoch)
        turns = shuffle.permutation(int(self.pictures.max()) + 1)  # of each picture, when its turn is
        group = turns[self.pictures[tiles]] // PICTURES_TOGETHER
        near_each_other = tiles[np.lexsort((shuffle.random(len(tiles)), group))]
        order = np.empty_like(near_each_other)
        first = 0
        for sequence in range(self.stride):
            places = np.concatenate(
                [
                    np.arange(batch * self.batch_size, min((batch + 1) * self.batch_size, self.num_images))
                    for batch in range(sequence, len(self), self.stride)
                ]
            )
            order[places] = near_each_other[first : first + len(places)]
            first += len(places)
        return order
