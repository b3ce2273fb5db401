"""Doctor: checks whether this machine can train, before anything is pulled or paid for.

Each check is cheap, and a failed one names the remedy; a value that cannot be determined is reported as unknown.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from job.cloud.findings import Finding, judged, require_fitness
from job.cloud.machine_types import OLDEST_DRIVER
from job.errors import JobError
from job.recipes.recipe import Recipe
from job.storage.object_store import Store

DRIVER = Path("/proc/driver/nvidia/version")
"""Of the kernel: seen in a container that was given no GPU, too."""

DEVICES = Path("/dev")
"""Has a file for each GPU that this machine or container was given: ``nvidia0`` and so on."""

ALBUMENTATIONS = "albumentations"
"""Ultralytics changes the pictures with it as soon as it can be imported (``data/augment.py``: 2150-2207)."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- nothing is written there

SPARE_DISK_BYTES = 10_000_000_000

GIB = 2**30

BYTES_PER_PIXEL = {"n": 532, "s": 1021, "m": 2173, "l": 2791, "x": 4181}
"""What one forward pass of a YOLO11 model keeps for the backward pass, per pixel of the image, in single precision; by
the letter of the model. Measured at 256 px as the storage of all saved tensors. Half of it in half precision.
"""


def examine(workdir: Path, recipe: Recipe | None, store: Store | None, workers: int) -> list[Finding]:
    """Run every check, and return the findings; without a recipe, memory is not judged."""
    return [
        *_libraries(),
        *_packages(),
        *_gpu(recipe),
        *_disk(workdir),
        *_shared_memory(workers, recipe),
        *_bucket(store),
        *_tracking(),
    ]


def require_fit(workdir: Path, device: str) -> None:
    """Check driver and access to the GPU unless the device is ``cpu``, packages and disk, by `require_fitness`."""
    gpu = [] if set(device.split(",")) == {"cpu"} else [*_driver()]
    require_fitness([*gpu, *_packages(), *_disk(workdir)])


def _libraries() -> Iterator[Finding]:
    """Compare the libraries that decide a run's bits with the versions that the package pins."""
    for requirement in importlib.metadata.requires("job") or []:
        if exact := re.match(r"([\w-]+)==([\w.]+)", requirement):
            name, wanted = exact[1], exact[2]
            try:
                found = importlib.metadata.version(name).partition("+")[0]
            except importlib.metadata.PackageNotFoundError:
                yield Finding(name, "fail", f"is not installed; {wanted} is needed to train, run `make env`")
                continue
            yield judged(name, found == wanted, found, f"{wanted} is the version of the lock, and bits may differ")


def _packages() -> Iterator[Finding]:
    """Refuse optional packages of Ultralytics whose random streams follow no key."""
    found = importlib.util.find_spec(ALBUMENTATIONS)
    if found is not None and found.origin is not None:  # else it is a folder of that name, which is no package
        packages = importlib.metadata.packages_distributions().get(ALBUMENTATIONS, [ALBUMENTATIONS])
        advice = f"run `pip uninstall {' '.join(packages)}`, or train in another environment"
        yield Finding(
            ALBUMENTATIONS, "fail", f"is installed, and a resumed run would see other pictures with it; {advice}"
        )


def _cuda() -> str | None:
    """Return ``torch.version.cuda`` without importing torch; None if torch is absent or built without CUDA."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    version = Path(torch.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda\b.*= '([\d.]+)'", version, re.MULTILINE)
    return found[1] if found else None


def _driver() -> Iterator[Finding]:
    """Check NVIDIA's driver, if there is one, against the CUDA of torch, and that the job was given a GPU."""
    cuda = _cuda()
    try:
        version = DRIVER.read_text(encoding="utf-8")
    except OSError:
        return
    if not any(DEVICES.glob("nvidia[0-9]*")):
        advice = "start the container with --gpus all (podman: --device nvidia.com/gpu=all), or pass --device cpu"
        yield Finding("GPU access", "fail", f"the machine has NVIDIA's driver and no GPU is given to the job; {advice}")
    if cuda is None:
        yield Finding("driver", "warn", "is there, but the torch that is installed has no CUDA; run `make env`")
        return
    oldest = OLDEST_DRIVER.get(int(cuda.partition(".")[0]))
    found = re.search(r"\s(\d+)\.[\d.]+\s", version)
    if found is None or oldest is None:
        yield Finding("driver", "warn", f"whether it suits CUDA {cuda} of torch is unknown")
    elif int(found[1]) < oldest:
        advice = f"is older than {oldest}, which CUDA {cuda} needs; install a newer one, or another machine image"
        yield Finding("driver", "fail", f"{found[0].strip()} {advice}")
    else:
        yield Finding("driver", "ok", f"{found[0].strip()}, for CUDA {cuda} from {oldest} on")


