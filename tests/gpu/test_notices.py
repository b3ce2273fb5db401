"""Signals to a training on a GPU, with its default of loader processes."""

import os
import signal

import pytest

from job.runs import checkpoint
from job.training.position import Position
from tests.support.bucket import ends_of, run_in
from tests.support.cli_process import SOON_S, start_job, wait_until
from tests.support.gpu_training import train, words_of

NUM_BATCHES = 6


@pytest.mark.parametrize("sent", ["SIGTERM to the process", "SIGINT to its group"])
def test_a_signal_keeps_every_step(bucket, straight, device, px, tmp_path, sent):
    """As docker stops a training, or Ctrl-C, it exits 75 with each finished step committed, and ends later with the
    bits of an undisturbed one.
    """
    words, trace = words_of(bucket, "A", px(640), device), tmp_path / "trace"
    process = start_job(*words, JOB_TRACE=trace)
    wait_until(lambda: trace.exists() and len(trace.read_text().splitlines()) >= 3, process)
    if sent.startswith("SIGTERM"):
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 75, said
    num_steps = len(trace.read_text().splitlines())
    assert checkpoint.committed(run_in(bucket))[-1].position == Position(*divmod(num_steps, NUM_BATCHES))
    code, said = train(words)
    assert code == 0, said
    assert ends_of(bucket) == ends_of(straight("A", 640))
