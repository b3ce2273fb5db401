"""Faults of hardware, memory and recipe: each with its exit code and advice."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from job.errors import HardwareError, MachineError, OutOfMemoryError, RecipeError, SupersededError, TrainingError
from job.runs.run import Run
from job.runs.search import survey
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import TIMEOUT_S, job, surroundings
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

pytestmark = pytest.mark.usefixtures("confined")

ARGUMENTS = {"batch": 4, "imgsz": 64}

ROWS = {
    "loader process or shared memory": (
        "DataLoader worker (pid 1434) is killed by signal: Killed.",
        "DataLoader worker (pid(s) 1434, 1435) exited unexpectedly",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out",
        "unable to write to file </torch_3127_1>: No space left on device (28)",
        "unable to allocate shared memory(shm) for file </torch_1_2>: Cannot allocate memory (12)",
        "received 0 items of ancdata",
    ),
    "memory of the machine": (
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "std::bad_alloc",
        "OpenCV(4.12.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes in 'OutOfMemoryError'",
        "Caught _ArrayMemoryError in DataLoader worker process 1. numpy._core._exceptions._ArrayMemoryError: Unable to",
    ),
    "memory of the GPU": (
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 21.95 GiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ),
    "GPU that cannot be used": (
        "CUDA error: no kernel image is available for execution on the device",
        "No CUDA GPUs are available",
        "CUDA error: no CUDA-capable device is detected",
        "CUDA error: invalid device function",
        "CUDA driver version is insufficient for CUDA runtime version",
        "The NVIDIA driver on your system is too old (found version 11040).",
        "Found no NVIDIA driver on your system.",
        "CUDA unknown error - this may be due to an incorrectly set up environment",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA error: system has unsupported display driver / cuda driver combination",
    ),
    "disk": ("[Errno 28] No space left on device: 'labels.jpg'", "[Errno 122] Disk quota exceeded"),
    "GPU or connection that failed": (
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: misaligned address",
        "CUDA error: unknown error",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "GET was unable to find an engine to execute this computation",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error",
        "Pin memory thread exited unexpectedly",
    ),
    "recipe that cannot be trained": (
        "'freeze=24' froze the entire model with no trainable parameters left.",
        "final batch=1 training at imgsz=32 gives BatchNorm a single value per channel",
        "Expected more than 1 value per channel when training, got input size torch.Size([1, 64, 1, 1])",
    ),
}
"""Messages of libraries, by the row of the table that they belong to."""

EXIT_CODES = {
    "loader process or shared memory": (HardwareError, 75, "--shm-size"),
    "memory of the machine": (HardwareError, 75, "more memory"),
    "memory of the GPU": (OutOfMemoryError, 70, "a smaller --batch or --imgsz"),
    "GPU that cannot be used": (MachineError, 78, "another machine"),
    "disk": (MachineError, 78, "--workdir"),
    "GPU or connection that failed": (HardwareError, 75, "start again"),
    "recipe that cannot be trained": (RecipeError, 65, "correct the recipe"),
}

FULL = """
import sys
import torch
from job.cli.app import main
from tests.support.fault_point_cli import before, in_training

def arm():
    from job.training.loop import Training

    def fail(training, *_):
        if training.progress.epoch == int(sys.argv[1]):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")

    before(Training, "_forward_backward", fail)

in_training(arm)
sys.exit(main(sys.argv[2:]))
"""
"""The command line on a GPU whose memory does not do in an epoch."""

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "3", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--run", "zebra"),
)


@pytest.fixture
def bucket(tmp_path):
    """A folder that holds a tiny dataset."""
    return make_bucket(make_tiny_dataset(tmp_path / "tiny", num_train=10, num_val=4), tmp_path / "bucket")


def raised_by(error, *, first_epoch=True, **of_plan):
    """Return what becomes of an exception of a library."""
    from dataclasses import replace  # noqa: PLC0415 -- as below

    from job.training.library_errors import explained  # noqa: PLC0415 -- after Ultralytics was confined

    plan = replace(plan_tiny_training(None, None, ARGUMENTS), **of_plan)
    with pytest.raises(Exception) as raised, explained(plan, lambda: not first_epoch):  # noqa: PT011 -- whichever it is
        raise error
    return raised.value


def test_every_row_of_the_table_is_tested():
    """A fault that is added to the code's table needs a row here, with its exit code and what a library says."""
    from job.training.library_errors import FAULTS  # noqa: PLC0415 -- after Ultralytics was confined

    assert {fault.name for fault in FAULTS} == ROWS.keys() == EXIT_CODES.keys()


