"""Flat tensors: the same tensors, in a few buffers."""

import pytest
import torch

from job.training import flat_tensors
from job.training.flat_tensors import packed, side_by_side, unpacked


@pytest.fixture
def tensors():
    """Tensors of several types, shapes and strides."""
    return [
        torch.arange(6.0).reshape(2, 3),
        torch.rand(4, 6).t(),
        torch.tensor(7),
        torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.rand(8, 4, 1, 1).to(memory_format=torch.channels_last),
        torch.rand(8, 1, 3, 3).to(memory_format=torch.channels_last),
        torch.rand(3).half(),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.rand(8, 8)[::2, ::2],
        torch.tensor(3),
    ]


def copied(tensors):
    """Return copies of tensors that lie side by side."""
    places = side_by_side(tensors)
    torch._foreach_copy_(places, tensors)
    return places


def test_places_have_types_shapes_and_strides_and_share_a_buffer_for_each_type(tensors):
    """Copies in the places have the values; one with gaps between its numbers has none there."""
    places = copied(tensors)
    for place, tensor in zip(places, tensors, strict=True):
        assert torch.equal(place, tensor)
        assert place.dtype == tensor.dtype
    assert [place.stride() for place in places] == [tensor.clone().stride() for tensor in tensors]
    assert places[5].stride() != torch.rand(8, 1, 3, 3).stride()
    memory = {(place.dtype, place.untyped_storage().data_ptr()) for place in places}
    assert len(memory) == len({tensor.dtype for tensor in tensors})


def test_a_buffer_ends_once_it_is_large_enough(monkeypatch):
    """Memory can be given back in pieces, and a tensor is never in two of them."""
    monkeypatch.setattr(flat_tensors, "BUFFER_BYTES", 100)
    places = side_by_side([torch.rand(size) for size in (20, 10, 1, 60, 3)])
    buffers = [place.untyped_storage().data_ptr() for place in places]
    assert buffers[0] == buffers[1] != buffers[2] == buffers[3] != buffers[4]


def test_a_tree_comes_back_from_a_file(tensors, tmp_path):
    """Packed, saved, loaded and unpacked, each tensor has its values, type and strides, in memory of its own; plain
    values are what they were.
    """
    plain = {"rate": 0.1, "betas": (0.9, 0.999), 3: [None, "text"], "alone": torch.rand(5)}
    tree = {"tensors": dict(enumerate(copied(tensors))), **plain}
    torch.save(packed(tree), tmp_path / "file")
    loaded = unpacked(torch.load(tmp_path / "file", weights_only=True))
    assert list(loaded) == list(tree)
    assert torch.equal(loaded.pop("alone"), plain.pop("alone"))
    for number, tensor in loaded.pop("tensors").items():
        place = tree["tensors"][number]
        assert torch.equal(tensor, place)
        assert (tensor.dtype, tensor.stride()) == (place.dtype, place.stride())
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert loaded == plain


def test_a_file_has_as_many_tensors_as_buffers(tensors):
    """Of tensors that share memory none is left in the tree; one that has its own is."""
    content = packed({"tensors": copied(tensors), "alone": torch.rand(5)})
    assert [buffer.dtype for buffer in content["buffers"]] == [torch.float32, torch.int64]
    assert torch.is_tensor(content["tree"]["alone"])


@pytest.mark.parametrize(
    "place",
    [
        (1, 0, (2,), (1,)),
        (0, 99, (2,), (1,)),
        (0, -1, (2,), (1,)),
        (0, 0, (9,), (1,)),
        (0, 0, (10**12,), (0,)),
        (0, 0, (2,), (1, 1)),
        (-1, 0, (2,), (1,)),
        (0, 0, (1,) * 9, (1,) * 9),
        (0, 0, (torch.tensor(64, dtype=torch.int8),) * 2, (0, 0)),
        (0, 0),
        None,
    ],
)
def test_a_place_that_is_none_is_refused(place):
    """A buffer that is not there, and a tensor beyond its end, or larger than it by any trick, are errors."""
    content = {"tree": {"a": {flat_tensors.PLACE: place}}, "buffers": [torch.rand(8)]}
    with pytest.raises((IndexError, KeyError, RuntimeError, TypeError, ValueError)):
        unpacked(content)


def test_buffers_that_are_the_same_are_refused():
    """A file has a tensor once that it names a thousand times."""
    buffer = torch.rand(8)
    with pytest.raises(ValueError, match="buffers are the same"):
        unpacked({"tree": {}, "buffers": [buffer, buffer]})


def test_what_a_tree_repeats_is_made_once():
    """A list of the same list twice, sixty times over, is read as soon as it is written."""
    tree = []
    for _ in range(60):
        tree = [tree, tree]
    made = unpacked({"tree": tree, "buffers": []})
    assert made[0] is made[1]


def test_tensors_that_are_larger_together_than_their_buffer_are_refused():
    """Each place has its numbers for itself, so that a small file cannot fill the memory."""
    places = {name: {flat_tensors.PLACE: (0, 0, (3,), (1,))} for name in "abc"}
    with pytest.raises(ValueError, match="larger than their buffer"):
        unpacked({"tree": places, "buffers": [torch.rand(8)]})
