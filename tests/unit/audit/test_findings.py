"""What is doubtful about the labels of an image, and in which order."""

import pytest

from job.audit.findings import Kind, Label, find_in_image, ranked
from job.training.evaluation_record import Detection

SIZE = (200, 100)

ZEBRA, OSTRICH = 0, 1


def label(category, left, top, side=10, line=1):
    """Return the label of a square."""
    return Label(category, (left, top, left + side, top + side), line)


def seen(category, confidence, left, top, side=10):
    """Return the detection of a square."""
    return Detection(category, confidence, left, top, left + side, top + side)


def find(labels, detections, threshold=0.5):
    """Return the findings in an image, ranked."""
    detections = sorted(detections, key=lambda found: -found.confidence)
    areas = [(each.category, (each.box[2] - each.box[0]) * (each.box[3] - each.box[1])) for each in labels]
    return ranked(find_in_image("a.jpg", SIZE, labels, detections, threshold), areas)


def test_labels_that_the_model_confirms_are_not_in_doubt():
    """A label with a close detection of its class is no finding, whatever else is seen there."""
    labels = [label(ZEBRA, 10, 10), label(OSTRICH, 50, 10)]
    assert find(labels, [seen(ZEBRA, 0.9, 10, 11), seen(OSTRICH, 0.8, 51, 10), seen(OSTRICH, 0.6, 10, 10)]) == []
    assert find([], []) == []


def test_a_confident_detection_without_a_label_is_a_missing_label():
    """It is found once, with the most confident class, and scored by its confidence."""
    (found,) = find(
        [label(ZEBRA, 10, 10)], [seen(ZEBRA, 0.9, 10, 10), seen(OSTRICH, 0.8, 90, 20), seen(ZEBRA, 0.7, 91, 20)]
    )
    assert (found.kind, found.score, found.category, found.label) == (Kind.MISSING_LABEL, 0.8, OSTRICH, None)
    assert found.box == (90, 20, 100, 30)


def test_a_detection_below_the_threshold_is_no_evidence():
    """It contradicts no label and adds none, but a label that it overlaps was found."""
    assert find([label(ZEBRA, 10, 10)], [seen(ZEBRA, 0.1, 10, 10), seen(ZEBRA, 0.4, 90, 20)]) == []


def test_a_detection_of_another_class_on_a_label_is_a_wrong_class():
    """The score is what its confidence is above that of the label's own class there."""
    (found,) = find([label(ZEBRA, 10, 10, line=3)], [seen(OSTRICH, 0.9, 10, 10), seen(ZEBRA, 0.2, 10, 11)])
    assert (found.kind, found.score, found.category) == (Kind.WRONG_CLASS, 0.7, OSTRICH)
    assert (found.label.category, found.label.line) == (ZEBRA, 3)


def test_a_label_beside_its_object_is_a_doubtful_box():
    """It is found whether or not it is close enough to count as found, and scored by confidence and distance."""
    (near,) = find([label(ZEBRA, 10, 10)], [seen(ZEBRA, 0.9, 13, 10)])
    (far,) = find([label(ZEBRA, 10, 10)], [seen(ZEBRA, 0.9, 15, 10)])
    assert (near.kind, far.kind) == (Kind.DOUBTFUL_BOX, Kind.DOUBTFUL_BOX)
    assert near.score == pytest.approx(0.9 * (1 - 70 / 130), abs=1e-3)
    assert far.score == pytest.approx(0.9 * (1 - 50 / 150), abs=1e-3)


def test_a_label_that_nothing_overlaps_was_never_found():
    """Its box and class are its own, and of several the larger of a class comes first."""
    small, large = label(ZEBRA, 10, 10, 5, line=1), label(ZEBRA, 50, 10, 20, line=2)
    found = find([small, large], [seen(ZEBRA, 0.2, 100, 50)])
    assert [(each.kind, each.label, each.box, each.score) for each in found] == [
        (Kind.NEVER_FOUND, large, large.box, 0.5),
        (Kind.NEVER_FOUND, small, small.box, 0.0),
    ]


def test_missing_labels_and_wrong_classes_come_first():
    """These two are in one order by score, before doubtful boxes and labels that were never found."""
    labels = [label(ZEBRA, 10, 10), label(ZEBRA, 50, 10), label(ZEBRA, 90, 10)]
    detections = [
        *(seen(OSTRICH, 0.8, 10, 10), seen(ZEBRA, 0.95, 54, 10)),
        *(seen(ZEBRA, 0.9, 150, 10), seen(ZEBRA, 0.7, 150, 60)),
    ]
    assert [(each.kind, each.score) for each in find(labels, detections)][:3] == [
        (Kind.MISSING_LABEL, 0.9),
        (Kind.WRONG_CLASS, 0.8),
        (Kind.MISSING_LABEL, 0.7),
    ]
    assert [each.kind for each in find(labels, detections)][3:] == [Kind.DOUBTFUL_BOX, Kind.NEVER_FOUND]
