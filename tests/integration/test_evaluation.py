"""Evaluation records of the first and the last validation, which change nothing, and the cost of a killed run."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from job.cli.app import main
from job.runs.cost import read_cost
from job.runs.progress import metrics_of
from job.storage.open_store import open_store
from tests.support.browser import opened
from tests.support.bucket import make_bucket, run_in, tensors_of
from tests.support.cli_process import ROOT, SOON_S, TIMEOUT_S, job, kill, surroundings, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

SMALL = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--imgsz", "64", "--batch", "4", "--nbs", "8"),
    *("--plots", "false", "--workers", "0", "--checkpoint-every", "0", "--run", "zebra"),
)

BLIND = """
import contextlib, sys
from job.cli.app import main
from tests.support.fault_point_cli import in_training

def blind():
    from job.training import loop
    from job.training.evaluation_record import Evaluation
    loop.detections_collected = lambda validator: contextlib.nullcontext([])
    loop.describe_validation = lambda validator, seen, row: Evaluation.model_construct(row=row)

in_training(blind)
sys.exit(main(sys.argv[1:]))
"""
"""The command line without evaluation records."""

LIVELY = """
import sys
from job.cli.app import main
from job.runs.heartbeat import Heartbeat

Heartbeat.__init__.__defaults__ = (0.05,)
sys.exit(main(sys.argv[1:]))
"""
"""The command line with a heartbeat every 0.05 s."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset whose images are wider than high, so that they are fitted into their batch."""
    folder = make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=22, num_val=6)
    for path in (folder / "images" / "val").iterdir():
        with Image.open(path) as image:
            image.resize((100, 60)).save(path)
    return folder


def is_within_an_epoch(bucket, attempt):
    """Whether the heartbeat of an attempt is two or three steps into an epoch after the first."""
    run = run_in(bucket)
    heartbeat = run.attempt(attempt).heartbeat if attempt in run.attempt_numbers() else None
    position = heartbeat.position if heartbeat is not None else None
    return position is not None and position.epoch > 0 and position.batch in {2, 3}


