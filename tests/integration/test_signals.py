"""Signals to a whole process group, as terminals and service managers send them: no finished step is lost."""

import itertools
import os
import signal
import sys

import pytest

from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.cli_process import SOON_S, surroundings, wait_until
from tests.support.terminal import Terminal, processes_of
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "32", "--batch", "4"),
    *("--plots", "false", "--checkpoint-every", "0", "--run", "zebra"),
)
"""Two epochs of three batches; a validation has two batches, or its loader would have no processes of its own."""

NUM_BATCHES = 3

PHASES = {
    "download": ("download:1:hold", None),
    "start-up": ("start-up:1:hold", None),
    "step": ("step:5:heed", 5),
    "validation": ("validation:2:hold", 3),
    "final evaluation": ("final evaluation:1:hold", 6),
}
"""A point of `fault_point_cli`, and the steps done by then. Step and validation come after the first batch of a
validation, so that all loader processes are there.
"""

SIGNALS = {"SIGTERM": "preempted", "SIGINT": "interrupted", "SIGHUP": "interrupted"}
WORKERS, PROCESSES = (2, 0), (1, 2)
SOME = {
    *(("SIGTERM", "step", 2, 2), ("SIGTERM", "final evaluation", 0, 1), ("SIGINT", "validation", 2, 1)),
    *(("SIGINT", "start-up", 0, 2), ("SIGHUP", "step", 2, 1), ("SIGHUP", "download", 0, 2)),
}
"""Each signal, phase, number of workers and number of processes at least once."""

ALL = [
    pytest.param(*case, marks=[] if case in SOME else pytest.mark.full)
    for case in itertools.product(SIGNALS, PHASES, WORKERS, PROCESSES)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=12, num_val=9)


def send(terminal, name):
    """Send a signal to the group as its usual sender does: a key, a closed window, a service manager."""
    if name == "SIGINT":
        terminal.press(b"\x03")
    elif name == "SIGHUP":
        terminal.close()
    else:
        os.killpg(terminal.process.pid, signal.SIGTERM)


@pytest.mark.parametrize(("name", "phase", "workers", "processes"), ALL)
def test_a_signal_to_all_is_a_notice_to_the_trainer(bucket, tmp_path, name, phase, workers, processes):
    """In any phase, with and without loader processes, in one process and in two: Ctrl-C, SIGTERM to the group and a
    closed terminal end the training with 75, every reported step is committed, the record has the reason, and no
    process is left.
    """
    held, trace = tmp_path / "held", tmp_path / "trace"
    at, num_steps = PHASES[phase]
    where = ("--workers", workers, "--device", ",".join(["cpu"] * processes), "--bucket", bucket)
    terminal = Terminal(
        [sys.executable, "-m", "tests.support.fault_point_cli", at, *TRAIN, *where],
        surroundings({"TEST_HELD": held, "JOB_TRACE": trace}),
    )
    try:
        wait_until(held.exists, terminal.process)
        send(terminal, name)
        terminal.process.wait(SOON_S)
        said = terminal.text()
        assert terminal.process.returncode == 75, said
        run = Run(open_store(bucket), "zebra")
        newest = max(checkpoint.committed(run), default=None)
        done = None if newest is None else newest.epoch * NUM_BATCHES + newest.batch
        assert done == num_steps, said
        if num_steps is not None:
            assert len(trace.read_text().splitlines()) == num_steps
            end = run.attempt(1).end
            assert (end.reason, end.exit_code) == (SIGNALS[name], 75)
        wait_until(lambda: not processes_of(terminal.process.pid), timeout_s=SOON_S)
    finally:
        terminal.close()
        if terminal.process.poll() is None:
            os.killpg(terminal.process.pid, signal.SIGKILL)
            terminal.process.wait()
