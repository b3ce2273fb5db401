"""Near-duplicates: pictures of different splits that look the same, by difference hashes of their pixels.

A hash has 512 bits: whether each of 16 x 16 parts of a picture is darker than the one at its right, and than the one
below it. Guarantees that only pictures of different splits are compared, each pair once: time grows with the product of
their numbers, memory does not. Says nothing of pictures that show one place from different positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cv2
import dhash
import numpy as np
from numpy.typing import NDArray

from job.datasets.labels import Findings
from job.text import counted

NUM_PARTS = 16
"""Parts of a picture in a row and in a column."""

HASHED_PX = NUM_PARTS + 1
"""Width and height to which a picture is reduced for its hash."""

NUM_BITS = 2 * NUM_PARTS**2

MAX_DIFFERENT = NUM_BITS // 10
"""Near-duplicates differ in a tenth of the bits at most. Measured on 24 pictures of the demo: the same picture, encoded
anew, reduced to half or brightened, in up to 4 %; two different ones in 43 % or more.
"""

BLOCK = 256
"""Pictures that are compared with all of another split at once."""


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Pictures of one split that look like one of another."""

    split: str
    other: str
    pairs: tuple[tuple[str, str], ...]
    """A picture of `split`, and the most similar one of `other`."""

    @property
    def num_pictures(self) -> int:
        """Number of pictures of `split`."""
        return len(self.pairs)

    def __str__(self) -> str:
        picture, like = self.pairs[0]
        return f"{self.split} has {counted(self.num_pictures, 'image')} like one of {self.other}: {picture} like {like}"


def hash_of(pixels: NDArray[Any]) -> str:
    """Return the hash of the first three channels of pixels ``(h, w, c)``, as hexadecimal digits."""
    reduced = cv2.resize(np.ascontiguousarray(pixels[..., :3]), (HASHED_PX, HASHED_PX), interpolation=cv2.INTER_AREA)
    grays = reduced.reshape(HASHED_PX**2, -1).sum(axis=1, dtype=int).tolist()
    return f"{dhash.dhash_int(grays, NUM_PARTS):0{NUM_BITS // 4}x}"


def find_near_duplicates(
    splits: Mapping[str, Sequence[str]], found: Mapping[str, Findings]
) -> tuple[NearDuplicates, ...]:
    """Return the near-duplicates between any two splits.

    Args:
        splits: Pictures by split.
        found: Findings in pictures; those without a hash are left out.
    """
    known = {
        split: [name for name in dict.fromkeys(pictures) if found[name].hash] for split, pictures in splits.items()
    }
    signs = {split: _signs([found[name].hash for name in names]) for split, names in known.items() if names}
    results = []
    for other, split in combinations(signs, 2):
        nearest = _nearest(signs[split], signs[other])
        if pairs := tuple((known[split][i], known[other][j]) for i, j in nearest):
            results.append(NearDuplicates(split, other, pairs))
    return tuple(results)


def _signs(hashes: Sequence[str]) -> NDArray[np.float32]:
    """Return hashes ``(n, 512)`` as 1 and -1, whose products count equal bits."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8)).reshape(-1, NUM_BITS)
    return bits.astype(np.float32) * 2 - 1


def _nearest(ones: NDArray[np.float32], others: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Yield the indices of each of some hashes that has a near-duplicate among others, and of the nearest."""
    for start in range(0, len(ones), BLOCK):
        different = (NUM_BITS - ones[start : start + BLOCK] @ others.T) / 2
        nearest = different.argmin(axis=1)
        for i in np.flatnonzero(different.min(axis=1) <= MAX_DIFFERENT):
            yield start + int(i), int(nearest[i])
