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
"""Pictures whose tiles are shuffled together; a worker keeps twice as many decoded for each of the eight sequences."""


class TileBatches(EpochBatches):
    """Batches of tiles, in which the tiles of a picture come to the same worker and near each other.

    Every eighth batch belongs together (see `STRIDE`): pictures in a keyed shuffle are dealt to these eight sequences,
    and within one the tiles of four pictures at a time are shuffled. Empty tiles are drawn anew for each epoch.
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
        """
        self.pictures = pictures
        self.with_objects, self.empty = np.flatnonzero(~empty), np.flatnonzero(empty)
        self.num_empty = min(len(self.empty), int(len(self.with_objects) * max_empty / (1 - max_empty)))
        super().__init__(len(self.with_objects) + self.num_empty, batch_size, seed, rank, num_processes)

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
