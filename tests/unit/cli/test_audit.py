"""``job audit`` before any model is loaded."""

from job.cli.app import main
from tests.support.predicting import make_finished_run


def test_a_place_that_cannot_be_written_is_refused_before_the_audit(capsys, tmp_path):
    """The dataset of the run's record is not in the bucket, and is not looked for."""
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"weights")
    bucket = make_finished_run(tmp_path / "bucket", weights)
    assert main(["audit", "zebra", "--out", str(weights), "--bucket", bucket]) == 74
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"bucket {weights}: there is a file where a folder is needed" in captured.err
