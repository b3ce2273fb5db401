"""Keeps Ultralytics to itself: its settings in our folder, no telemetry, downloads, integrations or time limits.

Must run before the first import of ultralytics, which reads these variables and writes settings when imported.
"""

import functools
import logging
import math
import os
import shutil
from pathlib import Path


def isolate_ultralytics(folder: Path) -> None:
    """Make Ultralytics keep its settings, fonts and logs in a folder of ours and stay off the network."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_VERBOSE"] = "false"
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"  # models are built without eval, should a description get that far
    os.environ["MPLBACKEND"] = "Agg"
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))

    num_threads = os.environ.get("OMP_NUM_THREADS")
    import matplotlib as mpl  # noqa: PLC0415 -- reads the variables above
    from ultralytics.utils import LOGGER, SETTINGS, USER_CONFIG_DIR  # noqa: PLC0415 -- reads the variables above

    # Ultralytics sets it to 1 when imported, which the next run of this process would take for the user's word.
    os.environ.pop("OMP_NUM_THREADS", None)
    if num_threads is not None:
        os.environ["OMP_NUM_THREADS"] = num_threads
    LOGGER.setLevel(logging.WARNING)
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
    LOGGER.propagate = True
    mpl.rcParams["text.parse_math"] = False  # or a class called $_$ ends a finished training at its plots
    # Integrations add callbacks to every trainer (utils/callbacks/base.py: 197-204).
    integrations = ("sync", "clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb")
    off = {name: False for name in integrations if SETTINGS.get(name)}
    if off:
        SETTINGS.update(off)
    # Plots want Arial and would download it (utils/checks.py: check_font); matplotlib ships a font that serves.
    font = Path(USER_CONFIG_DIR) / "Arial.ttf"
    if not font.exists():
        font.parent.mkdir(parents=True, exist_ok=True)  # of this process's first call, which may be gone
        shutil.copyfile(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", font)
    _let_nms_finish()


def _let_nms_finish() -> None:
    """Take the time limit from NMS, after which stock leaves the other images of a batch without detections.

    A pause of the machine must not decide a metric (``utils/nms.py``: 91, 165); every caller looks the function up in
    its module.
    """
    from ultralytics.utils import nms  # noqa: PLC0415 -- reads the variables above

    nms.non_max_suppression = functools.partial(nms.non_max_suppression, max_time_img=math.inf)
