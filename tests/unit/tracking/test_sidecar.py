"""The process that tracks a run is never in its way."""

import sys

import pytest

from job.errors import PreemptionError
from job.runs.run import Run
from job.storage.open_store import open_store
from job.tracking import sidecar
from job.tracking.sidecar import Tracking
from tests.support.run_records import record_run
from tests.support.signal_mask import hears_no_notice


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run in a bucket that has nothing of it, and tracking that is not turned off."""
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "bucket").mkdir()
    return Run(open_store(str(tmp_path / "bucket")), "zebra")


@pytest.fixture
def stuck(tmp_path, monkeypatch):
    """Put a program that reads nothing and never ends in the place of Python."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_process_that_is_stuck_is_given_up(run, tmp_path, stuck, monkeypatch, caplog):
    """More news than it could ever be told does not block, and its end is waited for no longer than is said."""
    monkeypatch.setattr(sidecar, "LAST_S", 0.5)
    with Tracking(run, 1, tmp_path / "folder") as tracking:
        for _ in range(100_000):
            tracking.news()
        followed = tracking._process
    assert followed.returncode == -9
    assert "was given up; nothing is lost, `job wandb sync zebra` sends what is missing" in caplog.text


def test_a_signal_to_the_group_does_not_reach_it(run, tmp_path, stuck, monkeypatch):
    """Ctrl-C, SIGTERM and a closed terminal are the trainer's to answer, which then tells it how the attempt ends."""
    monkeypatch.setattr(sidecar, "LAST_S", 0.1)
    with Tracking(run, 1, tmp_path / "folder") as tracking:
        assert hears_no_notice(tracking._process.pid)


def test_a_process_that_ends_too_early_is_told_at_the_next_news(tmp_path, monkeypatch, caplog):
    """What went wrong is not kept until the end of a training of days, and is said once."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = record_run(tmp_path / "bucket", (0.5, 0.6))
    run.claim({"machine": "another", "host": "elsewhere"})
    with Tracking(run, 1, tmp_path / "folder") as tracking:
        tracking._process.wait()
        tracking.news()
        assert "was superseded by attempt" in caplog.text
        tracking.news()
    assert len(caplog.records) == 1


def test_a_machine_that_goes_is_not_kept(run, tmp_path, stuck, monkeypatch, caplog):
    """After a notice there is less patience, and nothing to be said."""
    monkeypatch.setattr(sidecar, "HURRIED_S", 0.5)
    monkeypatch.setattr(sidecar, "LAST_S", 1000.0)
    with pytest.raises(PreemptionError), Tracking(run, 1, tmp_path / "folder"):
        raise PreemptionError("taken", "preempted")
    assert caplog.records == []


def test_a_program_that_cannot_be_started_is_a_warning(run, tmp_path, monkeypatch, caplog):
    """Where no process can be made, the run goes on without a curve."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Tracking(run, 1, tmp_path / "folder") as tracking:
        tracking.news()
    assert "W&B: cannot be started" in caplog.text


def test_what_goes_wrong_is_told_at_the_end(tmp_path, monkeypatch, caplog):
    """The last line that the process wrote is the reason of the warning; here, that another attempt has come."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = record_run(tmp_path / "bucket", (0.5, 0.6))
    with Tracking(run, 1, tmp_path / "folder"):
        run.claim({"machine": "another", "host": "elsewhere"})
    assert "was superseded by attempt" in caplog.text


def test_whoever_turns_it_off_gets_no_process(run, tmp_path, monkeypatch):
    """With WANDB_MODE=disabled nothing is started."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Tracking(run, 1, tmp_path / "folder") as tracking:
        assert tracking._process is None
    assert not (tmp_path / "folder").exists()
