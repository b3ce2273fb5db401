"""The demo, as a newcomer starts it on an empty folder: what it learns, and the report that tells of it."""

import csv
import io
import json
import re
from datetime import datetime

import pytest

from job.analysis.metrics import metrics_of
from job.runs import checkpoint
from job.runs.cost import read_cost
from job.runs.run import Run
from job.runs.search import survey
from job.storage.open_store import open_store
from job.text import duration, percent
from tests.support.browser import opened
from tests.support.cli_process import SOON_S, job, kill, start_job, wait_until

ORDER = ("train", "--profile", "demo", "--checkpoint-every", "5")

SECTIONS = (
    *("verdict", "curves", "losses", "epochs", "classes", "confidence", "images", "sizes", "attempts", "cost"),
    *("exactness", "tracking", "repeat"),
)

pytestmark = pytest.mark.timeout(1500)  # a whole training, twice


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A folder in which the demo of A ran, was killed and stopped, and finished."""
    folder = tmp_path_factory.mktemp("demo")
    bucket = folder / "bucket"
    order = (*ORDER, "--recipe", "A", "--bucket", bucket, "--workdir", folder / "work")
    for epoch, end in ((2, kill), (4, lambda process: process.terminate())):
        process = start_job(*order)
        wait_until(lambda epoch=epoch: num_committed(bucket) >= epoch, process, timeout_s=1200)
        end(process)
        if end is not kill:
            assert process.communicate(timeout=SOON_S) is not None
            assert process.returncode == 75
    done = job(*order, timeout_s=1200)
    assert done.returncode == 0, done.stderr
    assert "expected at full scale" in done.stdout
    return bucket


@pytest.fixture(scope="module")
def run(bucket):
    """The run of A."""
    return Run(open_store(str(bucket)), "yolov11_wildlife2")


@pytest.fixture
def report(bucket):
    """The report that the run wrote at its end."""
    return bucket / "runs" / "yolov11_wildlife2" / "report.html"


def num_committed(bucket):
    """Return how many epochs of A are committed."""
    if not bucket.exists():
        return 0
    committed = checkpoint.committed(Run(open_store(str(bucket)), "yolov11_wildlife2"))
    return committed[-1].epoch if committed else 0


def test_the_demo_learns_and_its_recipe_improves_on_the_baseline(bucket):
    """On an empty folder the demo trains a baseline of F1 0.3 or more, and recipe A betters it by 0.05 or more."""
    store = open_store(str(bucket))
    runs = [found.run for found in survey(store).runs]
    assert [run.name for run in runs] == ["yolov11_wildlife", "yolov11_wildlife2"]
    base, improved = (run.final().comparison for run in runs)
    assert base.after["f1"] >= 0.3
    assert improved.before == base.after
    assert improved.change["f1"] >= 0.05
    record = json.loads(store.read("runs/yolov11_wildlife2/run.json"))
    assert record["request"]["profile"] == "demo"
    assert record["start"]["point"]["run"] == "yolov11_wildlife"
    first = Run(store, "yolov11_wildlife2").attempt(1)
    base_end = Run(store, "yolov11_wildlife").attempt(1).end
    assert datetime.fromisoformat(first.began_at) >= datetime.fromisoformat(
        base_end.ended_at
    )  # no second of the baseline is in the bill of A


def test_the_report_tells_the_figures_of_the_run(run, report):
    """Opened in a browser, the report has every section, the figures of row 0, of each row of results.csv and of the
    final record, and the ledger's seconds of every attempt.
    """
    rows = list(csv.DictReader(io.StringIO(run.store.read(run.key("results.csv")).decode())))
    course = [metrics_of({name: float(value) for name, value in row.items()}) for row in rows]
    final, bill = run.final(), read_cost(run)
    before, after = final.comparison.before, final.comparison.after
    with opened(report) as page:
        assert page.measure("[...document.querySelectorAll('header[id], section[id]')].map(e => e.id)") == [*SECTIONS]
        assert page.measure("document.querySelectorAll('figure > svg').length") == 4 + 4 + 3 + 12  # 12 are pictures
        shown = [
            [cell.split(" ")[0] for cell in line.split("\t")][:5]
            for line in page.page.locator("#epochs tbody tr").all_inner_texts()
        ]
        told = [[str(epoch), *(percent(metrics[name]).split(" ")[0] for name in ("map50", "f1", "precision", "recall"))]
                for epoch, metrics in enumerate([before, *course])]  # fmt: skip
        assert shown == told
        assert percent(before["f1"]) in page.texts("h1")[0]
        assert percent(after["f1"]) in page.texts("h1")[0]
        spent = {label: s for label, s in bill.seconds.items() if s}
        assert page.texts("#cost tbody tr") == [
            f"{label} {duration(s)} {percent(s / bill.total_s)}" for label, s in spent.items()
        ]
        assert duration(bill.total_s) in page.texts("#cost tfoot")[0]
        attempts = page.texts("#attempts tbody tr")
        assert [re.search("vanished|preempted|finished", text)[0] for text in attempts] == [
            attempt.ended for attempt in bill.attempts
        ]
        assert [attempt.ended for attempt in bill.attempts] == ["vanished", "preempted", "finished"]
        assert "2 cut off" in page.texts(".strip")[0]
        assert page.requests == []
        assert page.complaints == []


def test_the_report_is_light_or_dark_as_the_reader_is(report):
    """The page follows the reader's scheme, charts included, and asks for nothing in either."""
    found = []
    for dark in (False, True):
        with opened(report, dark=dark) as page:
            ink = page.measure("getComputedStyle(document.querySelector('figure svg text')).fill")
            found.append((page.measure("getComputedStyle(document.body).backgroundColor"), ink))
            assert (page.requests, page.complaints) == ([], [])
    (light, light_ink), (dark, dark_ink) = found
    assert sum(rgb(light)) > 600
    assert sum(rgb(dark)) < 150
    assert light_ink != dark_ink


def test_the_report_can_be_read_on_a_phone(report):
    """At 390 px nothing sticks out of the page, and no text in a chart is smaller than 9 px."""
    smallest = """Math.min(...[...document.querySelectorAll('figure svg text')].map(text =>
        parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
    with opened(report, width=390) as page:
        assert page.measure("document.documentElement.scrollWidth") <= 390
        assert page.measure(smallest) >= 9
        assert (page.requests, page.complaints) == ([], [])


def rgb(colour):
    """Return the parts of a colour as a browser tells it."""
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]
