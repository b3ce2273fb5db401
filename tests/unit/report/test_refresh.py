"""The report is rewritten by a process beside the training, which never waits for it."""

import itertools
import os
import sys

import pytest

from job.errors import PreemptionError, TrainingError
from job.report import refresh
from job.report.refresh import ReportRefresher
from job.runs import sidecar
from job.runs.run import Claim, Run
from job.runs.sidecar import Sidecar
from job.storage.open_store import open_store
from tests.support.cli_process import wait_until
from tests.support.run_records import record_run
from tests.support.signal_mask import blocks_notices


@pytest.fixture
def run(tmp_path):
    """A run in a bucket that has nothing of it."""
    (tmp_path / "bucket").mkdir()
    return Run(open_store(str(tmp_path / "bucket")), "zebra")


@pytest.fixture
def stuck(tmp_path, monkeypatch):
    """Put a program that notes its process and never ends in the place of Python; return the file of its notes."""
    program, notes = tmp_path / "python", tmp_path / "notes"
    program.write_text(f"#!/bin/sh\necho $$ >> {notes}\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return notes


def refreshing(run):
    """Return a refresher whose clock is always ahead by the time between two reports."""
    return ReportRefresher(run, itertools.count(0, refresh.MIN_INTERVAL_S).__next__)


def has(notes, num):
    """Whether so many processes have made their note."""
    return notes.exists() and len(notes.read_text().split()) == num


def lives(number):
    """Whether there is such a process."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_report_is_there_at_the_end(tmp_path):
    """The last requested report is waited for."""
    run = record_run(tmp_path / "bucket", (0.5, 0.6))
    with ReportRefresher(run) as refresher:
        refresher.finish()
    assert b"complete after 2 epochs" in run.store.read(run.key("report.html"))


def test_a_report_that_cannot_be_made_is_a_warning(run, caplog):
    """A failure is logged with its reason, at the next start and at the end, and raises nothing."""
    with refreshing(run) as refresher:
        refresher.refresh()
        refresher._sidecar._process.wait()
        refresher.refresh()
        refresher.finish()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "report: error: run zebra: there is none of that name" in caplog.text


def test_reports_are_made_some_time_apart(run, caplog):
    """A request just after the start, or just after a report, is left to the next one."""
    now = [0.0]
    with ReportRefresher(run, lambda: now[0]) as refresher:
        refresher.refresh()
        assert refresher._sidecar is None
        for seconds in (refresh.MIN_INTERVAL_S, 1, refresh.MIN_INTERVAL_S - 2, 1):
            now[0] += seconds
            refresher.refresh()
            wait_until(lambda: not refresher._sidecar.is_running)
    assert len(caplog.records) == 1  # of the first, that it was not made; the last was begun and is not collected
    assert not refresher._sidecar.is_running


def test_a_program_that_cannot_be_started_is_a_warning(run, monkeypatch, caplog):
    """Where no process can be made, the run continues without a report."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with refreshing(run) as refresher:
        refresher.refresh()
        refresher.finish()
    assert "report: cannot be started" in caplog.text


def test_training_does_not_wait_for_a_report_that_is_stuck(run, stuck):
    """A second report is not begun while the first is made, and what is not ready when training ends is ended."""
    with refreshing(run) as refresher:
        refresher.refresh()
        wait_until(lambda: has(stuck, 1))
        refresher.refresh()
        first = int(stuck.read_text())
        assert lives(first)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, first) == own + sidecar.NICENESS
    assert not lives(first)
    assert has(stuck, 1)


def test_a_signal_to_the_group_does_not_reach_a_report(run, stuck):
    """Ctrl-C, SIGTERM and a closed terminal are the trainer's to answer, which ends the report when it has to."""
    with refreshing(run) as refresher:
        refresher.refresh()
        assert blocks_notices(refresher._sidecar._process.pid)


def test_the_last_report_takes_the_place_of_one_under_way_and_has_a_limit(run, stuck, monkeypatch, caplog):
    """At the end a report is begun anew, with the priority of the training, and given up when its time is over."""
    monkeypatch.setattr(refresh, "FINISH_LIMIT_S", 5.0)
    priorities = []

    def start(*words, **how):
        started = Sidecar(*words, **how)
        priorities.append(os.getpriority(os.PRIO_PROCESS, started._process.pid))
        return started

    monkeypatch.setattr(refresh, "Sidecar", start)
    with refreshing(run) as refresher:
        refresher.refresh()
        wait_until(lambda: has(stuck, 1))
        refresher.finish()
        assert "was given up" in caplog.text
        assert has(stuck, 2)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities == [own + sidecar.NICENESS, own]
    assert not any(map(lives, map(int, stuck.read_text().split())))


@pytest.mark.parametrize("error", [TrainingError("the loss is not a number"), PreemptionError("SIGTERM", "preempted")])
def test_the_report_of_an_attempt_that_ended_does_not_say_that_it_runs(tmp_path, monkeypatch, error):
    """Where an attempt fails or is stopped after its report was begun, the report is rewritten and says so."""
    monkeypatch.setattr(refresh, "INTERRUPT_LIMIT_S", 300.0)  # this machine may be busy
    run = record_run(tmp_path / "bucket", (0.5, 0.6), finished=False, asked=80)
    heartbeat = run.attempt(2).heartbeat
    Claim(run, 2).heartbeat(
        heartbeat.model_dump(mode="json", include={"position", "seconds", "last_committed"})
    )  # it lives
    with pytest.raises(type(error)), refreshing(run) as refresher:
        refresher.refresh()
        assert refresher._sidecar._process.wait() == 0
        assert b"running at" in run.store.read(run.key("report.html"))
        stood = heartbeat.model_dump(mode="json", include={"position", "seconds"})
        Claim(run, 2).end("failed", stood | {"message": "", "exit_code": 70})
        raise error
    page = run.store.read(run.key("report.html"))
    assert b"failed after epoch 2 of 80" in page
    assert b"running at" not in page


def test_an_attempt_that_fails_before_its_first_report_writes_one(tmp_path):
    """Where an attempt at a recorded run fails at once, its report says so."""
    run = record_run(tmp_path / "bucket", (0.5, 0.6), finished=False, asked=80)
    with pytest.raises(TrainingError), ReportRefresher(run):
        Claim(run, 2).end("failed", {"message": "the labels are gone", "exit_code": 65})
        raise TrainingError("the labels are gone")
    page = run.store.read(run.key("report.html"))
    assert b"failed after epoch 2 of 80" in page
    assert b"The run is not finished: the labels are gone" in page


def test_an_attempt_without_a_report_ends_without_one(run, stuck):
    """Where no run is recorded there is nothing to report, and nothing is waited for."""
    with pytest.raises(TrainingError), ReportRefresher(run):
        raise TrainingError("at once")
    assert not stuck.exists()


def test_an_attempt_that_ends_waits_for_its_report_as_long_as_a_notice_allows(run, stuck, monkeypatch, caplog):
    """A report that is stuck when its attempt ends is given up, and its process is ended."""
    monkeypatch.setattr(refresh, "INTERRUPT_LIMIT_S", 0.5)
    with pytest.raises(PreemptionError), refreshing(run) as refresher:
        refresher.refresh()
        wait_until(lambda: has(stuck, 1))
        raise PreemptionError("SIGTERM", "preempted")
    assert "was given up" in caplog.text
    assert not any(map(lives, map(int, stuck.read_text().split())))
