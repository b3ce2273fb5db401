"""``job export`` before any model is loaded, its bounds and its card."""

import importlib.metadata
import json
import math

import pytest

from job.cli.app import main
from job.export.card import escape, model_card
from job.export.records import Bounds, ExportRecord, ExportRequest, Parity
from job.prediction.threshold import choose_threshold
from job.training.evaluation_record import Evaluation
from tests.support.bucket import run_in
from tests.support.predicting import make_finished_run, untrained_run
from tests.support.run_records import NAMES, evaluation

BOUNDS = Bounds(confidence=0.001, px=0.1, metric=0.005)


@pytest.fixture
def bucket(tmp_path):
    """A bucket with a finished run, whose weights are a file of text."""
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    return make_finished_run(tmp_path / "bucket", path)


def parity(**changes):
    """Return what a check found without any difference."""
    metrics = dict.fromkeys(("precision", "recall", "f1", "map50"), 0.7)
    same = {"num_pictures": 3, "num_of": 8, "num_candidates": 900, "confidence": 0.0, "px": 0.0, "worst": "a.jpg"}
    same |= {"at": 0.3, "original": metrics, "exported": metrics, "num_in_both": 9, "num_in_one": 0}
    return Parity(**same | changes)


def export_record(run, **changes):
    """Return the record of an export of a run."""
    asked = {"run": run, "weights": "a" * 64, "dataset": "b" * 64, "format": "onnx", "imgsz": 64, "pictures": 100}
    request = ExportRequest(**asked | changes, bounds=BOUNDS)
    return ExportRecord(request=request, px=64, parity=parity(), versions={"onnx": "1"}, files={"best.onnx": "c" * 64})


def refused(capsys, *words):
    """Return the exit code and the message of an export that is refused."""
    code = main(["export", "zebra", *map(str, words)])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


def test_missing_packages_are_one_message(bucket, tmp_path, capsys, monkeypatch):
    """Without the packages it ends with 78 before anything is fetched, and names all of them and what to run."""
    version = importlib.metadata.version

    def find(name):
        if name.startswith("onnx"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", find)
    code, message = refused(capsys, "--bucket", bucket, "--out", tmp_path / "out", "--workdir", tmp_path / "work")
    assert code == 78
    assert "onnx and onnxruntime and onnxslim are not installed; run `make export RUN=...`" in message
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "work" / "datasets").exists()


def test_a_run_must_be_finished(capsys, tmp_path):
    """The best weights of an unfinished run may still change."""
    untrained_run(tmp_path / "bucket")
    code, message = refused(capsys, "--bucket", tmp_path / "bucket")
    assert (code, "run zebra: is not finished" in message) == (65, True)


def test_a_name_that_no_folder_can_have_is_refused(bucket, capsys):
    """It is refused before anything is exported."""
    code, message = refused(capsys, "--bucket", bucket, "--out", "n" * 300)
    assert (code, "the name is too long for this file system; shorten it" in message) == (74, True)


def test_another_export_is_not_replaced(bucket, capsys, tmp_path):
    """A place with the export of other weights is refused, with what differs."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_bytes(export_record("zebra").to_json())
    code, message = refused(capsys, "--bucket", bucket, "--out", out)
    assert code == 65
    assert "has another export; choose another --out" in message
    assert "weights: has 'aaaa" in message


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, []),
        ({"confidence": 0.002}, ["confidence: the greatest difference is 0.002, in a.jpg, and 0.001 is allowed"]),
        ({"px": 0.2}, ["coordinates: the greatest difference is 0.2 px, and 0.1 is allowed"]),
        ({"confidence": math.nan}, ["confidence: the greatest difference is nan, in a.jpg, and 0.001 is allowed"]),
    ],
)
def test_a_difference_beyond_its_bound_is_named(found, expected):
    """What is beyond its bound is named with it, and what is no number is beyond every bound."""
    assert parity(**found).beyond(BOUNDS) == expected


def test_a_metric_beyond_its_bound_is_named():
    """Each metric is compared, whichever of the two is better."""
    metrics = {"precision": 0.7, "recall": 0.71, "f1": 0.7, "map50": 0.7}
    assert parity(exported=metrics).beyond(BOUNDS) == ["recall: the greatest difference is 0.01, and 0.005 is allowed"]


def test_the_card_has_what_a_reader_needs(bucket):
    """Classes, threshold with its metrics, size, data digest, start weights, versions and licence are on the card."""
    run = run_in(bucket)
    found = Evaluation.model_validate_json(json.dumps(evaluation(0.7)))
    card = model_card(run.record(), run.final(), found, choose_threshold("zebra", found), export_record("zebra"))
    assert card.startswith("# zebra, ONNX at 64 px\n")
    for text in (
        "Threshold: **0.31**. On the whole validation set that gives precision 70.0 %, recall 60.0 %, F1 64.6 %.",
        f"SHA-256 `{'c' * 64}`",
        f"digest `{'b' * 64}`",
        f"runs/base/weights/best.pt, SHA-256 `{'a' * 64}`",
        "| onnx | 1 |",
        "3 of 8 validation pictures",
        "AGPL-3.0",
        "| 0 | zebra | 20 | 70.0 % | 60.0 % | 70.0 % | 70.0 % |",
    ):
        assert text in card
    assert NAMES[1] not in card
    assert escape(NAMES[1]) in card


def test_names_do_not_become_markup():
    """Pipes, tags, links and line ends in the name of a class stay text."""
    assert escape("a|b\n<i>[c](d)`e`") == "a\\|b\\\\n\\<i\\>\\[c\\](d)\\`e\\`"
