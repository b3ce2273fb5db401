"""A sidecar process beside the training, which never waits for it."""

import os
import sys

import pytest

from job.runs import sidecar
from job.runs.sidecar import Sidecar
from tests.support.cli_process import TIMEOUT_S, wait_until
from tests.support.signal_mask import blocks_notices


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that puts a shell script in the place of Python."""

    def write(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


def start():
    """Start a sidecar."""
    return Sidecar("thing", "do it later", "module")


def test_a_sidecar_runs_at_low_priority_and_blocks_notices(program):
    """A sidecar leaves the processor to the training, and a signal to the process group to the trainer."""
    program("exec sleep 1000")
    started = start()
    number = started._process.pid
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, number) == own + sidecar.NICENESS
    assert blocks_notices(number)
    started.kill()
    assert not started.is_running
    urgent = Sidecar("thing", "do it later", "module", niceness=0)
    assert os.getpriority(os.PRIO_PROCESS, urgent._process.pid) == own
    urgent.kill()


def test_messages_arrive_in_order(program, tmp_path):
    """Messages are lines on standard input."""
    program(f"read a; read b; echo $b $a > {tmp_path}/got")
    started = start()
    started.send("one")
    started.send("two")
    started.wait(TIMEOUT_S)
    assert (tmp_path / "got").read_text() == "two one\n"


def test_a_full_pipe_does_not_block(program, caplog):
    """A process that reads nothing is sent more than its pipe holds, and is killed after its limit."""
    program("exec sleep 1000")
    started = start()
    for _ in range(100_000):
        started.send("news")
    process = started._process
    started.wait(0.5)
    assert process.returncode == -9
    assert caplog.messages == ["thing: took more than 0 s and was given up; do it later"]


def test_a_failure_is_one_warning_with_its_last_line(program, caplog):
    """A failure is one warning however often it is asked for; output that no pipe would hold does not block it."""
    program("yes noise | head -n 40000 >&2; echo 'the reason' >&2; echo >&2; exit 3")
    started = start()
    wait_until(lambda: not started.is_running)
    for _ in range(2):
        started.check()
        started.send("news")
        started.wait(0)
    assert caplog.messages == ["thing: the reason; do it later"]


def test_success_and_a_quiet_wait_warn_of_nothing(program, caplog):
    """Success is no warning, nor is a failure after a notice."""
    program("exit 0")
    start().wait(TIMEOUT_S)
    program("exit 1")
    start().wait(TIMEOUT_S, quiet=True)
    assert caplog.messages == []


def test_a_program_that_cannot_be_started_is_a_warning(monkeypatch, caplog):
    """Where no process can be made, everything else continues."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    started = start()
    started.send("news")
    started.check()
    started.wait(0)
    started.kill()
    assert caplog.messages == ["thing: cannot be started, No such file or directory; do it later"]
