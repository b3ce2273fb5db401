"""The page of a prediction."""

import re
from collections import Counter

import cv2
import numpy as np
import pytest

from job.prediction.page import DoubtfulPicture, render, show_doubtful
from job.prediction.records import PictureResult
from job.prediction.source import open_source
from job.prediction.summary import NUM_DOUBTFUL, Summary, doubt
from job.report.examples import MAX_PX
from job.training.evaluation_record import Detection
from tests.support.browser import opened
from tests.support.prediction_request import prediction_request

NAMES = ("zebra", "a <b>bold</b> class")
"""The second one is markup, for a page that believes it."""

SECTIONS = ["totals", "confidence", "doubtful", "unreadable"]


def result(name, *confidences, category=0, size=(60, 40)):
    """Return a picture with a box of each confidence."""
    boxes = tuple(
        Detection(category, each, 2.0 + 9 * number, 4.0, 10.0 + 9 * number, 12.0)
        for number, each in enumerate(confidences)
    )
    return PictureResult(picture=name, width=size[0], height=size[1], detections=boxes)


def summed(*results, max_det=300):
    """Return the summary of some results."""
    summary = Summary(NAMES, max_det)
    for each in results:
        summary.add(each)
    return summary


def page_of(summary, pictures=(), metrics=None, num_pictures=3):
    """Return the page of a summary."""
    return render(prediction_request(num_pictures=num_pictures), NAMES, summary, pictures, metrics or {})


