"""Scores of detections whose figures are computed by hand, and their intervals."""

import numpy as np
import pytest

from job.analysis.bootstrap import Resamples, interval_estimate
from job.analysis.operating_point import MIN_OBJECTS, choose
from job.analysis.score import Counts, PictureErrors, Rates, ScoredSplit, average_precisions
from job.errors import RunConflictError, UsageError
from job.training.evaluation_record import PictureCounts
from tests.support.matched_pictures import picture

PICTURES = [
    picture("a.jpg", [(0, 10), (0, 40), (1, 20)], [(0, 0.9, 11, 0), (0, 0.6, 6, -1), (1, 0.8, 20, 2), (0, 0.2, 41, 1)]),
    picture("b.jpg", [(0, 12)], [(0, 0.7, 12, 0), (1, 0.7, 70, -1)]),
    picture("empty.jpg", [], [(0, 0.5, 9, -1), (0, 0.1, 9, -1)]),
    picture("calm.jpg"),
]
"""Above 0.3 there are two of three zebras and the one gnu, two false zebras and a false gnu."""


@pytest.fixture
def split():
    """The pictures, of two classes."""
    return ScoredSplit(PICTURES, ["zebra", "gnu"])


@pytest.fixture
def counts(split):
    """Their counts at 0.3."""
    return Counts.of(split.count(np.array([0.3, 0.3])), 2)


def test_precision_recall_and_f1_are_counts(split, counts):
    """They are the means over both classes, as Ultralytics has them, and F1 is the harmonic mean of the two."""
    total = split.total(counts)
    assert (total.num_objects, total.num_found, total.num_false_alarms) == (4, 3, 3)
    precision, recall = (2 / 4 + 1 / 2) / 2, (2 / 3 + 1 / 1) / 2
    assert total.precision.value == pytest.approx(precision, abs=1e-5)
    assert total.recall.value == pytest.approx(recall, abs=1e-5)
    assert total.f1.value == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)


def test_each_class_has_its_own_threshold(split):
    """At 0.65 for zebras alone, one of their false alarms in two pictures is gone, and no gnu."""
    counts = Counts.of(split.count(np.array([0.65, 0.3])), 2)
    zebra, gnu = (split.of_class(counts, number, 0.65, is_own=True) for number in range(2))
    assert (zebra.num_found, zebra.num_false_alarms, zebra.precision.value) == (2, 0, 1.0)
    assert (gnu.num_found, gnu.num_false_alarms, gnu.precision.value) == (1, 1, 0.5)


def test_errors_of_counts_are_those_of_whole_pictures(split, counts):
    """Of 3, 1, 0 and 0 objects 3, 2, 1 and 0 are counted; the one false alarm without an object is in two pictures."""
    errors = PictureErrors.of(split.resamples, counts)
    assert errors.count_bias.value == pytest.approx((0 + 1 + 1 + 0) / 4)
    assert errors.count_mae.value == pytest.approx(2 / 4)
    assert errors.false_alarms_per_empty.value == pytest.approx(1 / 2)
    zebra = split.of_class(counts, 0, 0.3, is_own=False)
    assert (zebra.count_bias.value, zebra.count_mae.value) == (pytest.approx(1 / 4), pytest.approx(1 / 4))


def test_sizes_are_those_of_objects_and_of_false_alarms(split):
    """In the file 10 and 12 px are of one range, 40 of another; at half of it they are of the ranges below."""
    in_file, at_imgsz = (split.by_size(np.array([0.3, 0.3]), unit) for unit in (0, 1))
    assert [(each.from_px, each.num_objects, each.num_found, each.num_false_alarms) for each in in_file] == [
        *((0, 0, 0, 1), (8, 2, 2, 1), (16, 1, 1, 0), (32, 1, 0, 0), (64, 0, 0, 1), (96, 0, 0, 0)),
    ]
    assert [(each.num_objects, each.num_found) for each in at_imgsz] == [(2, 2), (1, 1), (1, 0), *[(0, 0)] * 3]
    assert [each.recall.value for each in in_file] == [None, 1.0, 1.0, 0.0, None, None]


def test_a_split_without_objects_or_detections_has_no_figures():
    """What cannot be computed is none, and nothing fails."""
    split = ScoredSplit([picture("calm.jpg")] * 3, ["zebra"])
    counts = Counts.of(split.count(np.array([0.3])), 1)
    total, errors = split.total(counts), PictureErrors.of(split.resamples, counts)
    assert (total.precision.value, total.recall.value, total.f1.value, total.map50.value) == (None,) * 4
    assert (errors.count_bias.value, errors.false_alarms_per_empty.value) == (0.0, 0.0)


