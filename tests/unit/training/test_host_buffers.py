"""Memory of snapshots: kept, and taken again only once it is free."""

import io

import pytest
import torch

from job.training.host_buffers import HostBuffers, mapped


@pytest.fixture
def buffers():
    """Buffers of a machine without a GPU."""
    return HostBuffers(pinned=False)


def tree_of(seed):
    """Return a tree with a tensor of each kind that a training state has."""
    torch.manual_seed(seed)
    return {
        "weights": torch.rand(3, 4, 5, 6).to(memory_format=torch.channels_last),
        "moments": [{"step": torch.tensor(3.0 + seed), "half": torch.rand(7).half()}],
        "turned": torch.rand(4, 6).t(),
        "part": torch.rand(6, 6)[::2, 1:4],
        "flags": (torch.rand(5) > 0.5, torch.arange(3)),
        "nothing": torch.empty(0, 4),
        "plain": {"name": "AdamW", "lr": 0.01, "none": None},
    }


def saved(tree):
    """Return the file that a tree is saved as."""
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def addresses(tree):
    """Return where the tensors with values lie."""
    found = []
    mapped(lambda tensor: found.append(tensor.data_ptr()) if tensor.numel() else None, tree)
    return found


def test_a_copy_is_saved_as_one_into_new_memory(buffers):
    """Values, types, shapes and strides are those of copies by torch, and each tensor has a storage of its own."""
    tree = tree_of(0)
    assert saved(buffers.copy(tree)) == saved(mapped(lambda tensor: tensor.to("cpu", copy=True), tree))


def test_memory_is_taken_again_once_the_last_tensor_is_gone(buffers):
    """A copy of which one tensor is still held keeps its memory; then the next copy lies there."""
    first = buffers.copy(tree_of(0))
    held, places = first.pop("weights"), addresses(first)
    expected = held.clone()
    del first
    second = buffers.copy(tree_of(1))
    assert torch.equal(held, expected)
    assert not set(addresses(second)) & set(places)
    del held
    third = buffers.copy(tree_of(2))
    assert places[0] in addresses(third)
    assert saved(third) == saved(tree_of(2) | {"part": tree_of(2)["part"].clone()})


def test_a_larger_tree_takes_larger_memory(buffers):
    """Memory that is too small is given up."""
    buffers.copy({"weights": torch.rand(8)})
    larger = torch.rand(8000)
    assert torch.equal(buffers.copy([larger])[0], larger)
    assert buffers.copy({}) == {}


def test_a_copy_does_not_follow_what_it_copies(buffers):
    """Training goes on in the tensors themselves."""
    weights = torch.ones(5, requires_grad=True)
    copy = buffers.copy([weights])[0]
    with torch.no_grad():
        weights += 1
    assert (copy.tolist(), copy.requires_grad) == ([1.0] * 5, False)
