"""Labels of checked images are those that Ultralytics reads itself."""

import random

import numpy as np
import pytest
import yaml

from job.datasets.check import check_dataset
from tests.support.tiny_dataset import make_tiny_dataset

BOX = "1 0.25 0.5 0.125 0.0625\n"

LABELS = {
    "boxes": BOX + "0 0.1234567890123 1 0.3333333333333333 1e-3\n",
    "empty": "",
    "blank": " \n\t\n\n",
    "a mark of its encoding": f"\ufeff{BOX}",
    "ends of lines of Windows": BOX.replace("\n", "\r\n") * 1 + "0 .5 .5 .1 .1\r\n",
    "rows more than once": BOX + BOX + "0 0.5 0.5 0.1 0.1\n",
    "rows that are equal as numbers": "0 0.5 0.5 0.1 0.1\n0 0.50 5e-1 0.1 0.1\n",
    "rows that are equal as float32": "0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.100000000001\n",
    "a zero below zero": "0 0.5 -0.0 0.1 0.1\n0 0.5 0.0 0.1 0.1\n",
    "a hair outside": "0 1.005 0.5 0.1 0.1\n",
    "a hair below": "0 -0.005 0.5 0.1 0.1\n",
    "outside": "0 1.5 0.5 0.1 0.1\n",
    "a class too many": "2 0.5 0.5 0.1 0.1\n",
    "half a class": "0.5 0.5 0.5 0.1 0.1\n",
    "a class below zero": "-1 0.5 0.5 0.1 0.1\n",
    "a polygon": "0 0.1 0.1 0.2 0.1 0.2 0.2\n",
    "a polygon and a box": BOX + "0 0.1 0.1 0.2 0.1 0.2 0.2\n",
    "key points": "0 0.5 0.5 0.1 0.1 0.4 0.4 2\n",
    "four columns": "0 0.5 0.5 0.1\n",
    "six columns": "0 0.5 0.5 0.1 0.1 0.9\n",
    "no numbers": "zebra 0.5 0.5 0.1 0.1\n",
    "not a number": "0 nan 0.5 0.1 0.1\n",
    "not a number, in the middle": "0 0.5 nan 0.1 0.1\n",
    "not a number, at the end": "0 0.5 0.5 0.1 nan\n",
    "a class that is no number": "nan 0.5 0.5 0.1 0.1\n",
    "without end": "0 inf 0.5 0.1 0.1\n",
    "numbers with marks": "0 0_1 0.5 0.1 0.1\n",
    "no UTF-8": b"0 0.5 0.5 0.1 0.1 \xff\n",
    "absent": None,
}


@pytest.fixture
def image(confined, tmp_path):
    """An image whose label is to be written."""
    return make_tiny_dataset(tmp_path / "data") / "images/train/001.jpg"


def both_scans(image, content, *, has_keypoints=False, single=False, keypoints=(0, 0)):
    """Return what Ultralytics finds in a label, and what is found where the image is known."""
    from ultralytics.data import dataset, utils  # noqa: PLC0415 -- Ultralytics is confined first

    from job.training.label_scan import known_shapes  # noqa: PLC0415 -- imports Ultralytics

    label = image.parents[2] / "labels/train/001.txt"
    label.unlink()
    if content is not None:
        label.write_bytes(content if isinstance(content, bytes) else content.encode())
    words = (str(image), str(label), "train: ", has_keypoints, 2, *keypoints, single)
    with dataset.ThreadPool(1) as pool:
        (theirs,) = pool.imap(func=utils.verify_image_label, iterable=iter([words]))
    with known_shapes({str(image): (64, 64)}), dataset.ThreadPool(1) as pool:
        (ours,) = pool.imap(func=utils.verify_image_label, iterable=iter([words]))
    return list(theirs), list(ours)


