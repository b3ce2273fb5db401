"""Metrics before and after a run."""

import pytest

from job.analysis.falls import Schedule
from job.analysis.metrics import BeforeAfter, drop_warning, has_dropped
from job.recipes.recipe import Band
from job.runs.progress import COLUMNS, metrics_of
from tests.support.bucket_records import recorded


def row(precision, recall, map50=0.5, map50_95=0.3):
    """Make a row of results.csv."""
    return dict(zip(COLUMNS.values(), (precision, recall, map50, map50_95), strict=True))


def test_f1_is_the_harmonic_mean_of_the_reported_precision_and_recall():
    """The users' own figures, 74 % and 47 %, make 57.5 %; nothing found makes nothing."""
    assert metrics_of(row(0.74, 0.47))["f1"] == pytest.approx(0.57488, abs=1e-5)
    assert metrics_of(row(0.0, 0.0))["f1"] == 0.0


def test_the_table_shows_change_and_whether_the_expectation_was_reached():
    """Each metric has its change, and each that was expected a verdict."""
    before, after = metrics_of(row(0.74, 0.47)), metrics_of(row(0.70, 0.65))
    table = BeforeAfter(before, after, {"f1": Band(0.65, 0.70), "recall": Band(0.66, None)}).table().splitlines()
    assert table[1].split() == ["F1", "57.5%", "67.4%", "+9.9", "65", "to", "70", "%:", "reached"]
    assert table[3].split() == ["recall", "47.0%", "65.0%", "+18.0", "over", "66", "%:", "not", "reached"]
    assert all(len(line) <= 80 for line in table)


def test_the_table_of_a_start_that_was_not_measured_has_no_change():
    """Without metrics of the start weights there are those of the best weights, and what is expected."""
    table = BeforeAfter(None, metrics_of(row(0.70, 0.65)), {"f1": Band(0.65, 0.70)}).table().splitlines()
    assert table[0].split() == ["after", "expected"]
    assert table[1].split() == ["F1", "67.4%", "65", "to", "70", "%:", "reached"]


def test_the_table_of_a_demo_has_no_verdict():
    """Bands are meant for full scale, so that a demo neither reaches nor misses them."""
    after = metrics_of(row(0.70, 0.65))
    table = BeforeAfter(after, after, {"f1": Band(0.65, 0.70)}).table("demo")
    assert table.splitlines()[1].endswith("65 to 70 %")
    assert "reached" not in table


def test_a_fall_after_the_first_epoch_is_a_warning():
    """A metric far below the start weights' is warned of by name, a small fall is not, nor is one from near nothing."""
    best, fallen = metrics_of(row(0.7, 0.6)), metrics_of(row(0.6, 0.1))
    assert has_dropped(best, fallen)
    warning = drop_warning(best, 0, fallen, 1, Schedule.of(recorded("A").record))
    assert (
        "after epoch 1 the detector is far worse than its start weights: F1 64.6% -> 17.1%, recall 60.0% -> 10.0%;"
        in (warning)
    )
    assert "class order" in warning
    assert not has_dropped(best, metrics_of(row(0.6, 0.5)))
    assert has_dropped(best, metrics_of(row(0.7, 0.6, map50=0.2)))
    nothing = metrics_of(row(0.0, 0.0, 0.0, 0.0))
    assert not has_dropped(nothing, nothing)
    assert not has_dropped(metrics_of(row(0.09, 0.09, 0.09)), nothing)
    assert has_dropped(metrics_of(row(0.1, 0.1, 0.0)), nothing)
