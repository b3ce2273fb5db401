"""Isolation: every change to the process and to Ultralytics, as environment variables, settings, patches.

Guarantees that no import changes anything: each function is called by name, and is idempotent. `isolate_ultralytics`
comes before the first import of ultralytics, which reads its variables when imported.
"""

import ctypes
import functools
import logging
import math
import os
import shutil
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import MachineError
from job.training.cores import num_cores

if TYPE_CHECKING:
    from torch import nn

OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")

INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb")

UNFIT_FOR_HALF_PRECISION = ("1630", "1650", "1660", "T400", "T550", "T600", "T1000", "T1200", "T2000", "K40M")
"""Parts of the names of GPUs that lose the loss in half precision (``utils/checks.py``: 1013-1018)."""

IMPORT_TURN_S = 0.0005
"""How long the import of torch keeps the interpreter from threads that fetch files, each time one of them needs it."""


def import_torch_ahead() -> None:
    """Import torch in a thread, while the bucket is waited for; who needs it waits for that, and learns of an error."""

    def import_torch() -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(IMPORT_TURN_S)
        try:
            with suppress(Exception):
                import torch  # noqa: F401, PLC0415 -- takes seconds
        finally:
            sys.setswitchinterval(before)

    if not any(isinstance(finder, _TorchLibrary) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchLibrary())  # for good: an import of another thread may be going through the list
    threading.Thread(target=import_torch, name="import").start()


class _TorchLibrary(MetaPathFinder):
    """Loads the library of torch when its import comes to it, without the interpreter's lock: 0.2 to 0.4 s.

    The import, which would hold it for that time, then finds the library loaded, and reports any error.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where torch's extension module is, and None for others."""
        if fullname != "torch._C":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            with suppress(AttributeError):  # a system whose C library has it elsewhere
                ctypes.CDLL(None).dlopen(os.fsencode(spec.origin), sys.getdlopenflags())
        return spec


def isolate_ultralytics(folder: Path) -> None:
    """Confine Ultralytics to a folder, keep it off the network, patch it; raises `MachineError` if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_VERBOSE"] = "false"
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"  # models are built without eval
    os.environ["MPLBACKEND"] = "Agg"
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve() / "compiled"))  # else in /tmp, and it is run
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more are processes, which would end by a notice
    try:
        with _threads_kept():
            _import_torch()
            _configure_libraries()
            patch_ultralytics()
    except ModuleNotFoundError as error:
        raise MachineError(f"training: the package {error.name} is missing; run `make env`") from error


def _import_torch() -> None:
    import torch  # noqa: PLC0415 -- for processes that train only

    from job.training.eager import import_torchvision  # noqa: PLC0415 -- imports torch

    if "ultralytics" not in sys.modules and not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1)  # as Ultralytics has it, where it is the first to import torch (``__init__.py``: 11)
    import_torchvision()


def is_rank() -> bool:
    """Whether torchrun or our launcher started this process; false after `hide_torchrun`."""
    return bool(os.environ.get("RANK"))


def hide_torchrun() -> None:
    """Remove torchrun's variables: Ultralytics reads them when imported, and would divide the work once more."""
    for name in OF_TORCHRUN:
        os.environ.pop(name, None)


@contextmanager
def threads_divided(num_processes: int) -> Iterator[None]:
    """Give each process started in the block its share of the cores, unless the user sets the threads.

    torchrun gives each process one thread.
    """
    with _threads_kept():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // num_processes)))
        yield


def patch_ultralytics(_worker: int = 0) -> None:
    """Replace functions of Ultralytics, so that results depend on data and keys only.

    The parameter makes it an initialiser of loader workers, which need the patches again if they are not forked.
    """
    import numpy as np  # noqa: PLC0415 -- for processes that train only
    from ultralytics.data import augment, base, utils  # noqa: PLC0415 -- reads the variables of `isolate_ultralytics`
    from ultralytics.engine import trainer  # noqa: PLC0415 -- reads the variables of `isolate_ultralytics`
    from ultralytics.models.yolo.detect import train  # noqa: PLC0415 -- reads the variables of `isolate_ultralytics`
    from ultralytics.utils import nms  # noqa: PLC0415 -- reads the variables of `isolate_ultralytics`

    from job.training import decoding, rng  # noqa: PLC0415 -- import numpy

    # The modules that make a sample find our streams under the names `random` and `np.random`.
    numpy = types.ModuleType("numpy")
    vars(numpy).update(vars(np) | {"random": rng.NUMPY})
    augment.random, augment.np = rng.PYTHON, numpy
    train.random = rng.PYTHON
    base.imread = decoding.imread
    trainer.check_amp = _supports_amp
    # It recompresses a JPEG with bytes behind its end (``data/utils.py``: 261), which would change the picture.
    utils._replace_image = lambda _file, _write: None  # noqa: SLF001 -- no public way to replace it
    # After a time limit stock NMS leaves the other images of a batch without detections (``utils/nms.py``: 91, 165). A
    # pause of the machine must not decide a metric; every caller looks the function up in its module.
    if not isinstance(nms.non_max_suppression, functools.partial):
        nms.non_max_suppression = functools.partial(nms.non_max_suppression, max_time_img=math.inf)


def _supports_amp(model: "nn.Module") -> bool:
    """Decide mixed precision by the device alone.

    The stock check trains two batches of a model that it downloads (``utils/checks.py``: 987-1052), so that a machine
    without internet trains in another precision than one with it. It exists for GPUs of the GTX 16 series.
    """
    import torch  # noqa: PLC0415 -- a process that only starts others does without

    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device).upper() if device.type == "cuda" else ""
    return bool(name) and not any(weak in name for weak in UNFIT_FOR_HALF_PRECISION)


def _configure_libraries() -> None:
    import matplotlib as mpl  # noqa: PLC0415 -- reads the variables of `isolate_ultralytics`
    from ultralytics.utils import LOGGER, SETTINGS, USER_CONFIG_DIR  # noqa: PLC0415 -- as matplotlib

    LOGGER.setLevel(logging.WARNING)
    LOGGER.handlers.clear()
    LOGGER.propagate = True
    mpl.rcParams["text.parse_math"] = False  # else a class called $_$ ends a finished training at its plots
    # Integrations add callbacks to every trainer (utils/callbacks/base.py: 197-204).
    if off := {name: False for name in INTEGRATIONS if SETTINGS.get(name)}:
        SETTINGS.update(off)
    # Plots want Arial and would download it (utils/checks.py: check_font); matplotlib ships a font that serves.
    font = Path(USER_CONFIG_DIR) / "Arial.ttf"
    if not font.exists():
        font.parent.mkdir(parents=True, exist_ok=True)  # of this process's first call, and may be removed
        shutil.copyfile(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", font)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Restore ``OMP_NUM_THREADS``, which Ultralytics sets when imported: the next run would take it for the user's."""
    given = os.environ.get("OMP_NUM_THREADS")
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if given is not None:
            os.environ["OMP_NUM_THREADS"] = given
