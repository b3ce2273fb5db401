"""Training device: its fitness, and the properties that decide the last bits of a result."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from job.errors import MachineError, message_of

log = logging.getLogger(__name__)

DRIVER = Path("/proc/driver/nvidia/version")


def require_device(named: str) -> None:
    """Raise `MachineError` if the device, such as ``cpu``, ``0`` or empty for any, is a GPU that torch cannot use."""
    if named == "cpu":
        return
    if not torch.cuda.is_available():
        if DRIVER.exists():
            raise MachineError(
                f"device {named or 'any'}: the machine has NVIDIA's driver, and CUDA does not start; take another "
                "machine, or pass --device cpu to train on the CPU"
            )
        return
    if not named and torch.cuda.device_count() > 1:
        log.warning(
            "device: %d GPUs are here and the first one trains; pass --device %s to train on all of them",
            *(torch.cuda.device_count(), ",".join(map(str, range(torch.cuda.device_count())))),
        )
    index = int(named) if named.isdecimal() else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        return  # Ultralytics says which there are
    capability, built_for = torch.cuda.get_device_capability(index), torch.cuda.get_arch_list()
    if not _runs_on(capability, built_for):
        raise MachineError(
            f"device {index}: torch has no kernels for {torch.cuda.get_device_name(index)}, compute capability "
            f"{'.'.join(map(str, capability))}, but for {', '.join(built_for)}; take another GPU"
        )


def find_device(named: str) -> None:
    """Raise `MachineError` if Ultralytics does not find the device, or torch cannot use it."""
    from ultralytics.utils.torch_utils import select_device  # noqa: PLC0415 -- Ultralytics is confined first

    require_device(named)
    with device_explained(named):
        select_device(named, verbose=False)


@contextmanager
def device_explained(named: str) -> Iterator[None]:
    """Raise `MachineError` where Ultralytics refuses the device; its other errors pass."""
    try:
        yield
    except (ValueError, AssertionError) as error:
        if "device" not in str(error).lower():
            raise
        raise MachineError(f"device {named!r}: {message_of(error)}; pass another --device") from error


def set_kernels(num_threads: int) -> None:
    """Set the threads of torch, which Ultralytics sets by the cores, and make kernels deterministic."""
    torch.set_num_threads(num_threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def require_deterministic_kernels() -> None:
    """Let an operator without a deterministic kernel raise, where Ultralytics lets it warn."""
    torch.use_deterministic_algorithms(mode=True, warn_only=False)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class BusyWait:
    """Tells for how much of a wait for data a GPU was still busy; does nothing on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = self._waited_s = 0.0

    def begin(self) -> None:
        """Begin a wait, once a step is given to the GPU."""
        if self._device.type == "cuda":
            self._began, self._work_done = time.monotonic(), self._mark()

    def end(self) -> None:
        """End the wait, before the next step is given to the GPU."""
        if self._device.type == "cuda":
            self._waited_s, self._over = time.monotonic() - self._began, self._mark()

    def busy_s(self) -> float:
        """Return the seconds of the last wait in which the GPU was busy; 0 on a CPU.

        Called after the next step, which has read something from the GPU, it does not wait for it.
        """
        if self._device.type != "cuda":
            return 0.0
        self._over.synchronize()
        idle_ms: float = self._work_done.elapsed_time(self._over)
        return max(0.0, self._waited_s - idle_ms / 1000)

    def _mark(self) -> torch.cuda.Event:
        """Let the GPU note the time once it has done all that it was given so far."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def why_not_compiled(device: torch.device) -> str | None:
    """Compile a small function for a GPU, and return why that fails; None if it does not.

    Ultralytics looks for fewer of the tools that it takes, and the first step would end the training. For a CPU torch
    was making kernels of the smallest model for minutes, without an end.
    """
    if device.type != "cuda":
        return f"torch takes too long to make kernels for {device}"

    def double(values: torch.Tensor) -> torch.Tensor:
        return values + values

    try:
        torch.compile(double)(torch.zeros(8, device=device))
    except Exception as error:  # noqa: BLE001 -- of compilers, drivers, files
        return message_of(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]
    return None


def peak_memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes of a GPU that torch has reserved at most, and those that it has; zeros for a CPU."""
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory


def num_ooms(device: torch.device) -> int:
    """Return the number of failed allocations on the device so far, also of those that a library caught.

    A kernel that is chosen for lack of memory gives other bits.
    """
    if device.type != "cuda":
        return 0
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0))


def describe_device(device: torch.device) -> dict[str, object]:
    """Return the properties that must be equal on two machines for equal bits, beside library versions.

    Kernels are chosen on a CPU by its instruction set, on a GPU by its model, driver and libraries.
    """
    described: dict[str, object] = {"cpu": torch.backends.cpu.get_cpu_capability()}
    if device.type == "cuda":
        version = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", DRIVER.read_text()) if DRIVER.exists() else None
        described |= {
            "gpu": torch.cuda.get_device_name(device),
            "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "driver": version and version[1],
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return described


def _runs_on(capability: tuple[int, int], built_for: list[str]) -> bool:
    """Whether a torch built for some architectures has kernels for a GPU.

    Machine code (``sm_80``) runs on later GPUs of the same generation, PTX (``compute_90``) on all later ones.
    """
    for kind, digits in re.findall(r"\b(sm|compute)_(\d+)", " ".join(built_for)):
        major, minor = divmod(int(digits), 10)
        if (kind == "sm" and major == capability[0] and minor <= capability[1]) or (
            kind == "compute" and (major, minor) <= capability
        ):
            return True
    return not built_for
