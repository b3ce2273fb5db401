"""Host buffers: memory of the CPU that is kept from one snapshot to the next, pinned where a GPU copies into it.

Guarantees that the memory of a copy is taken again only once the last of its tensors is gone. New memory would cost a
page fault for each 4 kB while training waits, and a GPU could copy into it only piece by piece.
"""

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

ALIGNMENT = 64
"""Bytes, as torch aligns its own memory."""


class HostBuffers:
    """Buffers of one size or larger, as many as there are copies at a time."""

    def __init__(self, *, pinned: bool) -> None:
        """Take memory with the first copy; `pinned` needs a GPU."""
        self._pinned = pinned
        self._free: list[torch.Tensor] = []

    def copy(self, tree: Any) -> Any:  # noqa: ANN401 -- a tree of tensors and plain values
        """Return a tree with copies on the CPU in place of its tensors, with their strides."""
        tensors: list[torch.Tensor] = []
        mapped(tensors.append, tree)
        ends = np.cumsum([_aligned(tensor.nbytes) for tensor in tensors]).tolist()
        memory = self._take(ends[-1] if ends else 0)
        places = iter([0, *ends])

        def copied(tensor: torch.Tensor) -> torch.Tensor:
            return _view(memory, next(places), tensor).copy_(tensor.detach(), non_blocking=self._pinned)

        copies = mapped(copied, tree)
        if self._pinned:
            torch.cuda.synchronize()
        return copies

    def _take(self, num_bytes: int) -> np.ndarray:
        """Return free or new memory, which is free again once no tensor refers to it."""
        memory = self._free.pop() if self._free else torch.empty(0, dtype=torch.uint8)
        if memory.nbytes < num_bytes:
            memory = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self._pinned)
        taken = memory.numpy()[:]
        weakref.finalize(taken, self._free.append, memory).atexit = False
        return taken


def mapped(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:  # noqa: ANN401 -- a tree of tensors and plain values
    """Return a tree with the results of a function in place of its tensors."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: mapped(function, entry) for name, entry in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(function, entry) for entry in tree)
    return tree


def _aligned(num_bytes: int) -> int:
    return math.ceil(num_bytes / ALIGNMENT) * ALIGNMENT


def _view(memory: np.ndarray, place: int, tensor: torch.Tensor) -> torch.Tensor:
    """Return memory from a place on as a tensor of the same kind, which has a storage of its own."""
    strides = torch.empty_like(tensor, device="meta").stride()  # dense, as `to` would copy it
    if not tensor.numel():
        return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype)
    return torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=place).as_strided(
        tensor.shape, strides
    )
