"""The report in headless Chromium: wide, on a phone, dark, printed, and seen without green."""

import io
import json

import pytest
from coloraide import Color
from PIL import Image

from job.report.examples import KINDS
from job.report.publish import write_report
from tests.support.browser import opened
from tests.support.run_records import evaluation, record_run
from tests.unit.report.test_colours import APART, TEXT

VIEWS = {
    "wide": {"width": 1400},
    "phone": {"width": 390},
    "dark": {"width": 1400, "dark": True},
    "print": {"width": 800, "media": "print"},
    "deuteranopia": {"width": 1400, "vision": "deuteranopia"},
}

CONTRASTS = """[...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && !e.closest('svg') &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
        const grounds = [];
        for (let a = e; a; a = a.parentElement) grounds.push(getComputedStyle(a).backgroundColor);
        return [e.textContent.trim().slice(0, 30), getComputedStyle(e).color, grounds];
    })"""
"""Each text of the page with its colour and the colours of the grounds behind it, the nearest first."""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with all four kinds of marks, confusions, and counts over confidence."""
    bucket = tmp_path_factory.mktemp("views") / "bucket"
    run = record_run(bucket, (0.62, 0.65, 0.6), px=256)
    content = evaluation(0.65)
    content["images"][0]["objects"].append([0.2, 0.7, 0.4, 0.9, 0, 0])
    content["images"][0]["predictions"].append([0.2, 0.7, 0.4, 0.9, 1, 0, 0.6])
    counts = {"num_found": [40 - at // 3 for at in range(101)], "num_false_alarms": [100 - at for at in range(101)]}
    run.store.put(run.key("evaluation.json"), json.dumps(content | counts).encode(), overwrite=True)
    write_report(run, run.record())
    return bucket / "runs/zebra/report.html"


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_fits_asks_for_nothing_and_can_be_read(report, view):
    """Nothing is wider than the page or requested, and each text has a contrast of 4.5 with its ground."""
    with opened(report, **VIEWS[view]) as page:
        assert page.measure("document.documentElement.scrollWidth") <= VIEWS[view]["width"]
        texts = page.measure(CONTRASTS)
        assert len(texts) > 100
        faint = {
            text: (colour, ratio) for text, colour, grounds in texts if (ratio := contrast(colour, grounds)) < TEXT
        }
        assert not faint, faint
        assert (page.requests, page.complaints) == ([], [])


@pytest.mark.parametrize("view", ["wide", "dark", "deuteranopia"])
def test_marks_of_the_legend_differ_on_the_screen(report, view):
    """The four marks of the legend have colours that are apart as shown, and those of the pictures."""
    with opened(report, **VIEWS[view]) as page:
        marks = page.page.locator("#images .mark rect")
        strokes = [stroke_of(marks.nth(number).screenshot()) for number in range(marks.count())]
        assert len(strokes) == len(KINDS)
        apart = [a.delta_e(b, method="2000") for i, a in enumerate(strokes) for b in strokes[:i]]
        assert min(apart) >= APART, strokes
        shown = page.measure("[...document.querySelectorAll('.pair .box')].map(e => e.classList[1])")
        assert {*shown} == {*KINDS}
        style = "(e => [getComputedStyle(e).stroke, getComputedStyle(e).strokeDasharray])(document.querySelector('{}'))"
        for kind in KINDS:
            one, other = (page.measure(style.format(f"{where} .box.{kind}")) for where in (".mark", ".pair"))
            assert one == other


def test_the_slider_moves_figures_and_counts(report):
    """At first it stands at the best threshold; moved, the figures are those of the curves there."""
    with opened(report, width=1400) as page:

        def figures():
            return dict(line.rsplit(" ", 1) for line in page.texts(".slider dl > div"))

        assert page.texts("#at") == ["0.31"]
        assert figures()["found"] == "30"
        page.page.locator("#threshold").fill("50")
        assert page.texts("#at") == ["0.50"]
        assert page.texts("#at-recall") == ["50.0 %"]
        assert page.texts("#at-precision") == ["82.5 %"]
        assert (figures()["found"], figures()["missed"], figures()["false alarms"]) == ("24", "16", "50")
        page.page.locator("#threshold").fill("100")
        assert (page.texts("#at-precision"), page.texts("#at-recall")) == (["\N{EN DASH}"], ["0.0 %"])
        assert (page.requests, page.complaints) == ([], [])


def test_on_a_phone_missed_and_false_alarms_come_first(report):
    """At 390 px these two columns can be seen without a swipe, and what is missed follows the verdict at once."""
    with opened(report, width=390) as page:
        assert page.texts("#classes thead th")[:3] == ["class", "missed", "false alarms"]
        assert page.page.locator("#classes tbody td").nth(1).bounding_box()["x"] < 390 - 40
        assert page.measure("document.querySelector('header').nextElementSibling.id") == "classes"


def contrast(colour, grounds):
    """Return the contrast of a text with what lies behind it."""
    behind = Color.layer([Color(ground) for ground in (*grounds, "white")], space="srgb")
    return Color(colour).contrast(behind, method="wcag21")


def stroke_of(png):
    """Return the most frequent colour of a mark that is far from its ground."""
    with Image.open(io.BytesIO(png)) as image:
        counts = {rgb: num for num, rgb in image.convert("RGB").getcolors(1 << 16)}
    ground = Color("srgb", [part / 255 for part in max(counts, key=counts.get)])
    colours = ((Color("srgb", [part / 255 for part in rgb]), num) for rgb, num in counts.items())
    return max(((c, n) for c, n in colours if c.delta_e(ground, method="2000") > 30), key=lambda entry: entry[1])[0]
