"""Colours of a page hold on its ground and for the common kinds of colour blindness."""

import re
from importlib.resources import files
from itertools import combinations

import pytest
from coloraide import Color

from job.report.examples import KINDS
from job.report.page import METRIC_COLOURS, METRIC_STYLES, PHASE_COLOURS

CSS = files("job.report").joinpath("templates/report.css").read_text()

KINDS_OF_SIGHT = (None, "protan", "deutan", "tritan")

APART = 12
"""Least difference (CIEDE2000) of two colours; from about 10 on it is seen at a glance."""

TEXT, MARK = 4.5, 3.0
"""Least contrast by WCAG 2.2 of text and of lines."""


def variables(*, dark):
    """Return the page's colours by name."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    return dict(re.findall(r"--(\w+): (#\w+)", blocks[dark]))


def differences(colours, sight):
    """Return the difference of each pair of colours as seen with a kind of sight."""
    seen = {name: Color(colour).filter(sight) if sight else Color(colour) for name, colour in colours.items()}
    return {pair: seen[pair[0]].delta_e(seen[pair[1]], method="2000") for pair in combinations(seen, 2)}


@pytest.mark.parametrize("sight", KINDS_OF_SIGHT)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_of_one_chart_differ_for_everybody(dark, sight):
    """Lines of the chart of confidences, bars of sizes, and phases of an attempt, each by its chart."""
    page = variables(dark=dark)
    for names in (("blue", "violet", "teal"), ("blue", "teal", "red"), ("amber", "blue"), {*PHASE_COLOURS.values()}):
        found = differences({name: page[name] for name in sorted(names)}, sight)
        assert min(found.values()) >= APART, found


def test_lines_of_one_chart_differ_in_style():
    """F1, precision and recall differ without any colour."""
    names = ("f1", "precision", "recall")
    assert len({METRIC_STYLES.get(name, "-") for name in names}) == len({METRIC_COLOURS[name] for name in names}) == 3


@pytest.mark.parametrize("sight", KINDS_OF_SIGHT)
def test_marks_differ_for_everybody(sight):
    """Right, of another class, missed and false alarm differ in colour for each kind of sight."""
    strokes = {kind: re.search(rf"\.box\.{kind}\b[^{{]*\{{ stroke: (#\w+)", CSS)[1] for kind in KINDS}
    found = differences(strokes, sight)
    assert min(found.values()) >= APART, found


def test_marks_differ_in_style():
    """Each kind of mark has a line style of its own, so that none depends on colour."""
    rules = [re.search(rf"\.box\.{kind}\b.*", CSS)[0] for kind in KINDS]
    styles = [found[1] if (found := re.search(r"stroke-dasharray: ([\d ]+)", rule)) else "" for rule in rules]
    assert len({*styles}) == len(KINDS)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_page(dark):
    """Words have a contrast of 4.5 on a card, lines of 3."""
    page = variables(dark=dark)
    card = Color(page["card"])
    for least, names in ((TEXT, ("ink", "muted", "green", "red", "orange")), (MARK, ("blue", "violet", "teal"))):
        contrasts = {name: Color(page[name]).contrast(card, method="wcag21") for name in names}
        assert min(contrasts.values()) >= least, contrasts
