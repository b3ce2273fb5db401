"""The report's charts: marks lie where their values are."""

import re

import pytest

from job.recipes.recipe import Band
from job.report.charts import Series, confidence_chart, curve_chart, sizes_chart
from job.report.data import read_facts
from job.report.page import render
from tests.support.chart import Chart
from tests.support.run_records import at, record_run

VALUES = [0.5, 0.6, 0.55, 0.65, 0.62]


def drawn(values=VALUES, **more):
    """Return a chart of one line."""
    return Chart(
        curve_chart([Series("F1", "blue", values)], **({"first_epoch": 0, "num_epochs": 6, "cuts": []} | more))
    )


@pytest.mark.parametrize("first_epoch", [0, 1])
def test_each_value_lies_at_its_epoch(first_epoch):
    """The line begins at its first epoch and has each value at its own."""
    points = drawn(first_epoch=first_epoch).line("blue")
    assert points == [pytest.approx((epoch, value), abs=0.01) for epoch, value in enumerate(VALUES, start=first_epoch)]


@pytest.mark.parametrize(("first_epoch", "best", "value"), [(0, 3, 0.65), (0, 1, 0.6), (1, 4, 0.65), (1, 1, 0.5)])
def test_the_mark_of_the_best_lies_on_its_epoch(first_epoch, best, value):
    """The mark is at the best epoch, at the value that the line has there, whether the line begins at 0 or 1."""
    assert drawn(first_epoch=first_epoch, best_epoch=best).marks("blue") == [pytest.approx((best, value), abs=0.01)]
    assert drawn(first_epoch=first_epoch).marks("blue") == []


@pytest.mark.parametrize(
    ("band", "ends"),
    [
        (Band(0.6, 0.7), (0.6, 0.7)),
        (Band(0.62, None), (0.62, 0.62)),
        (Band(0.58, 0.58), (0.58, 0.58)),
        (Band(None, 0.7), None),
        (None, None),
    ],
)
def test_the_band_lies_where_it_is_expected(band, ends):
    """An area from the lower to the upper end, a line where the band is open or a point, and nothing without one."""
    assert drawn(band=band).band() == (ends and pytest.approx(ends, abs=0.002))


def test_cuts_lie_where_they_happened():
    """Each attempt that was cut off has its line."""
    assert drawn(cuts=[1.5, 4.2]).cuts() == pytest.approx([1.5, 4.2], abs=0.02)


def test_shares_are_shown_as_percent_and_other_values_as_they_are():
    """A share of 0.5 reads 50 %, a loss of 0.5 reads 0.5."""
    assert {"50 %", "60 %"} <= set(drawn().y_labels)
    assert not any("%" in label for label in drawn(shares=False).y_labels)
    assert "0.5" in drawn(shares=False).y_labels
    curve = Chart(confidence_chart([0, 0.5, 1], [Series("F1", "blue", [0.2, 0.8, 0.1])], 0.5))
    bars = Chart(sizes_chart(["0-8", "8 +"], [Series("now", "blue", [0.5, 1.0])]))
    assert (curve.y_labels[0], curve.y_labels[-1], bars.y_labels[-1]) == ("0 %", "100 %", "100 %")
    assert curve.line("blue")[1] == pytest.approx((0.5, 0.8), abs=0.01)


def charts_of(run):
    """Return the charts of the course in a run's report, by title."""
    page = render(read_facts(run, run.record(), at(400)))
    section = page[page.index('id="curves"') : page.index('id="losses"')]
    return {title: Chart(svg) for title, svg in re.findall(r"<h3>([^<]*)</h3>(<svg.*?</svg>)", section, re.DOTALL)}


def test_the_report_draws_curve_best_epoch_band_and_cuts_where_they_are(tmp_path):
    """In the report's chart of F1: the start weights at 0, each epoch at its own, the best at that of best.pt, the
    recipe's 65 to 70 %, and the cut within epoch 4.
    """
    course = (0.60, 0.64, 0.66, 0.69, 0.67)
    chart = charts_of(record_run(tmp_path / "bucket", course, before=0.58))["F1"]
    assert chart.line("blue") == [pytest.approx(point, abs=0.02) for point in enumerate((0.58, *course))]
    assert chart.marks("blue") == [pytest.approx((4, 0.69), abs=0.02)]
    assert chart.band() == pytest.approx((0.65, 0.70), abs=0.002)
    assert chart.cuts() == pytest.approx([3.2], abs=0.05)


def test_of_equal_epochs_the_last_is_the_best(tmp_path):
    """Where several epochs share the highest mAP50-95, best.pt is that of the last, as Ultralytics keeps it."""
    run = record_run(tmp_path / "bucket", (0.60, 0.66, 0.64, 0.66, 0.65), finished=False, asked=80)
    facts = read_facts(run, run.record(), at(400))
    assert facts.best_epoch == 4
    assert charts_of(run)["F1"].marks("blue") == [pytest.approx((4, 0.66), abs=0.02)]


def test_an_attempt_that_runs_is_not_cut_off(tmp_path):
    """Of two attempts the one that vanished is counted and marked, and the one that runs is neither."""
    run = record_run(tmp_path / "bucket", (0.60, 0.66), finished=False, asked=80)
    facts = read_facts(run, run.record(), at(380))
    assert [attempt.ended for attempt in facts.cost.attempts] == ["vanished", "running"]
    assert (facts.cost.num_cut_off, facts.cuts) == (1, [1.2])
    later = read_facts(run, run.record(), at(1000))
    assert (later.cost.num_cut_off, later.cuts) == (2, [1.2, 2.0])
