"""Requests of a start and of a list of runs, as the bucket's service sees them."""

import pytest

from job.cli.app import main
from job.runs.listing import RunListing
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket, run_in
from tests.support.cli_process import TIMEOUT_S, start_job
from tests.support.fault_proxy import running_proxy
from tests.support.run_records import add_attempts, copy_run, record_run

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


def test_a_list_of_three_hundred_runs_takes_one_request_for_each_and_two_more(emulator, tmp_path, monkeypatch, capsys):
    """`job runs list` opens the bucket, asks for the folders of runs, and reads one object of each finished run."""
    run = record_run(tmp_path / "runs", (0.62, 0.66))
    RunListing(run).write_bundle()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    bucket = emulator.make_bucket()
    copy_run(run, open_store(bucket), 300)
    with running_proxy(emulator.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        assert main(["runs", "list", "--bucket", bucket]) == 0
        assert len(proxy.requests) <= 2 + 300
    assert capsys.readouterr().out.count("complete     2/2  66.0%") == 300