@pytest.mark.parametrize(("row", "text"), [(row, text) for row, texts in ROWS.items() for text in texts])
def test_a_fault_leads_to_its_exit_code_and_to_advice(row, text):
    """Each thing that libraries say of hardware, memory, disk or recipe has the exit code of its row and says what to
    do.
    """
    kind, exit_code, advice = EXIT_CODES[row]
    for error in (RuntimeError(text), OSError(text), ValueError(text)):
        found = raised_by(error)
        assert (type(found), found.exit_code, advice in str(found)) == (kind, exit_code, True)
        assert found.__cause__ is error


def test_a_python_process_without_memory_is_the_machines_fault():
    """A `MemoryError`, which says nothing, is known by its name; so is NumPy's, which has another one."""
    assert raised_by(MemoryError()).exit_code == 75
    with pytest.raises(MemoryError) as raised:
        np.empty(2**62, dtype=np.uint8)
    assert raised_by(raised.value).exit_code == 75


@pytest.mark.parametrize(
    ("first_epoch", "before", "exit_code"), [(True, False, 70), (True, True, 70), (False, False, 75), (False, True, 70)]
)
def test_memory_that_runs_out_later_is_tried_once_more(first_epoch, before, exit_code):
    """In the first epoch it is the recipe's size; later it may be a dense mosaic, but not twice."""
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")
    found = raised_by(error, first_epoch=first_epoch, ran_out_of_memory=before)
    assert (type(found), found.exit_code) == (OutOfMemoryError, exit_code)
    assert "out of memory with batch 4 at 64 px" in str(found)


def test_what_no_row_knows_is_the_runs_own_fault():
    """A failure of a library that nothing is known of is fatal, an error of ours is what it was, and a defect shows
    itself.
    """
    failed = raised_by(RuntimeError("CUDA error: device-side assert triggered"))
    assert (type(failed), failed.exit_code) == (TrainingError, 70)
    for error in (SupersededError("run zebra: superseded, out of memory"), KeyError("NCCL!"[:3])):
        assert raised_by(error) is error


def train(bucket, epoch):
    """Train on a GPU whose memory does not do in an epoch (0-based)."""
    command = [sys.executable, "-c", FULL, str(epoch), *TRAIN, "--bucket", bucket]
    return subprocess.run(command, env=surroundings({}), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_a_run_that_runs_out_of_memory_twice_ends(bucket):
    """The first time after an epoch it exits 75 and resumes there, the second time 70; in between nothing is
    lost.
    """
    codes = [train(bucket, 1).returncode for _ in range(2)]
    run = Run(open_store(bucket), "zebra")
    ends = [run.attempt(number).end for number in (1, 2)]
    assert codes == [75, 70]
    assert [(end.exit_code, end.error) for end in ends] == [(75, "OutOfMemoryError"), (70, "OutOfMemoryError")]
    assert [end.position._asdict() for end in ends] == [{"epoch": 1, "batch": 0}] * 2
    assert train(bucket, 99).returncode == 0


def test_a_run_too_large_for_its_gpu_is_not_tried_again(bucket):
    """Out of memory in the first epoch exits 70 with advice."""
    done = train(bucket, 0)
    assert (done.returncode, "--batch or --imgsz" in done.stderr) == (70, True)


def test_a_precision_that_the_device_has_not_makes_no_run(bucket):
    """With --amp bf16 on a processor the recipe is refused before the run is made; what exists already goes to another
    machine.
    """
    done = job(*TRAIN, "--amp", "bf16", "--bucket", bucket)
    assert (done.returncode, "amp bf16: cpu does not calculate in bfloat16" in done.stderr) == (65, True)
    assert survey(open_store(bucket)).runs == []


def test_a_recipe_that_freezes_everything_makes_no_run(bucket):
    """A refusal of Ultralytics during its set-up is the recipe's fault, without a traceback."""
    done = job(*TRAIN, "--freeze", "24", "--bucket", bucket)
    assert (done.returncode, "froze the entire model" in done.stderr, "Traceback" in done.stderr) == (65, True, False)
    assert survey(open_store(bucket)).runs == []
