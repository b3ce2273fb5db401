"""Pauses of all processes and clocks that leap change no figure and no weight."""

import csv
import io
import math
import time
from types import SimpleNamespace

import pytest
import torch

from job.runs import checkpoint
from job.storage.open_store import open_store
from tests.support.bucket import run_in, tensors_of
from tests.support.cli_process import TIMEOUT_S, job, kill, start_job, wait_until
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import LEARNING

TRAIN = ("train", *LEARNING, "--plots", "false", "--workers", "2", "--run", "zebra")

SHORT = ("download:1", "check:1", "start-up:1", "step:3", "write:1", "manifest:2", "retention:1", "mirror:1")

LONG = ("nms:49", "nms:56", "nms:61")
"""Within NMS of the last three validations of six images, none the last of its batch, longer than stock waits."""

LATE = ("validation:2", "final evaluation:1", "final record:1")

PAUSES = [f"{point}:pause" for point in (*SHORT, *LATE)] + [f"{point}:long pause" for point in LONG]
"""In every phase."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset that is learnt within a few epochs."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    return make_tiny_dataset(folder, num_train=32, num_val=6, num_classes=1)


def results_of(bucket):
    """Return the rows of ``results.csv`` without the time that they took."""
    text = open_store(bucket).read("runs/zebra/results.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


def end_of(bucket):
    """Return the final tensors and figures of the run, and its best epoch."""
    final = run_in(bucket).final()
    return tensors_of(bucket), final.comparison, final.best_epoch, final.bits


def test_the_training_of_these_tests_learns(undisturbed):
    """Figures that are 0 in every epoch would not distinguish trainings."""
    recalls = [float(row["metrics/recall(B)"]) for row in results_of(undisturbed)]
    assert max(recalls) > 0.5
    assert len(set(recalls)) > 2


def test_pauses_in_every_phase_change_no_figure(bucket, undisturbed):
    """A run whose processes are stopped and continued in every phase, within NMS for longer than the time limit of
    stock Ultralytics, ends with the rows, the figures and the weights of an undisturbed one.
    """
    process = start_job(*TRAIN, "--bucket", bucket, at=",".join(PAUSES))
    said = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 0, said
    assert results_of(bucket) == results_of(undisturbed)
    assert end_of(bucket) == end_of(undisturbed)


@pytest.mark.full
def test_a_training_that_learns_survives_its_machine(bucket, undisturbed):
    """A run that was killed after its figures differed from 0 ends with the rows, the figures, the best epoch and the
    weights of an undisturbed one.
    """
    process = start_job(*TRAIN, "--bucket", bucket)
    wait_until(lambda: any(kept.epoch >= 7 for kept in checkpoint.committed(run_in(bucket))), process)
    kill(process)
    resumed = job(*TRAIN, "--bucket", bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert results_of(bucket) == results_of(undisturbed)
    assert end_of(bucket) == end_of(undisturbed)


def test_nms_has_no_time_limit(confined, monkeypatch):
    """Where the clock leaps by an hour at each look, every image of a batch keeps its detections."""
    from ultralytics.utils import nms  # noqa: PLC0415 -- after Ultralytics was confined

    hours = iter(range(10**6))
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: 3600.0 * next(hours), perf_counter=time.perf_counter))
    boxes = torch.tensor([[10.0, 10.0, 4.0, 4.0, 0.9], [30.0, 30.0, 4.0, 4.0, 0.8]]).T
    found = nms.non_max_suppression(boxes.repeat(5, 1, 1), 0.001, 0.7)
    assert [len(image) for image in found] == [2] * 5
    assert not math.isfinite(nms.non_max_suppression.keywords["max_time_img"])
