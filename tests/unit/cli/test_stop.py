"""`job stop` on runs in every state: only a running one gets a request."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from job.cli import stop as module
from job.cli.app import main
from job.runs.run import Claim, Run
from tests.support.run_records import record_run


@pytest.fixture
def run(tmp_path):
    """A run whose second attempt has a heartbeat of days ago."""
    return record_run(tmp_path / "bucket", [0.6, 0.65, 0.7, 0.72], finished=False)


@pytest.fixture(autouse=True)
def beats(monkeypatch):
    """Heartbeats that are waited for come within a second."""
    monkeypatch.setattr(module, "EVERY_S", 0.3)
    monkeypatch.setattr(module, "POLL_S", 0.05)


def stop(run, capsys):
    """Ask a run to stop; return the exit code and the output."""
    code = main(["stop", run.name, "--bucket", run.store.uri])
    said = capsys.readouterr()
    return code, said.out + said.err


def num_requests(run):
    """Return how many requests to stop lie in the bucket."""
    return sum(stored.key.endswith(".stop.json") for stored in run.store.list())


def alive(run, number, silent_s):
    """Write a heartbeat of so many seconds ago."""
    at = (datetime.now(UTC) - timedelta(seconds=silent_s)).isoformat(timespec="milliseconds")
    place = {"epoch": 4, "batch": 0}
    Claim(run, number).heartbeat({"at": at, "position": place, "seconds": {}, "kept": None})


def test_a_running_attempt_is_asked(run, capsys):
    """An attempt with a recent heartbeat gets the request."""
    alive(run, 2, 5)
    code, said = stop(run, capsys)
    assert (code, num_requests(run)) == (0, 1)
    assert "attempt 2 on here was asked to stop" in said


def test_what_has_vanished_is_not_asked(run, capsys):
    """A run whose newest attempt is silent for minutes does not run: message and exit code say so, and no
    request is left for the next start to end by.
    """
    alive(run, 2, 300)
    code, said = stop(run, capsys)
    assert (code, num_requests(run)) == (65, 0)
    assert "does not run, attempt 2 has vanished" in said


def test_a_running_attempt_whose_clock_is_wrong_is_asked(run, capsys, monkeypatch):
    """A machine whose clock is minutes behind runs, as its heartbeats go on."""
    monkeypatch.setattr(module, "EVERY_S", 600)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.1):
            alive(run, 2, 300)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        code, said = stop(run, capsys)
    finally:
        ended.set()
        beating.join()
    assert (code, num_requests(run)) == (0, 1)
    assert "attempt 2 on here was asked to stop" in said


@pytest.mark.parametrize("reason", ["preempted", "interrupted", "failed", "transient", "superseded"])
def test_what_has_ended_is_not_asked(run, capsys, reason):
    """A run whose newest attempt has ended does not run, however it ended."""
    alive(run, 2, 5)
    Claim(run, 2).end(reason, {"position": {"epoch": 4, "batch": 0}, "seconds": {}})
    code, said = stop(run, capsys)
    assert (code, num_requests(run)) == (65, 0)
    assert f"does not run, attempt 2 has ended, {reason}" in said


def test_a_paused_run_is_not_asked(run, capsys):
    """A paused run gets no request, and the command succeeds."""
    Claim(run, 2).end("paused", {"position": {"epoch": 4, "batch": 0}, "seconds": {}})
    code, said = stop(run, capsys)
    assert (code, num_requests(run)) == (0, 0)
    assert "is paused" in said


def test_what_has_not_begun_is_not_asked(run, capsys):
    """A run that no attempt has claimed yet does not run."""
    new = Run(run.store, "gnu")
    run.store.put(new.key("run.json"), run.store.read(run.key("run.json")).replace(b'"zebra"', b'"gnu"'))
    code, said = stop(new, capsys)
    assert (code, num_requests(run)) == (65, 0)
    assert "no attempt has begun yet" in said
