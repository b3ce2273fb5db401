"""Tracking is never in the way of a run."""

import sys

import pytest

from job.errors import PreemptionError
from job.runs.run import Claim, Run
from job.runs.wandb_status import WandbStatus
from job.storage.open_store import open_store
from job.tracking import tracker
from job.tracking.tracker import Tracker
from tests.support.fake_wandb_server import KEY
from tests.support.run_records import record_run
from tests.support.signal_mask import blocks_notices
from tests.support.tracking_status import read_status


@pytest.fixture
def run(tmp_path):
    """A run in a bucket that has nothing of it."""
    (tmp_path / "bucket").mkdir()
    return Run(open_store(str(tmp_path / "bucket")), "zebra")


@pytest.fixture
def key(monkeypatch):
    """A key for a server that does not listen."""
    for name, value in {"MODE": "online", "API_KEY": KEY, "BASE_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


@pytest.fixture
def stuck(key, tmp_path, monkeypatch):
    """Put a program that reads nothing and never ends in the place of Python."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_process_that_is_stuck_is_given_up(run, tmp_path, stuck, monkeypatch, caplog):
    """More commits than the pipe holds do not block, and the end is waited for up to the limit."""
    monkeypatch.setattr(tracker, "FINISH_LIMIT_S", 0.5)
    with Tracker(Claim(run, 1), tmp_path / "folder") as tracking:
        for _ in range(100_000):
            tracking.notify()
        followed = tracking._sidecar._process
    assert followed.returncode == -9
    assert "was given up; nothing is lost, `job wandb sync zebra` sends what is missing" in caplog.text


def test_a_signal_to_the_group_does_not_reach_it(run, tmp_path, stuck, monkeypatch):
    """Ctrl-C, SIGTERM and a closed terminal reach the trainer alone, which then sends it the end of the attempt."""
    monkeypatch.setattr(tracker, "FINISH_LIMIT_S", 0.1)
    with Tracker(Claim(run, 1), tmp_path / "folder") as tracking:
        assert blocks_notices(tracking._sidecar._process.pid)


def test_a_follower_that_ends_too_early_is_named_at_the_next_commit(key, tmp_path, caplog):
    """A failure is not kept until the end of a training of days, and is one warning."""
    run = record_run(tmp_path / "bucket", (0.5, 0.6))
    run.claim({"machine": "another", "host": "elsewhere"})
    with Tracker(Claim(run, 1), tmp_path / "folder") as tracking:
        tracking._sidecar._process.wait()
        tracking.notify()
        assert "was superseded by attempt" in caplog.text
        tracking.notify()
    assert len(caplog.records) == 1


def test_a_machine_that_goes_is_not_kept(run, tmp_path, stuck, monkeypatch, caplog):
    """After a notice the limit is shorter, and there is no warning."""
    monkeypatch.setattr(tracker, "INTERRUPT_LIMIT_S", 0.5)
    monkeypatch.setattr(tracker, "FINISH_LIMIT_S", 1000.0)
    with pytest.raises(PreemptionError), Tracker(Claim(run, 1), tmp_path / "folder"):
        raise PreemptionError("taken", "preempted")
    assert caplog.records == []


def test_a_program_that_cannot_be_started_is_a_warning(run, tmp_path, key, monkeypatch, caplog):
    """Where no process can be made, the run continues without a curve."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Tracker(Claim(run, 1), tmp_path / "folder") as tracking:
        tracking.notify()
    assert "W&B: cannot be started" in caplog.text


def test_a_server_that_refuses_is_named_at_the_end(key, tmp_path, monkeypatch, caplog):
    """The last line that the follower wrote is the reason of the warning, and the status of the attempt has it too."""
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    run = record_run(tmp_path / "bucket", (0.5, 0.6))
    with Tracker(Claim(run, 2), tmp_path / "folder"):
        pass
    assert "W&B: the server did not take the run" in caplog.text
    assert "the server did not take the run" in read_status(run, 2).why


def test_a_run_with_tracking_disabled_gets_no_process(run, tmp_path, monkeypatch):
    """With WANDB_MODE=disabled nothing is started and nothing recorded."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Tracker(Claim(run, 1), tmp_path / "folder") as tracking:
        assert tracking._sidecar is None
    assert not (tmp_path / "folder").exists()
    assert read_status(run, 1) is None


@pytest.mark.parametrize(("mode", "why"), [("offline", "WANDB_MODE is offline"), ("online", "there is no key")])
def test_an_offline_attempt_gets_no_process_and_records_why(run, tmp_path, stuck, monkeypatch, mode, why):
    """Without a server to send to, nothing is started, and the status says why."""
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY")
    with Tracker(Claim(run, 1), tmp_path / "folder") as tracking:
        tracking.notify()
        assert tracking._sidecar is None
    assert read_status(run, 1) == WandbStatus(mode="offline", why=why)
