"""Requests of a start, as the bucket's service sees them."""

import pytest

from tests.support.bucket import make_bucket, run_in
from tests.support.cli_process import TIMEOUT_S, start_job
from tests.support.fault_proxy import running_proxy

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "3", "--imgsz", "64", "--batch", "4"),
    *("--plots", "false", "--workers", "0", "--run", "zebra"),
)


@pytest.mark.full
def test_a_resumption_after_two_hundred_attempts_costs_few_more_requests(data, emulator, monkeypatch):
    """From the start of the process to its first step; each attempt is killed there, without an end record."""
    with running_proxy(emulator.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        bucket = make_bucket(data, emulator.make_bucket() + "/wild")
        attempt(bucket, "manifest:2:kill")
        before = len(proxy.requests)
        attempt(bucket, "step:7:kill")
        few = len(proxy.requests) - before
        add_attempts(run_in(bucket), 200)
        attempt(bucket, "step:7:kill")  # bundles them, as each of them would have
        before = len(proxy.requests)
        attempt(bucket, "step:7:kill")
        assert len(run_in(bucket).attempt_numbers()) == 204
        assert len(proxy.requests) - before <= few + 40


def attempt(bucket, at):
    """Start the run; it is killed at a point."""
    process = start_job(*TRAIN, "--bucket", bucket, at=at)
    said = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == -9, said


def add_attempts(run, num):
    """Add copies of the second attempt's records."""
    for stored in run.store.list(run.key("attempts/0002")):
        text = run.store.read(stored.key).decode()
        for number in range(3, num + 3):
            copy = text.replace('"attempt": 2', f'"attempt": {number}')
            run.store.put(stored.key.replace("0002", f"{number:04d}"), copy.encode())
