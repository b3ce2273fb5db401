"""A silent process of several: each wait has a limit, and lets signals through."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from job.training import distributed, launch
from job.training.nodes import Nodes
from tests.support.bucket import make_bucket
from tests.support.cli_process import ROOT, TIMEOUT_S, free_port, start_job, surroundings, wait_until
from tests.support.tiny_dataset import make_tiny_dataset

TOGETHER = """
import os, signal, sys
from job.errors import PeerError
from job.session.preemption import PreemptionWatcher
from job.training.distributed import ProcessGroup
with PreemptionWatcher() as preemption, preemption.deferred():
    group = ProcessGroup.join(lambda: preemption.pending is not None)
    group.barrier()
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    print("ready", flush=True)
    try:
        WAIT
    except PeerError as error:
        print(error, flush=True)
os._exit(0)
"""


def together(wait):
    """Start two processes, of which the second stops once both are there, and the first waits for it."""
    port = free_port()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    return [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER.replace("WAIT", wait)],
            env=surroundings(place | {"RANK": rank, "LOCAL_RANK": rank}),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def end(processes):
    """Kill the remaining processes."""
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("wait", ["group.agree(0)", "group.barrier()"])
def test_a_signal_ends_the_wait_for_a_peer_that_is_silent(wait):
    """The first process waits a few seconds more for one that does not answer, and then commits."""
    processes = together(wait)
    try:
        assert "ready\n" in iter(processes[0].stdout.readline, "")  # Gloo says something before
        processes[0].send_signal(signal.SIGTERM)
        said = processes[0].communicate(timeout=TIMEOUT_S)[0]
        assert "process 1 of 2: another process of this training was silent for 5 s" in said
    finally:
        end(processes)


def test_a_peer_that_is_silent_is_not_waited_for_beyond_the_limit():
    """Without any signal the wait ends by its own limit."""
    processes = together("group.agree(0, limit_s=1)")
    try:
        said = processes[0].communicate(timeout=TIMEOUT_S)[0]
        assert "another process of this training was silent for 1 s" in said
    finally:
        end(processes)


def test_each_purpose_has_its_limit():
    """Minutes to agree on a step, hours for what one process does alone, and a notice leaves the time to commit."""
    assert distributed.STEP_S == 300
    assert distributed.WORK_S == 3 * 3600
    assert distributed.NOTICE_LIMIT_S == 5


TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "32", "--batch", "4"),
    *("--plots", "false", "--workers", "0", "--checkpoint-every", "0", "--run", "zebra", "--device", "cpu,cpu"),
)


def test_a_silent_peer_costs_no_step_when_the_machine_goes(tmp_path):
    """If one process does not answer, SIGTERM to the command has the first one commit the finished steps."""
    bucket = make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=12, num_val=4), tmp_path / "bucket")
    held = tmp_path / "held"
    process = start_job(*TRAIN, "--bucket", bucket, at="step:5:wait", TEST_HELD=held)
    try:
        wait_until(held.exists, process)
        os.kill(second_of(process.pid), signal.SIGSTOP)
        process.terminate()
        held.unlink()
        said = process.communicate(timeout=TIMEOUT_S)[1]
    finally:
        process.kill()
    assert process.returncode == 75, said
    run = Run(open_store(bucket), "zebra")
    newest = checkpoint.committed(run)[-1]
    assert (newest.epoch, newest.batch) == (1, 2)
    assert run.attempt(1).end.reason == "preempted"


def second_of(launcher):
    """Return the second process that a launcher has started."""
    for number in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if b"\0RANK=1\0" in Path(f"/proc/{number}/environ").read_bytes():
            return int(number)
    raise AssertionError("there is none")


def launched(monkeypatch, ends, nodes=Nodes()):  # noqa: B008 -- it is frozen
    """Return the exit code of the launcher and its configuration, with these ends of its processes."""
    seen = []

    def elastic_launch(config, _program):
        seen.append(config)

        def run(*_words):
            failures = {
                rank: SimpleNamespace(exitcode=code, timestamp=rank, local_rank=rank) for rank, code in ends.items()
            }
            if failures:
                error = ChildFailedError.__new__(ChildFailedError)
                error.failures = failures
                raise error

        return run

    monkeypatch.setattr(launch, "elastic_launch", elastic_launch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return launch.launch(["train"], "0,1", nodes), seen[0]


@pytest.mark.parametrize(
    ("ends", "exit_code"),
    [
        *[({}, 0), ({0: 70, 1: 75}, 70), ({1: 65}, 65), ({0: -6}, 75), ({1: -9}, 75), ({0: 75, 1: -11}, 75)],
        *[({0: 75, 1: 70}, 70), ({0: 75, 1: 78, 2: 75}, 78), ({0: 1, 1: 75}, 1)],
    ],
)
def test_the_command_ends_as_the_first_process_does(monkeypatch, ends, exit_code):
    """A process that was killed, by the system or by its library of the GPU, is no failure of the training; one that
    failed for good outweighs the first, which lost it.
    """
    assert launched(monkeypatch, ends)[0] == exit_code


@pytest.mark.parametrize(
    ("exit_code", "number", "lingers"), [(75, 2, True), (-9, 2, True), (65, 2, False), (78, 2, False), (75, 1, False)]
)
def test_a_node_that_lost_another_lets_it_exit_first(monkeypatch, exit_code, number, lingers):
    """SkyPilot recovers a job whose first exit code is 75, and a JobSet restarts it: a node that failed for good is
    not outrun by one that lost it, and a signal ends the wait.
    """
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        raise SignalException("terminated", sigval=signal.SIGTERM)

    monkeypatch.setattr(launch.time, "sleep", sleep)
    code, _ = launched(monkeypatch, {1: exit_code}, Nodes(number, number - 1, "localhost", 29500))
    assert code == (exit_code if exit_code > 0 else 75)
    assert bool(waits) is lingers


@pytest.mark.parametrize("ignored", [False, True])
def test_the_launcher_passes_on_what_is_a_notice(monkeypatch, ignored):
    """A closed terminal is passed on unless it was ignored from the beginning, as nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        handled = set(launched(monkeypatch, {})[1].signals_to_handle.split(","))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert handled == {"SIGTERM", "SIGINT", "SIGQUIT"} | (set() if ignored else {"SIGHUP"})


