"""The command line as a process of its own, with real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from job.training.signals import TRAINS

JOB = [sys.executable, "-m", "job"]
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 7200
"""Only what hangs takes that long, on a busy machine too."""

SOON_S = 140
"""For a process that is to end at once: less than one stays that waits for its machine to be taken."""


def job(*words, timeout_s=TIMEOUT_S, **environment):
    """Run the command to its end and return what it printed and its exit code."""
    return subprocess.run(
        [*JOB, *map(str, words)],
        env=surroundings(for_machines(words) | environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start_job(*words, at=None, program="job", **environment):
    """Start the command in a process group of its own and return it running.

    Args:
        words: Of the command line.
        at: A point of `fault_point_cli`.
        program: A module that stands for the command's own.
        environment: Variables to change.
    """
    program = (
        [sys.executable, "-m", program] if at is None else [sys.executable, "-m", "tests.support.fault_point_cli", at]
    )
    return subprocess.Popen(
        [*program, *map(str, words)],
        env=surroundings(for_machines(words) | environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def for_machines(words):
    """Return what has a training log JSON lines, whose messages may have several lines."""
    return {"LOG": "json"} if list(words[:1]) in TRAINS else {}


def kill(process):
    """Kill the command and everything it started, as a machine that vanishes does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def take_machine(process):
    """Kill torchrun and what it started, which is in process groups of its own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for number in (process.pid, *map(int, children)):
        os.kill(number, signal.SIGKILL)
    process.communicate()


def wait_until(condition, process=None, timeout_s=TIMEOUT_S):
    """Wait for something another process does, and fail if that process ends without having done it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process is not None and process.poll() is not None:
            assert condition(), f"ended with {process.returncode} before: {process.communicate()[1]}"
            return
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def free_port():
    """Return a port that is free, as text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def messages(text):
    """Return the messages of a JSON log."""
    return [json.loads(line)["message"] for line in text.splitlines() if line.startswith("{")]


def surroundings(changes):
    """Return the environment of the tests with some variables changed."""
    found = os.environ | {"PYTHONPATH": python_path(ROOT)} | {name: str(value) for name, value in changes.items()}
    return {name: value for name, value in found.items() if value != ""}


def python_path(checkout):
    """Return the variable by which a process takes the code of a checkout, before all that is named there."""
    return os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])


def start_python(source, environment=None):
    """Start Python on some source and return the process, which has printed that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        env=surroundings(environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process
