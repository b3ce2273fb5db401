"""An estimate from a few trained steps."""

import json

from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import job
from tests.support.tiny_dataset import make_tiny_dataset


def test_an_estimate_from_a_few_steps(tmp_path):
    """Where no run like it is recorded, steps are trained without own or published weights, and the bucket gets no
    run; the figures follow from what was measured.
    """
    data = make_tiny_dataset(tmp_path / "tiny", num_train=22, num_val=4)
    bucket = make_bucket(data, tmp_path / "bucket")
    before = open_store(str(bucket)).list()
    words = ("estimate", "--recipe", "A", "--imgsz", "64", "--epochs", "7", "--batch", "4", "--workers", "0")
    done = job(*words, "--usd-per-hour", "3.6", "--json", "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    estimate = json.loads(done.stdout)
    assert estimate["epochs"] == 7
    assert "4 steps measured now" in estimate["based_on"]  # six in an epoch, of which two are warm-up
    assert estimate["epoch_s"] > 0
    assert abs(estimate["hours"][0] * 3600 - 7 * estimate["epoch_s"] - estimate["around_s"]) < 1e-6
    assert abs(estimate["usd"][0] - 3.6 * estimate["hours"][0]) < 1e-9
    assert "there are no own weights yet; measured with the model of recipe base" in done.stderr
    assert open_store(str(bucket)).list() == before
    assert list((tmp_path / "work" / "runs").iterdir()) == []


def test_both_speeds_of_a_trade_are_measured(bucket):
    """Where no run is recorded, a training that need not be exact is measured, and so is the exact one."""
    words = ("estimate", "--recipe", "base", "--model", "tiny.yaml", "--imgsz", "64", "--epochs", "7", "--batch", "4")
    done = job(*words, "--workers", "0", "--plots", "false", "--deterministic", "false", "--json", "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["not_exact"] == ["deterministic: is off, so kernels may differ from one time to the next"]
    for estimate in (found, found["exact"]):
        assert "4 steps measured now" in estimate["based_on"]
        assert estimate["epoch_s"] > 0
