"""The demo on an empty folder, as a newcomer starts it: its metrics, and its report in a browser."""

import csv
import io
import json
import random
import re
import shutil
from datetime import datetime

import numpy as np
import pytest

from job.datasets.push import plan_push
from job.datasets.synthetic import SIZE
from job.runs.cost import read_cost
from job.runs.progress import metrics_of
from job.runs.run import Run
from job.runs.search import survey
from job.storage.open_store import open_store
from job.text import duration, percent
from job.training.matching import box_iou
from tests.support.browser import opened
from tests.support.cli_process import job

SECTIONS = (
    *("verdict", "classes", "next", "images", "confidence", "sizes", "use", "curves", "epochs", "losses", "start"),
    *("attempts", "cost", "exactness", "tracking", "repeat"),
)

RUN = "yolov11_wildlife2"

NUM_REMOVED, NUM_SWAPPED = 20, 10

NUM_SPECIES = 4

SIDES = ("left", "top", "right", "bottom")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A folder with the demo of A."""
    folder = tmp_path_factory.mktemp("demo")
    bucket = folder / "bucket"
    args = ("train", "--recipe", "A", "--profile", "demo", "--bucket", bucket, "--workdir", folder / "work")
    done = job(*args)
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
    )  # no second of the baseline counts for A


def test_the_folder_that_people_know_is_there(run):
    """After a run its folder holds what Ultralytics users look for, plots included."""
    names = {stored.key.removeprefix(run.key("")) for stored in run.store.list(run.key(""))}
    wanted = {"weights/best.pt", "weights/last.pt", "results.csv", "args.yaml", "results.png", "BoxPR_curve.png"}
    assert wanted | {"run.json", "final.json", "attempts/0001.json"} <= names


def test_the_report_has_the_metrics_and_the_cost_of_the_run(run, report):
    """Opened in a browser, the report has every section, the metrics of row 0, of each row of results.csv and of the
    final record, and the seconds of each phase.
    """
    rows = list(csv.DictReader(io.StringIO(run.store.read(run.key("results.csv")).decode())))
    rows_metrics = [metrics_of({name: float(value) for name, value in row.items()}) for row in rows]
    final, cost = run.final(), read_cost(run)
    before, after = final.comparison.before, final.comparison.after
    with opened(report) as page:
        assert page.measure("[...document.querySelectorAll('header[id], section[id]')].map(e => e.id)") == [*SECTIONS]
        assert page.measure("document.querySelectorAll('figure > svg').length") == 4 + 4 + 3 + 12  # 12 are pictures
        shown = [
            [cell.split(" ")[0] for cell in line.split("\t")][:5]
            for line in page.page.locator("#epochs tbody tr").all_inner_texts()
        ]
        names = ("map50", "f1", "precision", "recall")
        expected = [
            [str(epoch), *(percent(metrics[name]).split(" ")[0] for name in names)]
            for epoch, metrics in enumerate([before, *rows_metrics])
        ]
        assert shown == expected
        assert percent(before["f1"]) in page.texts("h1")[0]
        assert percent(after["f1"]) in page.texts("h1")[0]
        spent = {label: s for label, s in cost.seconds.items() if s}
        assert page.texts("#cost tbody tr") == [
            f"{label} {duration(s)} {percent(s / cost.total_s)}" for label, s in spent.items()
        ]
        assert duration(cost.total_s) in page.texts("#cost tfoot")[0]
        assert page.requests == []
        assert page.complaints == []


def test_the_report_follows_the_colour_scheme_of_the_browser(report):
    """Page and charts are light or dark as the browser asks, and request nothing in either."""
    found = []
    for dark in (False, True):
        with opened(report, dark=dark) as page:
            ink = page.measure("getComputedStyle(document.querySelector('#curves figure svg text')).fill")
            found.append((page.measure("getComputedStyle(document.body).backgroundColor"), ink))
            assert (page.requests, page.complaints) == ([], [])
    (light, light_ink), (dark, dark_ink) = found
    assert sum(rgb(light)) > 600
    assert sum(rgb(dark)) < 150
    assert light_ink != dark_ink


def test_the_report_can_be_read_on_a_phone(report):
    """At 390 px nothing is wider than the page, and no text in a chart is smaller than 9 px."""
    smallest = """Math.min(...[...document.querySelectorAll('figure svg text')].map(text =>
        parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
    with opened(report, width=390) as page:
        assert page.measure("document.documentElement.scrollWidth") <= 390
        assert page.measure(smallest) >= 9
        assert (page.requests, page.complaints) == ([], [])


@pytest.fixture(scope="module")
def spoilt(bucket, tmp_path_factory):
    """The demo's images as another dataset, `NUM_REMOVED` labels of the validation set removed and `NUM_SWAPPED` of
    another class; these are the objects that the model is surest of, in random order.

    Returns:
        The boxes that are to be found: kind, image, and left, top, right and bottom in pixels.
    """
    folder = tmp_path_factory.mktemp("spoilt")
    shutil.copytree(bucket / "datasets" / "wildlife-demo", folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "versions")
    sure = []
    for image in json.loads((bucket / "runs" / RUN / "evaluation.json").read_text())["images"]:
        label = folder / image["image"].replace("images/", "labels/").replace(".jpg", ".txt")
        rows = label.read_text().splitlines()
        for *shares, category, is_right, confidence in image["predictions"]:
            box = [SIZE * share for share in shares]
            fits = [
                line
                for line, row in enumerate(rows)
                if row.startswith(f"{category} ") and iou(box, pixels_of(row)) > 0.5
            ]
            sure += [(confidence, label, fits[0])] if is_right and fits else []
    chosen = sorted(sure, key=lambda found: -found[0])[: NUM_REMOVED + NUM_SWAPPED]
    random.Random(0).shuffle(chosen)  # noqa: S311 -- not for secrets
    wanted = []
    for number, (_, label, line) in enumerate(chosen):
        rows = label.read_text().split("\n")
        kind = "missing label" if number < NUM_REMOVED else "wrong class"
        wanted.append((kind, f"images/val/{label.stem}.jpg", pixels_of(rows[line])))
        category, box = rows[line].split(" ", 1)
        rows[line] = "" if kind == "missing label" else f"{(int(category) + 1) % NUM_SPECIES} {box}"
        label.write_text("\n".join(rows))
    plan_push(open_store(str(bucket)), folder, "spoilt").send()
    return wanted


@pytest.mark.full
def test_an_audit_finds_labels_that_were_removed_or_swapped(bucket, spoilt, tmp_path):
    """Of labels that were removed or got another class, each is among the first 40 findings, with its kind and box."""
    args = ("--split", "val", "--dataset", "spoilt", "--bucket", bucket)
    done = job("audit", RUN, *args, "--out", tmp_path / "audit", "--workdir", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    first = list(csv.DictReader(io.StringIO((tmp_path / "audit/audit-val.csv").read_text())))[:40]
    missed = [
        (kind, image)
        for kind, image, box in spoilt
        if not any(
            (row["kind"], row["picture"]) == (kind, image) and iou(box, [float(row[side]) for side in SIDES]) > 0.5
            for row in first
        )
    ]
    assert missed == []
    for width in (1180, 390):
        with opened(tmp_path / "audit/audit-val.html", width=width) as page:
            assert page.measure("document.querySelectorAll('.crops image').length") >= 40
            assert page.measure("document.documentElement.scrollWidth") <= width
            assert (page.requests, page.complaints) == ([], [])


@pytest.mark.parametrize("px", [192, pytest.param(256, marks=pytest.mark.full)])
def test_an_export_of_the_demo_agrees_with_its_weights(bucket, tmp_path, px):
    """A model that has learned something passes its check at the size that it was trained at, and at another one."""
    pytest.importorskip("onnxruntime", reason="the packages of the extra `export` are not installed; `make test` does")
    args = ("--imgsz", px, "--pictures", "6", "--bucket", bucket, "--out", tmp_path / "out")
    done = job("export", RUN, *args, "--workdir", tmp_path / "work", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["parity"]
    assert found["original"]["f1"] > 0.2
    assert found["num_in_both"] > 5
    assert "## Licence" in (tmp_path / "out" / "model-card.md").read_text()


def pixels_of(row):
    """Return the box of a row of a label in pixels of a picture of the demo."""
    x, y, width, height = (SIZE * float(value) for value in row.split()[1:])
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def iou(one, other):
    """Return the overlap of two boxes."""
    return float(box_iou(np.array([one]), np.array([other]))[0, 0])


def rgb(colour):
    """Return the red, green and blue of a CSS colour."""
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]
