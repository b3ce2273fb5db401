"""Evaluations of a trained run on a test split: the figures of Ultralytics, and those of the run's own validation."""

import json
from pathlib import Path

import pytest

from job.runs.evaluation import SplitEvaluation
from job.runs.progress import EvaluationRecord
from tests.support.bucket import make_bucket, run_in
from tests.support.cli_process import job
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import LEARNING

TRAIN = ("train", *LEARNING, "--plots", "false", "--workers", "0", "--checkpoint-every", "0", "--run", "lesson")

PER_BATCH = 4
"""Pictures at once in the validations of a training with batches of two."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset with a test split, of which one picture is empty."""
    folder = tmp_path_factory.mktemp("data")
    data = make_tiny_dataset(folder / "tiny", num_train=32, num_val=6, num_classes=1)
    drawn = make_tiny_dataset(folder / "drawn", num_train=1, num_val=9, num_classes=1, seed=7)
    for kind in ("images", "labels"):
        (drawn / kind / "val").rename(data / kind / "test")
    (data / "labels/test/000.txt").write_text("")
    with (data / "data.yaml").open("a") as opened:
        opened.write("test: images/test\n")
    return data


@pytest.fixture(scope="module")
def bucket(data, tmp_path_factory):
    """A bucket with a run that has learned to find most objects."""
    folder = tmp_path_factory.mktemp("trained")
    bucket = make_bucket(data, folder / "bucket")
    done = job(*TRAIN, "--bucket", bucket, "--workdir", folder / "work")
    assert done.returncode == 0, done.stderr
    return bucket


def evaluate(bucket, *words):
    """Evaluate the run, and return the record that it printed."""
    done = job("evaluate", "lesson", *words, "--device", "cpu", "--json", "--bucket", bucket, OMP_NUM_THREADS=1)
    assert done.returncode == 0, done.stderr
    return SplitEvaluation.model_validate(json.loads(done.stdout))


def test_figures_are_those_of_ultralytics_on_the_test_split(bucket, data, confined, tmp_path):
    """Precision, recall and mAP without tiles are those of `val` of Ultralytics, which are not 0, and the record in the
    bucket is what is printed.
    """
    from ultralytics import YOLO  # noqa: PLC0415 -- once Ultralytics is confined

    record = evaluate(bucket)
    run = run_in(bucket, "lesson")
    assert run.read(SplitEvaluation, "evaluations/test.json") == record
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {data}\n{(data / 'data.yaml').read_text()}")
    metrics = YOLO(Path(bucket) / "runs/lesson/weights/best.pt").val(
        data=str(yaml),
        split="test",
        imgsz=64,
        batch=PER_BATCH,
        device="cpu",
        workers=0,
        plots=False,
        max_det=record.max_det,
        project=str(tmp_path / "stock"),
    )
    precision, recall, map50, map50_95 = metrics.box.mean_results()
    assert min(precision, recall, map50, map50_95) > 0
    assert list(record.stock.model_dump().values()) == pytest.approx([precision, recall, map50, map50_95], abs=1e-6)
    assert (record.total.map50.value, record.total.map50_95.value) == pytest.approx((map50, map50_95), abs=1e-5)
    assert [each.map50.value for each in record.classes] == pytest.approx(list(metrics.box.ap50), abs=1e-5)
    assert (record.split, len(record.pictures), record.num_empty, record.is_chosen_here) == ("test", 9, 1, False)
    assert (
        sum(each.num_objects for each in record.sizes)
        == record.total.num_objects
        == sum(each.num_objects for each in record.sizes_at_imgsz)
    )


def test_on_val_the_operating_point_is_that_of_the_run(bucket):
    """The threshold of all classes is the one that the training recorded, and each picture has the same counts; the
    record says that its threshold comes from the same pictures.
    """
    record = evaluate(bucket, "--split", "val")
    trained = run_in(bucket, "lesson").read(EvaluationRecord, "evaluation.json")
    assert record.confidence == pytest.approx(trained.operating_point["confidence"], abs=1e-4)
    assert record.pictures == trained.pictures
    assert record.is_chosen_here
    of_one = 1 / record.total.num_objects  # Ultralytics interpolates between two detections
    assert record.total.recall.value == pytest.approx(trained.operating_point["recall"], abs=of_one)
    assert record.digest == run_in(bucket, "lesson").record().dataset.val


def test_tiles_and_a_recall_are_part_of_the_record(bucket):
    """With tiles and a recall the thresholds reach it on the validation split, where the same tiles are looked at."""
    record = evaluate(bucket, "--tiles", "32", "--recall", "0.3", "--split", "val")
    assert (record.tiles, record.rule) == (32, "recall 0.3")
    assert record.total.num_found >= 0.3 * record.total.num_objects