def assert_equal(theirs, ours):
    """Compare scans of a label: arrays by bits, and by type."""
    for one, other in zip(theirs, ours, strict=True):
        if isinstance(one, np.ndarray):
            assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        elif isinstance(one, list):
            assert [each.tolist() for each in one] == [each.tolist() for each in other]
        else:
            assert one == other


@pytest.mark.parametrize("content", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("options", [{}, {"single": True}, {"keypoints": (1, 3)}], ids=["", "single", "key points"])
def test_labels_are_those_that_ultralytics_reads(image, content, options):
    """Boxes, counts and messages of each kind of label are the same, bit for bit, whether it passes or is refused."""
    assert_equal(*both_scans(image, content, **options))


def test_labels_of_a_pose_training_are_left_to_ultralytics(image):
    """A task with key points reads them itself."""
    assert_equal(*both_scans(image, LABELS["key points"], has_keypoints=True, keypoints=(1, 3)))


def test_numbers_are_rounded_as_ultralytics_rounds_them(image):
    """Thousands of boxes with digits of any number are the same bits."""
    draw = random.Random(0)  # noqa: S311 -- not for secrets
    rows = [
        f"{draw.randrange(2)} " + " ".join(f"{draw.random():.{draw.randrange(1, 20)}g}" for _ in range(4))
        for _ in range(5000)
    ]
    theirs, ours = both_scans(image, "\n".join(rows))
    assert ours[1].shape == (5000, 5)
    assert_equal(theirs, ours)


@pytest.mark.parametrize("augment", [True, False])
def test_a_dataset_has_the_labels_of_ultralytics_and_opens_no_image(confined, tmp_path, monkeypatch, augment):
    """A split whose images are known has the labels of the stock scan, and the same cache of them is read later."""
    from ultralytics.data import utils  # noqa: PLC0415 -- Ultralytics is confined first
    from ultralytics.data.build import build_yolo_dataset  # noqa: PLC0415 -- Ultralytics is confined first
    from ultralytics.utils import DEFAULT_CFG  # noqa: PLC0415 -- Ultralytics is confined first

    from job.training.label_scan import known_shapes  # noqa: PLC0415 -- imports Ultralytics

    folder = make_tiny_dataset(tmp_path / "data")
    (folder / "labels/train/002.txt").write_text("")
    (folder / "labels/train/003.txt").unlink()
    (folder / "labels/train/004.txt").write_text(BOX + BOX)
    data = yaml.safe_load((folder / "data.yaml").read_text()) | {"names": {0: "a", 1: "b"}, "channels": 3}
    mode = "train" if augment else "val"
    cache = folder / "labels/train.cache"

    def build():
        return build_yolo_dataset(DEFAULT_CFG, str(folder / "images/train"), 2, data, mode=mode, rect=False)

    theirs = build()
    cache.unlink()
    shapes = {f"{folder}/{image}": shape for image, shape in check_dataset(folder).shapes.items()}
    opened = []
    check_image = utils.check_image
    monkeypatch.setattr(utils, "check_image", lambda image: opened.append(image) or check_image(image))
    with known_shapes(shapes):
        ours = build()
    assert {image.rpartition("/")[2] for image in opened} == {"003.jpg", "004.jpg"}  # those that are left to it
    later = build()
    assert len(opened) == 2
    for other in (ours, later):
        assert other.im_files == theirs.im_files
        for one, found in zip(theirs.labels, other.labels, strict=True):
            assert_equal(one.values(), found.values())


@pytest.mark.parametrize("content", ["0 0.5 0.5 0.1 0.1\n", ""])
def test_plain_boxes_are_read_here(confined, tmp_path, content):
    """Boxes, and labels without any, are those that are not left to Ultralytics."""
    from job.training.label_scan import read_boxes  # noqa: PLC0415 -- imports Ultralytics

    (tmp_path / "a.txt").write_text(content)
    assert read_boxes(str(tmp_path / "a.txt"), 1).shape == (content.count("\n"), 5)