@pytest.fixture(scope="module")
def words(data, tmp_path_factory):
    """The command for three epochs of six batches from weights that were trained for one, and are measured first."""
    bucket = make_bucket(data, tmp_path_factory.mktemp("start") / "bucket")
    done = job(*SMALL, "--epochs", "1", "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    return (*SMALL, "--epochs", "3", "--weights", f"{bucket}/runs/zebra/weights/last.pt")


@pytest.fixture(scope="module")
def killed(data, words, tmp_path_factory):
    """The bucket of a run that was killed in its second epoch, stopped in its third, and finished."""
    bucket = make_bucket(data, tmp_path_factory.mktemp("killed") / "bucket")
    for attempt, end in ((1, kill), (2, lambda process: process.terminate())):
        process = subprocess.Popen(
            [sys.executable, "-c", LIVELY, *words, "--bucket", bucket],
            env=surroundings({}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda attempt=attempt: is_within_an_epoch(bucket, attempt), process)
        end(process)
        process.wait(timeout=SOON_S)
    done = job(*words, "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    assert "report" not in done.stderr
    return bucket


def read_json(bucket, name):
    """Return one of the run's files."""
    return json.loads(run_in(bucket).store.read(f"runs/zebra/{name}"))


def test_recording_changes_no_bit(bucket, words, killed):
    """A run without evaluation records ends with the tensors and metrics of one that has them."""
    command = [sys.executable, "-c", BLIND, *words, "--bucket", bucket]
    done = subprocess.run(
        command, env=surroundings({"PYTHONPATH": ROOT}), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "operating_point" not in read_json(bucket, "evaluation.json")
    assert tensors_of(bucket) == tensors_of(killed)
    assert run_in(bucket).final().comparison == run_in(killed).final().comparison


def test_the_figures_are_those_of_the_run(killed):
    """Row 0 and the final figures are in the two files, the first kept over every resumption, and the means over the
    classes at the operating point are the run's precision and recall.
    """
    comparison = run_in(killed).final().comparison
    for name, when in (("evaluation-before.json", "before"), ("evaluation.json", "after")):
        evaluation, metrics = read_json(killed, name), getattr(comparison, when)
        assert metrics_of(evaluation["row"]) == metrics
        assert evaluation["operating_point"]["precision"] == pytest.approx(metrics["precision"], abs=1e-4)
        totals = {each: sum(row[each] for row in evaluation["classes"]) for each in ("num_found", "num_false_alarms")}
        at = evaluation["operating_point"]["confidence"] * 100
        for each, total in totals.items():
            assert evaluation[each][math.ceil(at)] <= total <= evaluation[each][math.floor(at)]
            assert len(evaluation[each]) == 101
        num_confused = sum(num for *_, num in evaluation["confusions"])
        assert num_confused <= min(evaluation["num_objects"] - totals["num_found"], totals["num_false_alarms"])
        assert evaluation["operating_point"]["recall"] == pytest.approx(metrics["recall"], abs=1e-4)
        recalls = [entry["recall"] for entry in evaluation["classes"]]
        assert np.mean(recalls) == pytest.approx(metrics["recall"], abs=1e-4)


def test_every_object_is_counted_once_whichever_way_they_are_sorted(killed, data):
    """By image, by class and by size there are as many objects as labels, and as many found and false alarms."""
    labels = [path.read_text().splitlines() for path in (data / "labels" / "val").iterdir()]
    evaluation = read_json(killed, "evaluation.json")
    num_objects = sum(map(len, labels))
    assert evaluation["num_objects"] == num_objects
    assert [sum(entry["num_objects"] for entry in evaluation[by]) for by in ("images", "classes", "sizes")] == [
        num_objects
    ] * 3
    num_missed = sum(entry["num_missed"] for entry in evaluation["images"])
    num_found = [sum(entry["num_found"] for entry in evaluation[by]) for by in ("classes", "sizes")]
    assert num_found == [num_objects - num_missed] * 2
    assert sum(entry["num_false_alarms"] for entry in evaluation["sizes"]) == sum(
        entry["num_false_alarms"] for entry in evaluation["images"]
    )


def test_boxes_lie_where_the_labels_say(killed, data):
    """The objects of an image are its labels, in shares of the image, however it was fitted into its batch."""
    for entry in read_json(killed, "evaluation.json")["images"]:
        label = data / entry["image"].replace("images", "labels").replace(".jpg", ".txt")
        expected = []
        for line in label.read_text().splitlines():
            kind, x, y, width, height = map(float, line.split())
            expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2, kind])
        found = [row[:5] for row in entry["objects"]]
        assert np.allclose(sorted(found), sorted(expected), atol=0.02)


def test_the_seconds_of_every_attempt_add_up(killed):
    """Whether an attempt was killed, stopped or finished, its labels come to its wall time within 1 %."""
    cost = read_cost(run_in(killed))
    assert [attempt.ended for attempt in cost.attempts] == ["vanished", "preempted", "finished"]
    for attempt in cost.attempts:
        assert sum(attempt.seconds.values()) == pytest.approx(attempt.wall_s, rel=0.01)
    assert cost.attempts[0].steps_lost > 0
    assert cost.seconds["recomputed"] > 0


def test_phases_and_cost_are_shown_and_printed_as_json(killed, capsys):
    """`job runs show` fits 80 columns and has the goodput; with --json it has the same figures."""
    assert main(["runs", "show", "zebra", "--bucket", killed, "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["bill"]
    assert main(["runs", "show", "zebra", "--bucket", killed]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines() if not line.startswith(("start", "weights")))
    assert f"goodput     {100 * cost['goodput']:.1f} %" in shown
    assert cost["total_s"] == pytest.approx(sum(cost["seconds"].values()), abs=0.01)


def test_the_report_was_written_by_the_run(killed):
    """At the end the report lies beside the weights, with the last epoch."""
    store = open_store(killed)
    rows = list(csv.DictReader(io.StringIO(store.read("runs/zebra/results.csv").decode())))
    report = store.read("runs/zebra/report.html").decode()
    assert f"complete after {len(rows)} epochs" in report


def test_the_report_has_the_end_of_each_attempt(killed):
    """In a browser the report says how each attempt ended, and how many were cut off."""
    attempts = read_cost(run_in(killed)).attempts
    with opened(Path(killed) / "runs" / "zebra" / "report.html") as page:
        shown = [re.search("vanished|preempted|finished", text)[0] for text in page.texts("#attempts tbody tr")]
        assert shown == [attempt.ended for attempt in attempts] == ["vanished", "preempted", "finished"]
        assert "2 cut off" in page.texts(".strip")[0]