def _gpu(recipe: Recipe | None) -> Iterator[Finding]:
    yield from _driver()
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    listed: str | None = None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout  # noqa: S603 -- a fixed command
    gpus = [line.rpartition(",") for line in (listed or "").splitlines() if line.count(",")]
    if not gpus and listed is not None and DRIVER.exists():
        yield Finding("GPU", "fail", "the machine has NVIDIA's driver, and no GPU answers; take another machine")
    elif not gpus:
        yield Finding("GPU", "warn", "none is seen; training on the CPU is for trying out")
    wanted = _memory_wanted(recipe)
    for name, _, memory in gpus:
        if not memory.strip().isdecimal():  # such as "[N/A]", where it is shared with the processor
            yield Finding("GPU", "ok", f"{name}, its memory is unknown")
            continue
        has = float(memory) / 1024
        if wanted is None:
            yield Finding("GPU", "ok", f"{name}, {has:.0f} GiB; what the training needs is unknown")
        elif has < wanted:
            advice = f"activations alone take {wanted:.0f} GiB; take a larger GPU, or a smaller --batch or --imgsz"
            yield Finding("GPU", "fail", f"{name}, {has:.0f} GiB: {advice}")
        else:
            yield Finding("GPU", "ok", f"{name}, {has:.0f} GiB, of which activations take {wanted:.0f} GiB")


def _memory_wanted(recipe: Recipe | None) -> float | None:
    """Return the GiB of a recipe's activations; None if its model is not known before the start."""
    model = re.search(r"yolo11([nsmlx])", str(recipe.start)) if recipe else None
    if recipe is None or model is None:
        return None
    size = 1 if recipe.train["amp"] in {False, "fp32"} else 2
    return float(BYTES_PER_PIXEL[model[1]] / size * recipe.train["imgsz"] ** 2 * recipe.train["batch"] / GIB)


def _disk(workdir: Path) -> Iterator[Finding]:
    folder = workdir
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "fail", f"{folder} cannot be written; pass a --workdir that this user can write to")
        return
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB are free in {folder}"
    yield judged("disk", free > SPARE_DISK_BYTES, found, "free some space, or pass another --workdir")


def _shared_memory(workers: int, recipe: Recipe | None) -> Iterator[Finding]:
    if not SHARED_MEMORY.is_dir() or recipe is None or workers == 0:
        return
    # Each worker holds up to four finished batches, and one that it works on (`prefetch_factor`).
    needed = workers * 5 * recipe.train["batch"] * 3 * recipe.train["imgsz"] ** 2
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB may be used"
    advice = "start the container with a larger --shm-size or --ipc=host, or pass fewer --workers"
    yield judged("shared memory", free >= needed, found, advice)


def _bucket(store: Store | None) -> Iterator[Finding]:
    """Write, read and delete a scratch object."""
    if store is None:
        return
    key, data = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(16)
    try:
        store.put(key, data)
        try:
            store.read(key)  # verified by its checksum
        finally:
            store.delete(key)
    except JobError as error:
        yield Finding("bucket", "fail", str(error))
        return
    yield Finding("bucket", "ok", f"{store.uri} can be written, read and deleted from")


def _tracking() -> Iterator[Finding]:
    """Ask Weights & Biases whether it knows the key; without one, runs are tracked offline."""
    if not os.environ.get("WANDB_API_KEY"):
        yield Finding("W&B", "ok", "no WANDB_API_KEY: nothing is sent; `job wandb sync` sends a run later")
        return
    try:
        from job.tracking.client import require_taken  # noqa: PLC0415 -- wandb is slow to import, needed with a key only

        require_taken()
    except Exception as error:  # noqa: BLE001 -- any error of the library; the key is not part of the message
        yield Finding("W&B", "warn", f"does not take the key, {type(error).__name__}; training goes on without it")
    else:
        yield Finding("W&B", "ok", "takes the key")
