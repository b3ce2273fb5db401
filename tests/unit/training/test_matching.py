"""Detections are matched with objects as Ultralytics does it."""

import numpy as np
import pytest

from job.training.evaluation_record import ObjectBox, PredictedBox
from job.training.matching import IOUS, box_iou, confused_objects, confused_pairs, match


def boxes(*corners):
    """Return boxes as an array."""
    return np.array(corners, float).reshape(-1, 4)


def test_the_most_confident_detection_takes_the_object_it_overlaps_most():
    """A less confident one that overlaps it more is a false alarm, or right about the next object."""
    objects = boxes((0, 0, 10, 10), (6, 0, 16, 10))
    detections = boxes((2, 0, 12, 10), (0, 0, 10, 10), (6, 0, 16, 10))
    assert match(objects, np.zeros(2), detections, np.zeros(3)).tolist() == [[0], [-1], [1]]


def test_an_object_is_found_once_and_by_its_class_alone():
    """Of two equal detections one is right, and one of another class is not."""
    objects = boxes((0, 0, 10, 10))
    detections = boxes(*[(0, 0, 10, 10)] * 3)
    assert match(objects, np.array([1]), detections, np.array([0, 1, 1])).tolist() == [[-1], [0], [-1]]


def test_each_overlap_is_matched_by_itself():
    """A box that covers three quarters of an object is right up to an overlap of 0.75."""
    (found,) = match(boxes((0, 0, 10, 10)), np.zeros(1), boxes((0, 0, 10, 7.5)), np.zeros(1), IOUS)
    assert found.tolist() == [0] * 6 + [-1] * 4


@pytest.mark.parametrize(("num_objects", "num_detections"), [(0, 2), (2, 0), (0, 0)])
def test_without_objects_or_detections_nothing_is_right(num_objects, num_detections):
    """A picture may have neither."""
    about = np.zeros((num_objects, 4)), np.zeros(num_objects), np.zeros((num_detections, 4)), np.zeros(num_detections)
    found = match(*about)
    assert found.tolist() == [[-1]] * num_detections


def test_a_false_alarm_on_a_missed_object_is_about_it():
    """A confusion pairs a wrong detection with a missed object; no object or detection is in two pairs."""
    objects = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    detections = boxes((0, 0, 10, 10), (0, 0, 10, 9), (20, 0, 30, 10), (60, 0, 70, 10), (40, 0, 50, 10))
    found, right = np.array([False, True, False]), np.array([False, False, False, False, True])
    classes = np.zeros(3), np.array([1, 1, 1, 1, 0])
    about = confused_objects(objects, classes[0], detections, classes[1], found=found, right=right)
    assert about.tolist() == [0, -1, -1, -1, -1]


def test_a_false_alarm_of_an_objects_own_class_is_no_confusion():
    """At the edge of a picture the recorded corners, which end there, can overlap more than those that were matched."""
    zebra, ostrich = 0, 1
    missed = ObjectBox(0.5, 0.5, 1.0, 1.0, zebra, 0)
    alarms = [
        PredictedBox(0.5, 0.5, 1.0, 1.0, name, 0, confidence) for name, confidence in [(zebra, 0.9), (ostrich, 0.8)]
    ]
    assert confused_pairs([missed], alarms) == {1: 0}


def test_it_is_the_rule_of_ultralytics(confined):
    """In 200 crowded pictures the same detections are right at each of the ten overlaps."""
    import torch  # noqa: PLC0415 -- seconds that only this test needs
    from ultralytics.models.yolo.detect import DetectionValidator  # noqa: PLC0415 -- once Ultralytics is confined
    from ultralytics.utils import metrics  # noqa: PLC0415 -- once Ultralytics is confined

    validator = DetectionValidator(args={"save_dir": str(confined)})
    rng = np.random.default_rng(0)
    for _ in range(200):
        corners = rng.uniform(0, 30, (2, rng.integers(1, 20), 2)).astype(np.float32)
        objects, detections = (
            np.concatenate([corner, corner + rng.uniform(5, 15, corner.shape)], 1) for corner in corners
        )
        classes = rng.integers(0, 2, (2, len(objects))).astype(np.float32)
        theirs = metrics.box_iou(torch.from_numpy(objects), torch.from_numpy(detections))
        assert np.array_equal(box_iou(objects, detections), theirs.numpy())
        right = validator.match_predictions(torch.from_numpy(classes[1]), torch.from_numpy(classes[0]), theirs)
        assert np.array_equal(match(objects, classes[0], detections, classes[1], IOUS) >= 0, right.numpy())
