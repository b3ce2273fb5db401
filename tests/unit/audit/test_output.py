"""Table and page of an audit."""

import csv
import io
import re

import numpy as np

from job.audit.findings import Finding, Kind, Label
from job.audit.output import COLUMNS, NUM_SHOWN, Audit, make_crop, write_page, write_table
from job.prediction.threshold import Threshold

NAMES = ("zebra", "<b>bold</b>")

LABEL = Label(0, (100.0, 20.0, 120.0, 30.0), 2)


def finding(kind=Kind.WRONG_CLASS, box=(102.0, 20.0, 122.0, 30.0), **changes):
    """Return a finding in a picture of 200 by 100 pixels."""
    known = {"image": "images/val/a.jpg", "width": 200, "height": 100, "score": 0.75, "category": 1}
    return Finding(kind=kind, box=box, **{**known, "confidence": 0.8, "label": LABEL, **changes})


def test_a_row_has_the_box_in_pixels_and_in_shares():
    """A labelling tool can be fed with a row: picture, class, box in both units, kind and score."""
    (row,) = csv.DictReader(io.StringIO(write_table([finding()], NAMES)))
    assert list(row) == list(COLUMNS)
    assert (row["rank"], row["kind"], row["score"], row["picture"]) == (
        "1",
        "wrong class",
        "0.7500",
        "images/val/a.jpg",
    )
    assert (row["class"], row["labelled_class"], row["label_line"]) == ("<b>bold</b>", "zebra", "2")
    assert [float(row[name]) for name in ("left", "top", "right", "bottom")] == [102, 20, 122, 30]
    assert [float(row[name]) for name in ("x", "y", "width", "height")] == [0.56, 0.25, 0.1, 0.1]


def test_a_finding_without_a_label_or_a_detection_has_empty_cells():
    """A missing label names no label, and one that was never found no confidence."""
    found = [finding(Kind.MISSING_LABEL, label=None), finding(Kind.NEVER_FOUND, confidence=None)]
    missing, never = csv.DictReader(io.StringIO(write_table(found, NAMES)))
    assert (missing["labelled_class"], missing["label_line"]) == ("", "")
    assert never["confidence"] == ""


def test_a_crop_lies_in_the_picture_and_around_the_boxes():
    """At an edge the crop is moved inside, and a large object is shown whole."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    crop = make_crop(pixels, finding(box=(190.0, 0.0, 200.0, 8.0), label=None))
    assert (crop.left + crop.width, crop.top, crop.width, crop.height) == (200, 0, 96, 96)
    crop = make_crop(pixels, finding(box=(0.0, 0.0, 180.0, 90.0), label=None))
    assert (crop.left, crop.top, crop.width, crop.height) == (0, 0, 200, 100)


def test_the_page_shows_the_first_of_each_kind_and_believes_no_name():
    """It has a picture for each finding up to a limit, and the name of a class does not become markup."""
    found = [finding() for _ in range(NUM_SHOWN + 3)] + [finding(Kind.MISSING_LABEL, label=None)]
    audit = Audit("zebra", "wild", "d" * 64, "val", 4, 9, NAMES, Threshold(0.3, {}))
    html = write_page(audit, found, lambda _name: np.zeros((100, 200, 3), np.uint8))
    assert html.count("<image ") == NUM_SHOWN + 1
    assert f"the first {NUM_SHOWN} of {NUM_SHOWN + 3}" in html
    assert "<b>bold" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert not re.search(r'(?:src|href)="(?!data:)', html)
