"""``job evaluate`` before any model is loaded, and what it prints."""

import pytest

from job.cli.app import main
from job.cli.evaluate import CHOSEN_HERE, format_evaluation
from job.datasets.lockfile import read_version
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.predicting import make_finished_run, untrained_run
from tests.support.run_records import record_run
from tests.support.split_evaluation import record_evaluation
from tests.support.tiny_dataset import make_tiny_dataset


def refused(capsys, *words):
    """Return the exit code and the message of an evaluation that is refused."""
    code = main(["evaluate", *map(str, words)])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "train"), "--split: must be"),
        (("--recall", "1.5"), "--recall: must be a number above 0 and up to 1, got"),
        (("--tiles", "-1"), "--tiles: must be"),
        (("--device", "0,1"), "--device: must be one device, got '0,1'"),
    ],
)
def test_a_flag_out_of_range_is_refused(capsys, tmp_path, words, message):
    """A mistyped value ends with 2 before the bucket is read."""
    code, text = refused(capsys, "zebra", *words, "--bucket", tmp_path / "none")
    assert (code, message in text) == (2, True)


def test_a_run_must_be_finished(capsys, tmp_path):
    """The best weights of an unfinished run may still change."""
    untrained_run(tmp_path / "bucket")
    code, message = refused(capsys, "zebra", "--bucket", tmp_path / "bucket")
    assert (code, "run zebra: is not finished" in message) == (65, True)


def test_a_split_that_the_data_have_not_is_refused(capsys, tmp_path):
    """The message says how to get a test split, and nothing is written."""
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"weights")
    bucket = make_finished_run(tmp_path / "bucket", weights)
    make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=2, num_val=2), bucket)
    run = Run(open_store(bucket), "zebra")
    digest = read_version(run.store, "tiny").digest
    record = run.record()
    dataset = record.dataset.model_copy(update={"name": "tiny", "digest": digest})
    run.write("run.json", record.model_copy(update={"dataset": dataset}), overwrite=True)
    capsys.readouterr()
    code, message = refused(capsys, "zebra", "--split", "test", "--bucket", bucket)
    assert (code, "has no test split; pass --split val" in message) == (65, True)
    assert not (tmp_path / "bucket/runs/zebra/evaluations").exists()


@pytest.mark.parametrize("split", ["test", "val"])
def test_the_score_fits_80_columns(tmp_path, split):
    """Long names of classes are cut, and only a score of `val` says that it chose its own threshold."""
    run = record_run(tmp_path / "bucket", [0.6, 0.7])
    names = ["zebra", "a very long name of a class that fits into no column \x1b[31m", *map(str, range(10))]
    lines = format_evaluation(record_evaluation(run, split, names))
    sure = format_evaluation(record_evaluation(run, split, names, share=(1.0, 1.0, 1.0)))
    assert max(map(len, [*lines, *sure])) <= 80
    assert "\x1b" not in "".join(lines)
    shown = " ".join(" ".join(lines).split())
    assert (CHOSEN_HERE in shown) is (split == "val")
    assert "F1 50.0 [45.0, 55.0] %" in shown
