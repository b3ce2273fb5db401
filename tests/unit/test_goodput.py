"""Seconds of an attempt by phase, and a standstill of the whole process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from job.goodput import Phase, PhaseTimer
from tests.support.cli_process import ROOT, wait_until

WORKS = """
import json, sys
from job.goodput import Phase, PhaseTimer
timer = PhaseTimer()
timer.enter(Phase.USEFUL)
with timer.watched(tick_s=0.05, standstill_s=0.5):
    print("ready", flush=True)
    sys.stdin.readline()
    timer.enter(Phase.VALIDATION)
print(json.dumps(timer.seconds()), flush=True)
"""
"""A process that works until it reads a line."""


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_process_that_was_stopped_did_nothing_useful_meanwhile():
    """The time for which SIGSTOP holds a process is booked as suspended, although the label changes right after it."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    stopped_at = time.monotonic()
    wait_until(lambda: time.monotonic() >= stopped_at + 0.6)
    process.stdin.write("\n")  # it is there when the process goes on, which changes the label before anything else
    process.stdin.flush()
    os.kill(process.pid, signal.SIGCONT)
    said = process.communicate()[0]
    assert '"suspended": ' in said, said
    assert float(said.partition('"suspended": ')[2].partition(",")[0].rstrip("}\n")) >= 0.6


def test_time_that_nothing_booked_is_no_work():
    """While a timer is watched, time that nothing booked for five seconds is no work; otherwise it is."""
    clock = Clock()
    timer = PhaseTimer(clock)
    timer.enter(Phase.USEFUL)
    clock.now += 30.0
    with timer.watched(tick_s=3600):
        clock.now += 4.0
        timer.seconds()
        clock.now += 30.0
        timer.enter(Phase.VALIDATION)
        clock.now += 2.0
    clock.now += 10.0
    assert timer.seconds() == {
        "boot": 0.0,
        "start-up": 0.0,
        "useful step": 34.0,
        "suspended": 30.0,
        "validation": 12.0,
    }


def test_reading_the_seconds_changes_none_of_them():
    """However often the seconds are read, they add up to the same, the label at hand included."""
    clock = Clock()
    timer = PhaseTimer(clock, before_s=1.0)
    for _ in range(3):
        clock.now += 0.5
        timer.seconds()
    assert timer.seconds() == {"boot": 1.0, "start-up": 1.5}
    with timer.entered(Phase.PULL):
        clock.now += 2.0
    clock.now += 0.5
    assert timer.seconds() == {"boot": 1.0, "start-up": 2.0, "pull": 2.0}


def test_rebooked_seconds_are_neither_lost_nor_made():
    """Seconds move from one label to another, no more than it has, and the sum stays."""
    clock = Clock()
    timer = PhaseTimer(clock)
    timer.enter(Phase.DATA_WAIT)
    clock.now += 3.0
    timer.enter(Phase.USEFUL)
    clock.now += 1.0
    timer.rebook(2.0, Phase.DATA_WAIT, Phase.USEFUL)
    assert timer.seconds() == {"boot": 0.0, "start-up": 0.0, "data wait": 1.0, "useful step": 3.0}
    timer.rebook(5.0, Phase.DATA_WAIT, Phase.USEFUL)
    timer.rebook(5.0, Phase.VALIDATION, Phase.USEFUL)
    assert timer.seconds() == {"boot": 0.0, "start-up": 0.0, "data wait": 0.0, "useful step": 4.0}
