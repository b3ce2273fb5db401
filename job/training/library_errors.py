"""Library errors: a table of the texts by which they are told apart, with exit code and advice.

An error that matches no row is one of the run.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch.distributed import DistError

from job.errors import HardwareError, JobError, MachineError, OutOfMemoryError, RecipeError, TrainingError, message_of
from job.training.trainer import Plan


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: the signs of a fault, its error and advice."""

    name: str
    signs: str
    """A regular expression for the text of the exception."""

    error: type[JobError]
    advice: str


FAULTS = (
    Fault(
        "loader process or shared memory",
        r"DataLoader worker .*(killed by signal|exited unexpectedly)|Bus error|shared memory|ancdata"
        r"|unable to (write to|mmap|open) (\d+ bytes from )?file </torch_",
        HardwareError,
        "the machine's memory or /dev/shm may be too small: start the container with a larger --shm-size or "
        "--ipc=host, or pass fewer --workers",
    ),
    Fault(
        "memory of the machine",
        r"DefaultCPUAllocator|Cannot allocate memory|(?<!OutOf)MemoryError|std::bad_alloc|Insufficient memory",
        HardwareError,
        "take a machine with more memory, or pass fewer --workers",
    ),
    Fault(
        "memory of the GPU",
        r"out of memory|CU\w+_STATUS_ALLOC_FAILED",
        OutOfMemoryError,
        "take a larger GPU, or start a new run with a smaller --batch or --imgsz",
    ),
    Fault(
        "GPU that cannot be used",
        r"no kernel image|no CUDA-capable device|No CUDA GPUs are available|invalid device function"
        r"|driver version is insufficient|driver on your system is too old"
        r"|Found no NVIDIA driver|CUDA unknown error|CUDA error: initialization error|busy or unavailable"
        r"|system not yet initialized|invalid device ordinal|unsupported display driver|forward compatibility",
        MachineError,
        "take another machine",
    ),
    Fault(
        "disk",
        r"No space left on device|Disk quota exceeded",
        MachineError,
        "free some space, or pass another --workdir",
    ),
    Fault(
        "GPU or connection that failed",
        r"ECC error|unspecified launch failure|illegal (memory access|instruction|address)|misaligned address"
        r"|hardware stack error|launch timed out|CUDA error: unknown error|cuDNN|CUDNN|CUBLAS|CUFFT|NCCL|NVLink"
        r"|find an engine|[Pp]in memory thread exited",
        HardwareError,
        "start again, best on another machine",
    ),
    Fault(
        "recipe that cannot be trained",
        r"froze the entire model|BatchNorm a single value per channel|more than 1 value per channel",
        RecipeError,
        "correct the recipe",
    ),
)
"""The first matching row counts."""


@contextmanager
def explained(plan: Plan, retry_may_help: Callable[[], bool]) -> Iterator[None]:
    """Turn exceptions of libraries into errors with an exit code and advice."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        found = _explain(error, plan, again=retry_may_help() and not plan.ran_out_of_memory)
        if found is None:
            raise
        raise found from error


@contextmanager
def explained_prediction(subject: str = "prediction", smaller: str = "--batch, --tiles or --imgsz") -> Iterator[None]:
    """Turn exceptions of libraries where a model is used into errors with an exit code and advice.

    Args:
        subject: Begins the message.
        smaller: Flags of which a smaller value needs less memory.
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        fault = _find(error)
        if fault is None:
            raise
        if fault.error is OutOfMemoryError:
            message = f"{subject}: out of memory; pass a smaller {smaller}, or take a larger GPU"
            raise OutOfMemoryError(message, try_again=False) from error
        raise fault.error(f"{subject}: {fault.name}, {message_of(error)}; {fault.advice}") from error


def _find(error: Exception) -> Fault | None:
    seen = f"{type(error).__name__}: {message_of(error)}"
    return next((fault for fault in FAULTS if re.search(fault.signs, seen)), None)


def _explain(error: Exception, plan: Plan, *, again: bool) -> JobError | None:
    text = message_of(error)
    if failed := plan.group.failure():  # after which any call of a library fails that waits for all ranks
        return failed
    if plan.group.size > 1 and (isinstance(error, DistError) or "gloo" in text):
        return plan.group.lost()
    fault = _find(error)
    if fault is None:
        unknown = TrainingError(f"training: failed, {text}; the last good checkpoint is kept")
        return unknown if isinstance(error, RuntimeError) else None
    if fault.error is OutOfMemoryError:
        # After an epoch that went well it may be one mosaic that is denser than all before, in a memory that is fuller.
        size = f"batch {plan.train['batch']} at {plan.train['imgsz']} px"
        message = f"training: out of memory with {size}; the last good checkpoint is kept; {fault.advice}"
        return OutOfMemoryError(message, try_again=again)
    return fault.error(f"training: {fault.name}, {text}; the last good checkpoint is kept; {fault.advice}")
