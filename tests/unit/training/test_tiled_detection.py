"""Merging of detections in tiles, beside that of SAHI, an independent library."""

import numpy as np
import pytest
from sahi.postprocess.backends import set_postprocess_backend
from sahi.postprocess.combine import batched_nms, nms

NUM_CASES = 1000


@pytest.fixture(scope="module")
def tiled():
    """The module; it imports torch."""
    set_postprocess_backend("numpy")  # by nothing that torchvision has
    from job.training import tiled_detection  # noqa: PLC0415 -- seconds that only some tests need

    return tiled_detection


def cases():
    """Yield detections as SAHI takes them: corners, confidence and class; many overlap."""
    random = np.random.default_rng(0)
    for _ in range(NUM_CASES):
        number = int(random.integers(0, 40))
        corners, sizes = random.uniform(0, 80, (number, 2)), random.uniform(2, 40, (number, 2))
        twins = random.integers(0, max(number, 1), number // 2)  # an object in two tiles differs by a little
        corners[: len(twins)] = corners[twins] + random.normal(0, 1, (len(twins), 2))
        sizes[: len(twins)] = sizes[twins]
        confidences = random.permutation(1000)[:number, None] / 1000  # no two are equal, so that the order is one
        yield np.hstack([corners, corners + sizes, confidences, random.integers(0, 3, (number, 1))]), random


def merged(tiled, found, cut):
    """Return what our merging keeps of detections."""
    import torch  # noqa: PLC0415 -- as the fixture

    boxes, confidences, classes = torch.tensor(found[:, :4]), torch.tensor(found[:, 4]), torch.tensor(found[:, 5])
    return tiled.merge(boxes, confidences, classes, torch.tensor(cut)).tolist()


def test_whole_boxes_are_merged_as_by_sahi(tiled):
    """Boxes that no border cuts are merged by class as SAHI's suppression by IoU merges them."""
    num_dropped = 0
    for found, _ in cases():
        kept = merged(tiled, found, np.zeros(len(found), bool))
        assert kept == batched_nms(found, "IOU", tiled.MERGE_IOU)
        num_dropped += len(found) - len(kept)
    assert num_dropped > NUM_CASES


def test_cut_boxes_are_merged_as_by_sahi(tiled):
    """Boxes that borders cut are merged by class as SAHI's suppression by intersection over the smaller merges them."""
    for found, _ in cases():
        assert merged(tiled, found, np.ones(len(found), bool)) == batched_nms(found, "IOS", tiled.MERGE_SHARE)


def test_the_difference_to_sahi_is_that_a_piece_suppresses_no_whole_box(tiled):
    """SAHI applies one measure to all boxes; here whole boxes are merged by IoU first, and by the share of the smaller
    a piece then has to be one of an object that is in none of them.

    By the share alone, as SAHI does by default, a calf beside its mother is lost, and an animal as a whole to a more
    confident piece of it.
    """
    num_different = 0
    for found, random in cases():
        cut = random.random(len(found)) < 0.4
        entire, pieces = np.flatnonzero(~cut), np.flatnonzero(cut)
        whole = entire[batched_nms(found[entire], "IOU", tiled.MERGE_IOU)]
        others = [
            piece for piece in pieces if not any(suppresses(found[other], found[piece], tiled) for other in whole)
        ]
        expected = {
            *whole.tolist(),
            *np.array(others, int)[batched_nms(found[others], "IOS", tiled.MERGE_SHARE)].tolist(),
        }
        kept = merged(tiled, found, cut)
        assert set(kept) == expected
        assert kept == sorted(kept, key=lambda index, found=found: -found[index, 4])
        num_different += set(kept) != set(batched_nms(found, "IOS", tiled.MERGE_SHARE))
    assert num_different > NUM_CASES / 2


def suppresses(whole, piece, tiled):
    """Whether by SAHI a piece is part of a whole box, were that the more confident one."""
    pair = np.array([[*whole[:4], 1.0], [*piece[:4], 0.0]])
    return whole[5] == piece[5] and len(nms(pair, "IOS", tiled.MERGE_SHARE)) == 1
