"""Ultralytics' training arguments by name: what each accepts, its default, and which ones the job owns.

Guarantees that a value that passes here is accepted by the pinned Ultralytics, whose own tables a test compares with
this one; it is written out because recipes are checked on machines without torch and Ultralytics.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

from job.text import nearest


@dataclass(frozen=True, slots=True)
class Argument:
    """One training argument: its default and the values it takes."""

    default: Any
    kinds: tuple[type, ...]
    """Accepted types, the first of which text from a command line is read as; `int` is also taken for `float`."""

    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] | None = None
    refusal: str | None = None
    """Why it takes nothing but its default."""

    def problem(self, value: Any) -> str | None:  # noqa: ANN401 -- the value comes from YAML and may be anything
        """Say what is wrong with a value, or nothing."""
        if value is None:
            return None if self.default is None else f"must be {self._wanted()}, got nothing"
        if self.refusal is not None and value is not self.default:
            return f"must be {str(self.default).lower()}, got {value!r}; {self.refusal}"
        if self.choices is not None and not isinstance(value, bool) and value in self.choices:
            return None
        if isinstance(value, list):
            wrong = [part for part in value if type(part) is not int or part < 0]
            if list in self.kinds and wrong:
                return f"must be a list of whole numbers of at least 0, got {wrong[0]!r} in it"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = (
            type(value) in self.kinds
            or (is_number and float in self.kinds)
            or (int in self.kinds and isinstance(value, float) and value.is_integer())
        )
        in_range = not is_number or (
            not (isinstance(value, float) and not math.isfinite(value))
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
        )
        if not fits or not in_range or (self.choices is not None and bool not in self.kinds):
            return f"must be {self._wanted()}, got {value!r}"
        return None

    def read(self, text: str) -> Any:  # noqa: ANN401 -- as in `problem`
        """Read a value from a command line; what cannot be read is returned as it is, for `problem` to name."""
        folded = text.strip().casefold()
        if bool in self.kinds and folded in {"true", "false"}:
            return folded == "true"
        if list in self.kinds and "," in text:
            parts = [part.strip() for part in text.strip("[]() ").split(",")]
            return [int(part) if part.isdecimal() else part for part in parts]
        for kind in (int, float):
            if kind in self.kinds:
                with contextlib.suppress(ValueError):
                    return kind(text)
        if float not in self.kinds and int in self.kinds:
            with contextlib.suppress(ValueError):
                return float(text)
        return text

    def canonical(self, value: Any) -> Any:  # noqa: ANN401 -- as in `problem`
        """Return an accepted value in its one form: 30 and 30.0 are the same rotation."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        return int(value) if int in self.kinds and float(value).is_integer() else float(value)

    def _wanted(self) -> str:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list"}
        if self.choices is not None:
            listed = ", ".join(map(str, self.choices))
            return f"true, false or one of {listed}" if bool in self.kinds else f"one of {listed}"
        wanted = " or ".join(names[kind] for kind in self.kinds)
        if self.minimum is not None and self.maximum is not None:
            return f"{wanted} from {self.minimum:.10g} to {self.maximum:.10g}"
        if self.minimum is not None:
            return f"{wanted} of at least {self.minimum:.10g}"
        return wanted


MAX_COUNT = 2**31 - 1
"""The libraries below count in 32 bits."""

MAX_IMGSZ = 16_352
"""OpenCV warps pictures of up to 32767 pixels, and a mosaic is twice as wide as the image that is cut from it; of that,
the largest multiple of the stride.
"""

MAX_SEED = 2**32 - 1
"""NumPy takes no larger one."""


def _count(default: int, minimum: int, maximum: int = MAX_COUNT) -> Argument:
    return Argument(default, (int,), minimum=minimum, maximum=maximum)


def _number(default: float, minimum: float | None = None) -> Argument:
    return Argument(default, (float,), minimum=minimum)


def _fraction(default: float) -> Argument:
    return Argument(default, (float,), minimum=0.0, maximum=1.0)


def _flag(*, default: bool) -> Argument:
    return Argument(default, (bool,))


OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")