def words(html):
    """Return the text of a page, without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)).split())


@pytest.fixture
def source(tmp_path):
    """A function that writes pictures of a size, and returns them as a source."""

    def write(*names, size=(60, 40)):
        for name in names:
            path = tmp_path / "flight" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((size[1], size[0], 3), 200, np.uint8))
        return open_source([str(tmp_path / "flight")])

    return write


def test_totals_are_of_all_pictures():
    """Objects, share, pictures and the most in one picture of each class, the most frequent class first."""
    summary = summed(result("a", 0.9), result("b", 0.5, 0.4, category=1), result("c"))
    text = words(page_of(summary, num_pictures=1234))
    assert "3 objects in 2 of 1,234 pictures" in text
    assert "a &lt;b&gt;bold&lt;/b&gt; class 2 66.7 % 1 2 zebra 1 33.3 % 1 1" in text


def test_confidences_fall_into_equal_parts():
    """A confidence on an edge is in the upper part, and 1 in the last one."""
    found = summed(result("a", 0.05, 0.049, 0.999, 1.0)).confidences
    assert Counter({number: num for number, num in enumerate(found) if num}) == {0: 1, 1: 1, 19: 2}


def test_the_least_certain_pictures_have_the_most_doubt():
    """Two objects of 0.5 are more doubtful than one of 0.3; pictures with equal doubt are sorted by name."""
    one, two = result("one", 0.3), result("two", 0.5, 0.5)
    sure, equal = result("sure", 0.99), result("equal", 0.3)
    assert [each.picture for each in summed(one, two, sure, result("none"), equal).doubtful] == [
        *("two", "equal", "one", "sure")
    ]
    assert doubt(two) == pytest.approx(1.0)
    many = [result(f"{number:03}", number / 100) for number in range(1, 100)]
    assert summed(*many).doubtful == summed(*reversed(many)).doubtful == many[:NUM_DOUBTFUL]


def test_unreadable_pictures_are_listed_and_counted_beyond_the_list():
    """A hundred are listed with their reasons, and the rest is counted."""
    broken = [PictureResult(picture=f"<i>{number}.jpg", failure="is empty") for number in range(103)]
    text = words(page_of(summed(*broken), num_pictures=103))
    assert "103 pictures cannot be read and are not counted" in text
    assert "&lt;i&gt;0.jpg is empty" in text
    assert "&lt;i&gt;99.jpg" in text
    assert "&lt;i&gt;100.jpg" not in text
    assert "And 3 more: all of them are in detections.json" in text
    assert "Nothing was found." in text


def test_a_picture_that_is_full_is_warned_of():
    """Pictures with as many objects as are allowed may have more."""
    assert "1 picture has 300 objects, which is the limit" in words(page_of(summed(result("a", 0.5, 0.5), max_det=2)))


def test_metrics_of_the_threshold_are_shown_if_they_are_known():
    """Precision, recall and F1 are called those of the validation images."""
    known = words(page_of(summed(result("a", 0.5)), metrics={"precision": 0.8, "recall": 0.7}))
    assert "On the validation images this threshold has precision 80.0 %, recall 70.0 %." in known
    assert "this threshold has" not in words(page_of(summed(result("a", 0.5))))


def test_a_large_picture_is_cut_to_its_doubtful_objects(source):
    """The part at its own resolution has the least certain objects, with their boxes moved along."""
    certain = [Detection(0, 0.9, 10.0, 10.0, 30.0, 30.0)]
    doubtful = [Detection(1, 0.3, 2900.0 + 20 * number, 1900.0, 2910.0 + 20 * number, 1910.0) for number in range(3)]
    seen = PictureResult(picture="a.png", width=3000, height=2000, detections=(*certain, *doubtful))
    (picture,) = show_doubtful([seen], source("a.png", size=(3000, 2000)), NAMES, 3)
    assert (picture.width, picture.height, picture.cut_from) == (MAX_PX, 600, (3000, 2000))
    assert [(box.left, box.top, box.width, box.kind) for box in picture.boxes] == [
        (700.0 + 20 * number, 500.0, 10.0, "doubtful") for number in range(3)
    ]
    assert (picture.found, picture.confidences) == ("3 a <b>bold</b> class, 1 zebra", "0.30 to 0.90")


def test_a_picture_that_is_gone_is_listed_without_pixels(source, tmp_path):
    """Its counts stand, and the prediction ends."""
    found = source("a.png", "b.png")
    (tmp_path / "flight/a.png").unlink()
    (tmp_path / "flight/b.png").write_bytes(b"changed")
    pictures = list(show_doubtful([result("a.png", 0.5), result("b.png", 0.5)], found, NAMES, 3))
    assert [(picture.name, picture.data) for picture in pictures] == [("a.png", ""), ("b.png", "")]
    assert "the picture is gone" in words(page_of(summed(result("a.png", 0.5)), pictures))


@pytest.mark.parametrize(("width", "dark"), [(1180, False), (390, True)])
def test_the_page_asks_for_nothing_and_fits(source, tmp_path, width, dark):
    """In a browser it has every section, requests nothing, believes no markup, and is no wider than a phone."""
    hostile = "north/<script>alert(1)</script>" + "long" * 50 + ".png"
    results = [result(hostile, 0.4, 0.8), PictureResult(picture='b"><img src=x>.png', failure="is empty")]
    summary = summed(*results)
    pictures = [*show_doubtful(summary.doubtful, source(hostile), NAMES, 3), DoubtfulPicture(**UNKNOWN)]
    (tmp_path / "page.html").write_text(page_of(summary, pictures, {"precision": 0.8}), encoding="utf-8")
    with opened(tmp_path / "page.html", width=width, dark=dark) as page:
        assert page.measure("[...document.querySelectorAll('header[id], section[id]')].map(e => e.id)") == SECTIONS
        assert page.measure("document.querySelectorAll('script, section img, b b, section i').length") == 0
        assert page.measure("document.documentElement.scrollWidth") <= width
        assert page.measure("document.querySelectorAll('svg image').length") == 1
        assert page.measure("document.querySelectorAll('.pair rect.box').length") == 2
        assert (page.requests, page.complaints) == ([], [])


UNKNOWN = {"name": "gone.png", "doubt": 0.5, "found": "1 zebra", "confidences": "0.50"}