WARNED = """
import os, signal, sys, warnings
from job.cli.app import main
from tests.support.fault_point_cli import in_training

rank, stops = os.environ["RANK"], os.environ.get("STOPS")

def arm():
    from job.training import loop
    usual = loop.Training._forward_backward

    def warned(training, batch, index):
        warnings.warn(f"a kernel of process {rank} is not deterministic")
        if stops and rank == "0":
            os.kill(os.getpid(), signal.SIGTERM)
        usual(training, batch, index)

    loop.Training._forward_backward = warned
    if rank == "1":
        before = iter([0])
        loop.num_ooms = lambda _device: next(before, 1)

in_training(arm)
exit_code = main(sys.argv[1:])
sys.stderr.flush()
os._exit(exit_code)
"""
"""The command line as one of two processes, each with a warning of its own, the second with memory that ran short."""


def train_together(program, *words, **environment):
    """Run a program as two processes that train together; return their exit codes, and what they said."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words],
            env=surroundings(place | environment | {"RANK": rank, "LOCAL_RANK": rank}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
    finally:
        end(processes)
    return [process.returncode for process in processes], said


FULL = """
import os, sys
import torch
from job.cli.app import main
from tests.support.fault_point_cli import before, in_training

def arm():
    from job.training.loop import Training

    def fail(training, *_):
        if training.progress.epoch == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")

    before(Training, "_forward_backward", fail)

if os.environ["RANK"] == "1":
    in_training(arm)
exit_code = main(sys.argv[1:])
sys.stderr.flush()
os._exit(exit_code)
"""
"""The command line as one of two processes, the second on a GPU whose memory does not do in the second epoch."""


def test_memory_that_runs_out_in_another_process_is_no_lost_one(tmp_path):
    """The attempt is recorded as out of memory, so that the next one, if it comes to that again, is the last."""
    bucket = make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=8, num_val=4), tmp_path / "bucket")
    words = (*TRAIN, "--bucket", bucket, "--workdir", f"{tmp_path}/work")
    run = Run(open_store(bucket), "zebra")
    for attempt, exit_code in ((1, 75), (2, 70)):
        codes, said = train_together(FULL, *words)
        assert codes == [exit_code, exit_code], said
        ended = run.attempt(attempt).end
        assert (ended.reason, ended.exit_code, ended.error) == ("failed", exit_code, "OutOfMemoryError")
        assert "process 2 of 2: training: out of memory with batch 4 at 32 px" in ended.message
        assert ended.position == (1, 0)


def test_what_other_processes_see_is_recorded_and_decides_whether_a_run_is_exact(tmp_path):
    """Warnings and failed allocations of every process are in the record of an attempt, at the step where all stop and
    at the end, and so in the verdict on the run.
    """
    bucket = make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=8, num_val=4), tmp_path / "bucket")
    run = Run(open_store(bucket), "zebra")
    words = (*TRAIN, "--bucket", bucket, "--workdir", f"{tmp_path}/work")
    for attempt, (stops, exit_code) in enumerate([("1", 75), ("", 0)], start=1):
        codes, said = train_together(WARNED, *words, STOPS=stops)
        assert codes[0] == exit_code, said
        evidence = run.attempt(attempt).end.evidence
        for rank in range(2):
            assert [text for text in evidence.warnings if f"a kernel of process {rank}" in text], evidence
        assert evidence.num_ooms == 1
    bits = run.final().bits
    assert (bits.exact, bits.from_attempt) == (False, 1)
    assert [line for line in bits.because if "a kernel of process 1 is not deterministic" in line]