ARGUMENTS: dict[str, Argument] = {
    # What is trained, and for how long
    "epochs": _count(100, 1),
    "patience": _count(100, 0),
    "batch": _count(16, 1),
    "imgsz": _count(640, 32, MAX_IMGSZ),
    "fraction": Argument(1.0, (float,), minimum=1e-6, maximum=1.0),
    "single_cls": _flag(default=False),
    "classes": Argument(None, (list, int), minimum=0),
    "cls_remap": _flag(default=True),
    "freeze": Argument(None, (int, list), minimum=0),
    # How it is optimised
    "optimizer": Argument("auto", (str,), choices=OPTIMIZERS),
    "lr0": _fraction(0.01),
    "lrf": _fraction(0.01),
    "momentum": _fraction(0.937),
    "weight_decay": _fraction(0.0005),
    "warmup_epochs": _number(3.0, 0.0),
    "warmup_momentum": _fraction(0.8),
    "warmup_bias_lr": _fraction(0.1),
    "cos_lr": _flag(default=False),
    "nbs": _count(64, 1),
    "amp": Argument(True, (bool, str), choices=("fp16", "bf16", "fp32")),  # noqa: FBT003 -- the value is the default
    "channels_last": Argument(None, (bool,)),
    "deterministic": _flag(default=True),
    "seed": _count(0, 0, MAX_SEED),
    # Loss weights
    "box": _number(7.5, 0.0),
    "cls": _number(0.5, 0.0),
    "dfl": _number(1.5, 0.0),
    "cls_pw": _fraction(0.0),
    # Augmentation
    "hsv_h": _fraction(0.015),
    "hsv_s": _fraction(0.7),
    "hsv_v": _fraction(0.4),
    "degrees": _number(0.0),
    "translate": _fraction(0.1),
    "scale": _number(0.5, 0.0),
    "shear": _number(0.0),
    "perspective": _fraction(0.0),
    "flipud": _fraction(0.0),
    "fliplr": _fraction(0.5),
    "bgr": _fraction(0.0),
    "mosaic": _fraction(1.0),
    "mixup": _fraction(0.0),
    "cutmix": _fraction(0.0),
    "close_mosaic": _count(10, 0),
    "multi_scale": _fraction(0.0),
    # Validation
    "iou": _fraction(0.7),
    "max_det": _count(300, 1),
    "plots": _flag(default=True),
    # Loading
    "cache": Argument(
        False,  # noqa: FBT003 -- the value is the default
        (bool,),
        refusal="the one in memory is given up where memory is short, which changes the pictures of a mosaic, and the "
        "one on disk writes into the dataset, where the next run reads it",
    ),
}

OWNED: dict[str, str] = {
    "project": "the job decides where files go; see --workdir",
    "name": "the run's name is --run",
    "save_dir": "the job decides where files go; see --workdir",
    "exist_ok": "a run is resumed or a new one is made; nothing is overwritten",
    "resume": "the same command resumes by itself",
    "data": "the dataset is --dataset, a folder under datasets/ in the bucket",
    "model": "the start is --weights or --model",
    "pretrained": "the start is --weights or --model",
    "task": "the job trains detectors",
    "mode": "the job trains",
    "cfg": "a recipe is --recipe",
    "save": "a checkpoint is committed after every epoch",
    "save_period": "a checkpoint is committed after every epoch",
    "val": "every epoch is validated; the best one cannot be known otherwise",
    "split": "validation runs on the dataset's val split",
    "verbose": "the job does the reporting",
    "profile": "--profile takes full or demo",
    "time": "a run ends by epochs; one that ends by the clock cannot be repeated or resumed exactly",
    "rect": "batches follow a keyed shuffle, which sorting by shape would undo",
    "compile": "compiled kernels differ between machines, so a resumed run would not be the same",
    "distill_model": "distillation is not supported: the teacher would have to be part of every checkpoint",
    "quantize": "quantisation-aware training is not supported: its observers are not part of a checkpoint",
    "augmentations": "custom Albumentations pipelines draw from a random stream of their own",
    **dict.fromkeys(
        ("copy_paste", "copy_paste_mode", "overlap_mask", "mask_ratio", "dropout", "erasing", "auto_augment"),
        "it has no effect on a detector trained on boxes",
    ),
}
"""Arguments that Ultralytics knows and the job decides itself, each with the reason a person is given."""

ALIASES = {"rotate": "degrees"}
"""The user's words for arguments that Ultralytics calls otherwise."""

DEFAULTS = {name: argument.default for name, argument in ARGUMENTS.items()}


def check_arguments(given: dict[str, Any], subject: str = "") -> tuple[dict[str, Any], list[str]]:
    """Check training arguments by name, type and range.

    Args:
        given: Values by Ultralytics' names.
        subject: Put before each name in a message, such as ``train.``.

    Returns:
        The values in canonical form, and every problem found, one sentence each.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        if name in OWNED:
            problems.append(f"{subject}{name}: decided by the job; {OWNED[name]}")
        elif name not in ARGUMENTS:
            problems.append(f"{subject}{name}: not a training argument{nearest(name, [*ARGUMENTS, *ALIASES])}")
        elif problem := ARGUMENTS[name].problem(value):
            problems.append(f"{subject}{name}: {problem}")
        else:
            values[name] = ARGUMENTS[name].canonical(value)
    return values, problems
