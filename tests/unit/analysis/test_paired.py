"""Runs compared by picture: what is distinguishable, and what is not."""

import json
import re

import pytest

from job.analysis.paired import describe_difference, is_distinguishable, pair, read_measurements
from job.analysis.summary import read_summary
from job.cli.app import main
from job.runs.evaluation import IntervalEstimate
from job.runs.run import Run
from job.storage.local import FolderStore
from job.training.evaluation_record import PictureCounts
from tests.support.bucket_records import put_recorded, recorded
from tests.support.split_evaluation import record_evaluation

NUM_PICTURES = 60


def pictures(recall, spoiled=()):
    """Return pictures of ten objects, of which in the hard half none and in the other one a share is found."""
    return [
        PictureCounts.of(
            f"images/test/{number:03}.jpg",
            [0] * 10,
            [number % 2 == 0 and number not in spoiled and place < 10 * recall for place in range(10)],
            [0] * 5,
            [True] * 4 + [False],
        )
        for number in range(NUM_PICTURES)
    ]


@pytest.fixture
def bucket(tmp_path):
    """A bucket with runs that were evaluated on the same pictures: zebra, one like it, one better, one by a recall."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    for name, f1, seen, rule in (
        ("zebra", 0.58, pictures(0.7), "best F1"),
        ("gnu", 0.6, pictures(0.7, spoiled={4}), "best F1"),
        ("lion", 0.57, pictures(0.9), "best F1"),
        ("hyena", 0.5, pictures(0.9), "recall 0.9"),
    ):
        put_recorded(store, recorded("A", run=name, course=(f1,)))
        record_evaluation(Run(store, name), pictures=seen, rule=rule)
    return str(tmp_path / "bucket")


def measured(bucket, *names):
    """Return what runs of a bucket were measured on."""
    store = FolderStore.open(bucket)
    runs = [Run(store, name) for name in names]
    return [read_measurements(store, read_summary(run, run.record())) for run in runs]


def test_a_small_difference_on_the_same_pictures_is_seen(bucket):
    """Half of the pictures are hard for both: the intervals overlap by far, and that of the difference is narrow."""
    paired = pair(measured(bucket, "lion", "zebra"))
    lion, zebra = (paired.value(run, "recall") for run in (0, 1))
    assert (lion.value, zebra.value) == (0.45, 0.35)
    assert lion.low < zebra.high
    difference = paired.difference(0, 1, "recall")
    assert difference.value == pytest.approx(0.1)
    assert is_distinguishable(difference)
    assert difference.high - difference.low < lion.high - lion.low


def test_a_difference_of_one_picture_is_none(bucket):
    """Its interval ends at 0, and the text says so."""
    difference = pair(measured(bucket, "zebra", "gnu")).difference(0, 1, "recall")
    assert difference.value > 0
    assert not is_distinguishable(difference)
    assert describe_difference(difference).endswith("], not distinguishable")


def test_runs_that_differ_in_pictures_or_rule_are_not_paired(bucket):
    """A threshold for a recall is not compared with one for the best F1, nor a picture with another one."""
    assert pair(measured(bucket, "lion", "hyena")) is None
    lion, zebra = measured(bucket, "lion", "zebra")
    (basis,) = zebra
    assert pair([lion, {basis: zebra[basis][1:]}]) is None
    assert pair([lion, {basis._replace(digest="e" * 64): zebra[basis]}]) is None


def test_an_evaluation_of_other_weights_does_not_count(bucket):
    """A record that stayed behind from other weights is not the run's."""
    run = Run(FolderStore.open(bucket), "zebra")
    record_evaluation(run, pictures=pictures(0.7), weights="e" * 64)
    assert measured(bucket, "zebra") == [{}]


def test_comparing_names_what_is_not_distinguishable(bucket, capsys):
    """The best is that of the test pictures, whatever F1 on the validation split says, and JSON has the same."""
    assert main(["compare", "zebra", "gnu", "lion", "--bucket", bucket]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "lion by F1; all were measured on the same 60 pictures of test" in " ".join(shown.split())
    assert main(["compare", "zebra", "gnu", "--bucket", bucket, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["best"], printed["not_distinguishable"]) == ("zebra", ["gnu"])
    assert printed["by picture"]["recall to best"]["gnu"].endswith("not distinguishable")
    assert printed["by picture"]["recall to best"]["zebra"] == "best"


def test_advice_says_whether_the_better_run_is_distinguishable(bucket, capsys):
    """The interval of F1 is printed, and the difference from the run that reached more."""
    assert main(["advise", "zebra", "--bucket", bucket]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    at = r"F1 [\d.]+% at the thresholds of the best F1, [\d.]+% to [\d.]+%"
    assert re.search(rf"{at}, 95 % by resampling of 60 pictures of test", shown)
    assert "run gnu has F1 -" in shown
    assert "not distinguishable, on the same pictures" in shown
    assert main(["advise", "zebra", "--bucket", bucket, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["better_by"][0] < 0


def test_a_difference_is_shown_in_its_unit():
    """Shares are points of 100, errors of counts are objects."""
    assert describe_difference(IntervalEstimate(0.012, 0.001, 0.0234)) == "+1.2 [+0.1, +2.3]"
    assert (
        describe_difference(IntervalEstimate(-0.5, -1.0, 0.25), "count_mae")
        == "-0.50 [-1.00, +0.25], not distinguishable"
    )
    assert describe_difference(IntervalEstimate(None, None, None)) == "not known"
