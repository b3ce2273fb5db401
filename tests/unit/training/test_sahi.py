"""Tiles, what is visible in them, and merging of detections, beside SAHI, an independent library."""

import numpy as np
import pytest

from job.training.tiles import Tile, tiles_of, visible_boxes

slicing = pytest.importorskip("sahi.slicing", reason="sahi is not installed; make test installs it")
coco = pytest.importorskip("sahi.utils.coco")
combine = pytest.importorskip("sahi.postprocess.combine")
backends = pytest.importorskip("sahi.postprocess.backends")

NUM_CASES = 1000


def test_tiles_are_those_of_sahi():
    """Of a thousand pictures the tiles are SAHI's slices, in its order."""
    random = np.random.default_rng(0)
    for _ in range(NUM_CASES):
        height, width, size = [*random.integers(1, 3000, 2).tolist(), int(random.integers(32, 1400))]
        overlap = random.uniform(0, 0.9)
        slices = slicing.get_slice_bboxes(height, width, size, size, False, overlap, overlap)  # noqa: FBT003 -- as SAHI has it
        assert tiles_of(height, width, size, overlap) == [tuple(corners) for corners in slices]


def test_visible_boxes_are_those_of_sahi():
    """Of a thousand tiles with boxes the visible ones and what is left of them are SAHI's."""
    # It counts areas in whole pixels, rounded down, so the boxes end at whole pixels. With a share of 0 it also keeps
    # a box of which nothing is left after that.
    random = np.random.default_rng(0)
    num_kept = num_clipped = 0
    for _ in range(NUM_CASES):
        corners, sizes = random.integers(0, 200, (12, 2)), random.integers(1, 60, (12, 2))
        boxes = np.hstack([corners, corners + sizes])
        left, top = random.integers(0, 150, 2).tolist()
        tile, visible = Tile(left, top, left + 64, top + 64), random.uniform(0.01, 1)
        kept, clipped = visible_boxes(boxes, tile, visible)
        annotations = [
            coco.CocoAnnotation(bbox=[*corner.tolist(), *size.tolist()], category_id=number, category_name="")
            for number, (corner, size) in enumerate(zip(corners, sizes, strict=True))
        ]
        theirs = slicing.process_coco_annotations(annotations, list(tile), visible)
        assert kept.tolist() == [annotation.category_id for annotation in theirs]
        found = np.hstack([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]])
        assert found.tolist() == [annotation.bbox for annotation in theirs]
        num_kept, num_clipped = (
            num_kept + len(kept),
            num_clipped + int((found != np.hstack([corners - [left, top], sizes])[kept]).any(1).sum()),
        )
    assert num_kept > num_clipped > 500


@pytest.fixture(scope="module")
def tiled():
    """The module; it imports torch."""
    backends.set_postprocess_backend("numpy")  # by nothing that torchvision has
    from job.training import tiled_detection  # noqa: PLC0415 -- seconds that only some tests need

    return tiled_detection


def cases():
    """Yield detections as SAHI takes them: corners, confidence and class; many overlap."""
    random = np.random.default_rng(0)
    for _ in range(NUM_CASES):
        number = int(random.integers(0, 25))
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
        assert kept == combine.batched_nms(found, "IOU", tiled.MERGE_IOU)
        num_dropped += len(found) - len(kept)
    assert num_dropped > NUM_CASES


def test_cut_boxes_are_merged_as_by_sahi(tiled):
    """Boxes that borders cut are merged by class as SAHI's suppression by intersection over the smaller merges them."""
    for found, _ in cases():
        assert merged(tiled, found, np.ones(len(found), bool)) == combine.batched_nms(found, "IOS", tiled.MERGE_SHARE)


def test_the_difference_to_sahi_is_that_a_piece_suppresses_no_whole_box(tiled):
    """Where SAHI applies one measure to all boxes, whole boxes are merged by IoU first, and a piece is kept only if it
    is in none of them.
    """
    # By the share of the smaller alone, SAHI's default, a calf beside its mother is lost, and an animal as a whole to a
    # more confident piece of it.
    num_different = 0
    for found, random in cases():
        cut = random.random(len(found)) < 0.4
        entire, pieces = np.flatnonzero(~cut), np.flatnonzero(cut)
        whole = entire[combine.batched_nms(found[entire], "IOU", tiled.MERGE_IOU)]
        others = [
            piece for piece in pieces if not any(suppresses(found[other], found[piece], tiled) for other in whole)
        ]
        expected = {
            *whole.tolist(),
            *np.array(others, int)[combine.batched_nms(found[others], "IOS", tiled.MERGE_SHARE)].tolist(),
        }
        kept = merged(tiled, found, cut)
        assert set(kept) == expected
        assert kept == sorted(kept, key=lambda index, found=found: -found[index, 4])
        num_different += set(kept) != set(combine.batched_nms(found, "IOS", tiled.MERGE_SHARE))
    assert num_different > NUM_CASES / 2


def suppresses(whole, piece, tiled):
    """Whether by SAHI a piece is part of a whole box, were that the more confident one."""
    pair = np.array([[*whole[:4], 1.0], [*piece[:4], 0.0]])
    return whole[5] == piece[5] and len(combine.nms(pair, "IOS", tiled.MERGE_SHARE)) == 1
