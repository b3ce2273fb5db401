"""Distributed training on CPUs: killed, stopped, and on two machines."""

import subprocess
import sys

import pytest

from job.runs import checkpoint
from tests.support.bucket import ends_of, run_in
from tests.support.cli_process import (
    SOON_S,
    TIMEOUT_S,
    free_port,
    job,
    start_job,
    surroundings,
    take_machine,
    wait_until,
)
from tests.support.tiny_dataset import make_tiny_dataset

ALONE = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--checkpoint-every", "0.01", "--run", "zebra"),
)
TRAIN = (*ALONE, "--device", "cpu,cpu")
NUM_BATCHES = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk, whose last batch does not divide evenly."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=21, num_val=4)


def num_steps(trace):
    """Return how many steps the first process has reported."""
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def test_two_processes_share_every_batch(confined):
    """Together the shares of an epoch hold each image once, and all are of one size; what fills up the last batch
    comes from the beginning.
    """
    shares = [list(sampler_of(rank)) for rank in range(2)]
    assert [[len(batch) for batch in share] for share in shares] == [[2, 2, 1], [2, 2, 1]]
    images = [sample.image for pair in zip(*shares, strict=True) for batch in pair for sample in batch]
    assert sorted(images[:9]) == list(range(9))
    assert images[9] == images[0]


def sampler_of(rank):
    """Return one process's share of nine images in batches of four."""
    from job.training.sampler import EpochBatches  # noqa: PLC0415 -- once Ultralytics is confined

    return EpochBatches(9, 4, seed=0, rank=rank, num_processes=2)


def test_two_processes_that_are_killed_end_like_two_that_are_not(bucket, undisturbed):
    """All processes are killed within an epoch; started again they end with the same tensors, and another number of
    processes is refused.
    """
    process = start_job(*TRAIN, "--bucket", bucket)
    wait_until(lambda: any(identity.batch for identity in checkpoint.committed(run_in(bucket))), process)
    take_machine(process)
    alone = job(*ALONE, "--bucket", bucket)
    assert (alone.returncode, "world_size: the run has 2" in alone.stderr) == (65, True), alone.stderr
    resumed = job(*TRAIN, "--bucket", bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert run_in(bucket).attempt(3).start.receipt.position.batch > 0
    assert ends_of(bucket) == ends_of(undisturbed)


@pytest.mark.full
def test_a_signal_stops_all_at_the_same_step(bucket, undisturbed, tmp_path):
    """SIGTERM to the command reaches all processes; finished steps are committed, the exit code is 75."""
    trace = tmp_path / "trace"
    process = start_job(*TRAIN, "--bucket", bucket, JOB_TRACE=trace)
    wait_until(lambda: num_steps(trace) >= 2, process)
    process.terminate()
    said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 75, said
    newest = checkpoint.committed(run_in(bucket))[-1]
    assert (newest.epoch, newest.batch) == divmod(num_steps(trace), NUM_BATCHES)
    assert run_in(bucket).attempt(1).end.reason == "preempted"
    assert job(*TRAIN, "--bucket", bucket).returncode == 0
    assert ends_of(bucket) == ends_of(undisturbed)


def test_two_machines_train_together(bucket, undisturbed, tmp_path):
    """Two machines that share nothing but the bucket are started as by SkyPilot: when one is taken the other exits 75,
    and started again, by torchrun, both end with the same tensors.
    """
    trace = tmp_path / "trace"
    port = free_port()
    sky = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1", "MASTER_PORT": port}
    processes = [
        start_on_machine(
            [sys.executable, "-m", "job", *ALONE], bucket, tmp_path, number, trace, sky | {"SKYPILOT_NODE_RANK": number}
        )
        for number in range(2)
    ]
    wait_until(lambda: num_steps(trace) >= 2, processes[0])
    take_machine(processes[1])
    said = processes[0].communicate(timeout=TIMEOUT_S)[1]
    assert "another process of this training is gone" in said
    assert run_in(bucket).attempt(1).end.exit_code == 75
    port = free_port()
    processes = [start_machine(bucket, tmp_path, number, port, trace) for number in range(2)]
    said = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert ends_of(bucket) == ends_of(undisturbed)


def start_machine(bucket, tmp_path, number, port, trace):
    """Start what torchrun starts on one of two machines."""
    place = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(number)]
    # Without the two dashes torchrun takes --run for an abbreviation of its own flags.
    words = [sys.executable, "-m", "torch.distributed.run", *place, "--master-addr", "127.0.0.1", "--master-port", port]
    return start_on_machine([*words, "-m", "--", "job", *ALONE], bucket, tmp_path, number, trace, {})


def start_on_machine(words, bucket, tmp_path, number, trace, environment):
    """Start a training on one of two machines, by its variables."""
    where = ["--device", "cpu", "--bucket", bucket, "--workdir", f"{tmp_path}/machine{number}"]
    return subprocess.Popen(
        [*words, *where],
        env=surroundings({"JOB_TRACE": trace if number == 0 else "", "OMP_NUM_THREADS": 1, **environment}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def with_finale(words, rank=""):
    """Run the command line, which prints something in the finale of Python."""
    program = "import atexit; atexit.register(print, 'finale'); from job.__main__ import run; run()"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env=surroundings({"RANK": rank}),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [["recipes", "list"], ["recipes", "show", "nothing"]])
def test_one_of_several_processes_ends_without_the_finale_of_python(words):
    """In it a thread of Gloo would now and then abort the process; output and exit code are those of any process."""
    alone, one_of_two = (with_finale(words, rank) for rank in ("", "1"))
    assert alone.stdout == one_of_two.stdout + "finale\n"
    assert (alone.stderr, alone.returncode) == (one_of_two.stderr, one_of_two.returncode)


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [(["--help"], 0, "Start, resume or complete"), (["--epohcs", "3"], 2, "did you mean 'epochs'?")],
)
def test_a_training_ends_without_the_finale_of_python(words, exit_code, said):
    """It would take a second of its machine; what was printed, and the exit code, are there."""
    done = with_finale(["train", *words])
    assert (done.returncode, said in done.stdout + done.stderr, "finale" in done.stdout) == (exit_code, True, False)
