"""Runs side by side, on the terminal, as JSON and as a page."""

import dataclasses
import json
from html.parser import HTMLParser

import pytest

from job.analysis.comparison import compare
from job.cli.app import main
from job.datasets.lockfile import split_digest
from job.storage.local import FolderStore
from job.storage.object_store import StoredObject
from tests.support.bucket_records import put_recorded, recorded

BASE = recorded("base", run="zebra", course=(0.5, 0.58), precision=0.74, recall=0.47, usd_per_hour=0.5)
IMPROVED = recorded(
    "A", run="lion", course=(0.6, 0.66), usd_per_hour=0.5, seconds={"useful step": 5400.0, "boot": 1800.0}
)
ELSEWHERE = recorded("A", run="hyena", course=(0.9,), val="w" * 64)


def values(comparison, section, label):
    """Return the values of a field."""
    return next(field.values for field in comparison.sections[section] if field.label == label)


@pytest.fixture
def bucket(tmp_path):
    """A bucket with three finished runs, one of them measured on another validation set."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    for summary in (BASE, IMPROVED, ELSEWHERE):
        put_recorded(store, summary)
    return str(tmp_path / "bucket")


def test_differences_in_recipe_result_and_cost_are_shown():
    """A comparison has the arguments that differ and no others, the metrics, and hours and dollars."""
    comparison = compare([BASE, IMPROVED])
    labels = [field.label for field in comparison.sections["recipe"]]
    assert "degrees" in labels
    assert "imgsz" not in labels
    assert values(comparison, "recipe", "degrees") == ("0.0", "15.0")
    assert values(comparison, "result", "F1") == ("58.0%", "66.0%")
    assert values(comparison, "cost", "hours") == ("0.05", "2.00")
    assert values(comparison, "cost", "useful") == ("100%", "75%")
    assert values(comparison, "cost", "dollars") == ("0.03", "1.00")
    assert (comparison.not_comparable, comparison.best) == (None, "lion")


def test_metrics_of_different_validation_sets_are_not_comparable():
    """Where validation sets differ, no best run is named and the comparison says which runs were measured elsewhere."""
    comparison = compare([BASE, IMPROVED, ELSEWHERE])
    assert comparison.best is None
    assert comparison.not_comparable == "zebra and hyena were measured on different validation sets"


def test_without_a_record_of_the_validation_set_only_equal_data_are_comparable():
    """Runs of before the validation set was recorded are comparable if all of their data are the same."""
    old, other = recorded(run="old", val=None), recorded(run="other", val=None)
    assert compare([old, other]).not_comparable is None
    dataset = other.record.dataset.model_copy(update={"digest": "e" * 64})
    other = dataclasses.replace(other, record=other.record.model_copy(update={"dataset": dataset}))
    assert "it was not recorded" in compare([old, other]).not_comparable


def test_a_price_that_one_attempt_does_not_know_leaves_the_dollars_open():
    """Dollars are shown for a run only if all of its machines had a price."""
    assert values(compare([BASE, recorded(run="free")]), "cost", "dollars") == ("0.03", "unknown")


def test_the_identity_of_a_validation_set_depends_on_what_decides_a_measurement():
    """Other pictures, other labels or other classes are another validation set; other training pictures are not."""

    def digest(names=("cow",), **changes):
        crc = {"images/train/a.jpg": "1", "images/val/b.jpg": "2", "labels/val/b.txt": "3"} | changes
        files = {name: StoredObject(f"datasets/zoo/{name}", 9, "1", value) for name, value in crc.items()}
        return split_digest(files, ["images/val/b.jpg", "labels/val/b.txt"], names)

    assert digest() == digest(**{"images/train/a.jpg": "7"})
    others = [digest(**{"images/val/b.jpg": "7"}), digest(**{"labels/val/b.txt": "7"}), digest(names=("deer",))]
    assert len({digest(), *others}) == 4


def test_the_terminal_shows_it_in_80_columns(bucket, capsys):
    """For any number of runs no line is longer than 80 columns, and all runs are there."""
    assert main(["compare", "zebra", "lion", "--bucket", bucket]) == 0
    two = capsys.readouterr().out
    assert "best        lion by F1" in two
    assert main(["compare", "zebra", "lion", "hyena", "--bucket", bucket]) == 0
    three = capsys.readouterr().out
    assert "metrics are not comparable" in " ".join(three.split())
    assert max(len(line) for line in (two + three).splitlines()) <= 80


def test_the_comparison_can_be_had_as_json(bucket, capsys):
    """`--json` has every value by section, thing and run."""
    assert main(["compare", "zebra", "lion", "--bucket", bucket, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["comparable"], printed["best"]) == (True, "lion")
    assert printed["result"]["recall"] == {"zebra": "47.0%", "lion": "66.0%"}


class Page(HTMLParser):
    """Collects what a page shows and what it asks for."""

    def __init__(self, text):
        super().__init__()
        self.shown, self.asked = [], []
        self.feed(text)

    def handle_starttag(self, _tag, attrs):
        self.asked += [value for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data):
        self.shown.append(data)


def test_the_page_needs_no_network_and_shows_the_same(bucket, tmp_path, capsys):
    """`--html` writes one file that asks for nothing, with every value, and what came from outside as text."""
    folder = tmp_path / "compared.html"
    put_recorded(FolderStore.open(bucket), recorded("A", run="x", machine="<script>alert(1)</script>"))
    assert main(["compare", "zebra", "lion", "x", "--bucket", bucket, "--html", str(folder)]) == 0
    text = folder.read_text()
    page = Page(text)
    assert page.asked == ["data:,"]  # the empty icon, without which a browser asks for one
    assert {"58.0%", "66.0%", "degrees", "15.0", "<script>alert(1)</script>"} <= set(page.shown)
    assert "<script>" not in text


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["compare"], 2, "needs two or more different runs, got none; name them: `job compare zebra zebra2`"),
        (["compare", "zebra"], 2, "needs two or more different runs"),
        (["compare", "zebra", "zebra"], 2, "needs two or more different runs"),
        (["compare", "zebra", "lin"], 65, "did you mean 'lion'"),
        (["compare", "zebra", "lion", "--html", "nowhere/x.html"], 78, "nowhere/x.html: cannot be written"),
    ],
)
def test_what_cannot_be_compared_is_refused(bucket, capsys, words, code, part):
    """Too few runs, one that is not there and a file that cannot be written are refused with what to do."""
    assert main([*words, "--bucket", bucket]) == code
    assert part in capsys.readouterr().err


def test_a_run_is_shown_in_80_columns(bucket, capsys):
    """`runs show` wraps all text of a run's records, paths excepted."""
    assert main(["runs", "show", "lion", "--bucket", bucket]) == 0
    shown = capsys.readouterr().out
    assert "attempt 1" in shown
    assert [line for line in shown.splitlines() if len(line) > 80 and "/" not in line] == []
    assert main(["runs", "show", "lion", "--bucket", bucket, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["run"] == "lion"