def test_average_precision_is_that_of_ultralytics(confined):
    """For 20 random orders it is `ap_per_class`, and a picture of weight two counts as two."""
    from ultralytics.utils.metrics import ap_per_class  # noqa: PLC0415 -- once Ultralytics is confined

    rng = np.random.default_rng(0)
    for _ in range(20):
        right, where = rng.random(60) < 0.4, rng.integers(0, 5, 60)
        confidence = np.linspace(0.9, 0.1, 60)
        weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 1, 3]])
        found = average_precisions(weights, where, right[:, None], np.array([50, 80]))[:, 0]
        for row, num_objects, value in zip(weights, (50, 80), found, strict=True):
            drawn = np.repeat(np.arange(60), row[where])
            theirs = ap_per_class(right[drawn, None], confidence[drawn], np.zeros(len(drawn)), np.zeros(num_objects))
            assert value == pytest.approx(theirs[5][0, 0], abs=1e-12 if row.max() == 1 else 5e-3)


def crowd(rng, num_pictures):
    """Draw counts of pictures, of which each has its own share of found objects; the recall of all of them is 0.6."""
    pictures = []
    for number in range(num_pictures):
        shares = rng.beta(3, 2)
        found = rng.random(1 + rng.poisson(4)) < shares
        pictures.append(PictureCounts.of(f"{number}", [0] * len(found), found.tolist(), [0], [False]))
    return pictures


def test_intervals_hold_the_truth_as_often_as_they_claim():
    """Of 300 samples of 60 pictures the 95 % interval holds the true recall in 91 to 98 of 100; half of the draws of
    objects are shared by those of a picture, which an interval over objects would not know.
    """
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        resamples = Resamples.of(60, 300)
        recall = interval_estimate(Rates.of(resamples, Counts.of(crowd(rng, 60), 1)).recall)
        held.append(recall.low <= 0.6 <= recall.high)
    assert 0.91 <= np.mean(held) <= 0.98


def test_equal_pictures_have_equal_intervals(split, counts):
    """The draws are seeded, so that a score is the same each time, and its figure lies within."""
    again = ScoredSplit(PICTURES, ["zebra", "gnu"])
    assert again.total(counts) == split.total(counts)
    f1 = split.total(counts).f1
    assert f1.low < f1.value < f1.high


def many(num_objects, confidences):
    """Return a split of one picture with objects of one class, some of them found."""
    found = [(0, confidence, 20, number) for number, confidence in enumerate(confidences)]
    return picture("many.jpg", [(0, 20)] * num_objects, [*found, (0, 0.95, 20, -1)])


@pytest.mark.parametrize(("recall", "confidence"), [(0.5, 0.51), (0.9, 0.11), (0.01, 0.99)])
def test_the_threshold_of_a_recall_is_the_highest_that_reaches_it(recall, confidence):
    """With 100 objects found at 1.00, 0.99, ..., the threshold of a recall is its complement, and not one more."""
    split = ScoredSplit([many(100, [(100 - number) / 100 for number in range(100)])], ["zebra"])
    point = choose("zebra", split, recall)
    counts = Counts.of(split.count(point.thresholds(1)), 1)
    assert point.own[0] == point.confidence == pytest.approx(confidence + 0.01 * (recall == 0.01), abs=2e-5)
    assert counts.found.sum() == 100 * recall


def test_a_class_with_few_objects_takes_the_common_threshold():
    """Only a class with 50 objects has a threshold of its own."""
    rare = picture("rare.jpg", [(1, 20)], [(1, 0.3, 20, 0)])
    split = ScoredSplit([many(MIN_OBJECTS, [0.8] * 45), rare], ["zebra", "gnu"])
    point = choose("zebra", split, None)
    assert list(point.own) == [0]
    assert point.thresholds(2).tolist() == [point.own[0], point.confidence]
    assert (point.rule, choose("zebra", split, 0.5).rule) == ("best F1", "recall 0.5")


def test_a_recall_out_of_reach_is_refused_with_the_most_of_each_class():
    """The message names the recall of all objects, and that of each class with a threshold of its own."""
    split = ScoredSplit([many(60, [0.8] * 45)], ["zebra"])
    with pytest.raises(UsageError, match=r"does not reach 90\.0 %") as refused:
        choose("run", split, 0.9)
    assert refused.value.problems == ("all classes: 75.0 % at most", "zebra: 75.0 % at most")


def test_a_run_that_finds_nothing_has_no_threshold():
    """Without a right detection there is nothing to choose."""
    with pytest.raises(RunConflictError, match="finds nothing right on the validation split"):
        choose("run", ScoredSplit([many(60, [])], ["zebra"]), None)
