"""Random streams of our own for Ultralytics' augmentation, started from a key for each sample.

Guarantees that what is drawn depends on the key alone. Ultralytics draws from the streams that the whole process
shares, where other threads draw as well: the upload of a checkpoint takes the boundary of its request from there.
"""

import hashlib
import random
import types

import numpy as np
from ultralytics.data import augment
from ultralytics.models.yolo.detect import train as detect_train

_python = random.Random()  # noqa: S311  # not for secrets
_numpy = np.random.RandomState()


def key(*parts: str | int) -> int:
    """Return a 64-bit number that depends on the parts and on nothing else."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def start_streams(*parts: str | int) -> None:
    """Start the streams of augmentation from a key."""
    number = key(*parts)
    _python.seed(number)
    _numpy.seed(number % 2**32)


def generator(*parts: str | int) -> np.random.Generator:
    """Return a generator of its own that starts from a key."""
    return np.random.Generator(np.random.PCG64(key(*parts)))


def _divert_ultralytics() -> None:
    """Let the modules that make a sample find our streams under the names `random` and `np.random`."""
    numpy = types.ModuleType("numpy")
    vars(numpy).update(vars(np) | {"random": _numpy})
    augment.random, augment.np = _python, numpy
    detect_train.random = _python


_divert_ultralytics()
