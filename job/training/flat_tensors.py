"""Flat tensors: many tensors side by side in a few buffers, which are written and read as wholes.

Guarantees that a tensor comes back with its values, type, shape and strides. A file of ``torch.save`` costs as much for
a tensor of one number as for one of a million, and all of it while no other thread runs Python.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from job.training.checkpoint_file import MAX_DIMENSIONS

BUFFER_BYTES = 1 << 26
"""Least size of a full buffer: memory comes and goes in pieces, between which other threads run."""

PLACE = "place in buffer"
"""Key of the dictionary that stands for a tensor in a packed tree: its buffer, offset, shape and strides."""


def side_by_side(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors on the CPU with the types, shapes and strides of others, in memory that is not written yet."""
    made: dict[int, torch.Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        waiting, size = list[int](), 0
        numbers = [number for number, tensor in enumerate(tensors) if tensor.dtype == dtype]
        for number in numbers:
            waiting.append(number)
            size += tensors[number].numel()
            if size * dtype.itemsize < BUFFER_BYTES and number != numbers[-1]:
                continue
            # Of torch, not of numpy, which asks for huge pages: where memory is in pieces, the kernel first moves it.
            buffer = torch.empty(size, dtype=dtype)
            for part, like in zip(buffer.split([tensors[i].numel() for i in waiting]), waiting, strict=True):
                made[like] = _shaped(part, tensors[like])
            waiting, size = [], 0
    return [made[number] for number in range(len(tensors))]


def _shaped(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a part of a buffer as a tensor with the shape of another one, and the strides that its copy would have."""
    if like.is_contiguous() and not like.is_contiguous(memory_format=torch.channels_last):
        return part.view(like.shape)
    # A 1 x 1 convolution in channels-last is contiguous in both formats.
    return part.as_strided(like.shape, torch.empty_like(like, device="meta").stride())


def packed(tree: Any) -> dict[str, Any]:  # noqa: ANN401 -- a tree of tensors and plain values
    """Return a tree in which places stand for the tensors that share their memory with others, and the buffers."""
    numbers: dict[int, int] = {}
    buffers: list[torch.Tensor] = []

    def place(tensor: torch.Tensor) -> object:
        storage = tensor.untyped_storage()
        if storage.nbytes() == tensor.nbytes:
            return tensor
        number = numbers.setdefault(storage.data_ptr(), len(buffers))
        if number == len(buffers):
            buffers.append(torch.empty(0, dtype=tensor.dtype).set_(storage))
        return {PLACE: (number, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())}

    return {"tree": mapped(place, tree), "buffers": buffers}


def unpacked(content: dict[str, Any]) -> Any:  # noqa: ANN401 -- a tree of tensors and plain values
    """Return the tree that was packed, each tensor in memory of its own, and together in no more than the buffers have.

    Raises `KeyError`, `TypeError`, `ValueError`, `IndexError` or `RuntimeError` if the content is not as packed.
    """
    buffers = _Buffers(content["buffers"])
    made: dict[int, Any] = {}

    def restored(tree: Any) -> Any:  # noqa: ANN401 -- a tree of places and plain values
        if not isinstance(tree, dict | list | tuple):
            return tree
        if id(tree) not in made:  # else a file of some bytes could nest what it repeats without end
            if not isinstance(tree, dict):
                made[id(tree)] = type(tree)(restored(entry) for entry in tree)
            elif tree.keys() == {PLACE}:
                made[id(tree)] = buffers.take(*tree[PLACE])
            else:
                made[id(tree)] = {name: restored(entry) for name, entry in tree.items()}
        return made[id(tree)]

    return restored(content["tree"])


class _Buffers:
    """Buffers of a file, of which each number is taken once at most."""

    def __init__(self, buffers: list[torch.Tensor]) -> None:
        if not isinstance(buffers, list) or not all(map(torch.is_tensor, buffers)):
            raise TypeError("its buffers are no tensors")
        if len({buffer.untyped_storage().data_ptr() for buffer in buffers}) < len(buffers):
            raise ValueError("its buffers are the same")
        self._buffers, self._left = buffers, [buffer.numel() for buffer in buffers]

    def take(self, number: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """Return a copy of the tensor at a place."""
        numbers = (number, offset, *shape, *strides)
        if len(shape) > MAX_DIMENSIONS or not all(type(each) is int and each >= 0 for each in numbers):
            raise ValueError("it has a tensor without a place")
        self._left[number] -= math.prod(shape)
        if self._left[number] < 0:
            raise ValueError("its tensors are larger than their buffer")
        return self._buffers[number].as_strided(shape, strides, offset).clone()


def mapped(function: Callable[[torch.Tensor], object], tree: Any) -> Any:  # noqa: ANN401 -- a tree of tensors and plain values
    """Return a tree with the results of a function in place of its tensors."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: mapped(function, entry) for name, entry in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(function, entry) for entry in tree)
    return tree
