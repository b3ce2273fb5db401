"""Keyed random streams for Ultralytics' augmentation: one key for each sample.

Guarantees that draws depend on the key alone, once `patch_ultralytics` is called. Stock Ultralytics draws from the
streams of the whole process, where other threads draw as well: the upload of a checkpoint takes the boundary of its
request from there.
"""

import hashlib
import random

import numpy as np

PYTHON = random.Random()  # noqa: S311 -- not for secrets
NUMPY = np.random.RandomState()


def key(*parts: str | int) -> int:
    """Return a 64-bit key that depends on the parts only."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def start_streams(*parts: str | int) -> None:
    """Seed the streams of augmentation with a key."""
    number = key(*parts)
    PYTHON.seed(number)
    NUMPY.seed(number % 2**32)


def generator(*parts: str | int) -> np.random.Generator:
    """Return a separate generator, seeded with a key."""
    return np.random.Generator(np.random.PCG64(key(*parts)))
