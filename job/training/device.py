"""The device that trains, as far as it decides the last bits of a result."""

import re
from pathlib import Path
from typing import Any

import torch

DRIVER = Path("/proc/driver/nvidia/version")


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return what two machines must have in common for equal bits, beside the versions of the libraries.

    On a CPU its kernels are chosen by what the processor can do; on a GPU by its model, and by driver and libraries.
    """
    described: dict[str, Any] = {"cpu": torch.backends.cpu.get_cpu_capability()}
    if device.type == "cuda":
        described |= {
            "gpu": torch.cuda.get_device_name(device),
            "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "driver": _driver_version(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch has no types there
        }
    return described


def _driver_version() -> str | None:
    """Return NVIDIA's version, such as 570.133.20."""
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", DRIVER.read_text()) if DRIVER.exists() else None
    return found[1] if found else None
