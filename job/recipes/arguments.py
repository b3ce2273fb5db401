"""Training arguments of Ultralytics: types, ranges, defaults, and the arguments that the job decides itself.

Guarantees that the pinned Ultralytics accepts each value that passes here, which a test compares with its own tables.
Written out because recipes are checked on machines without torch and Ultralytics.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from job.text import nearest, validation_problems

Arguments = dict[str, Any]
"""Training arguments by Ultralytics' names; each value has its argument's own type."""

MAX_COUNT = 2**31 - 1
"""The libraries below count in 32 bits."""

MIN_IMGSZ = 32
MAX_IMGSZ = 16_352
"""OpenCV warps pictures of up to 32767 pixels, and a mosaic is twice as wide as the image that is cut from it; of that,
the largest multiple of the stride.
"""

MAX_SEED = 2**32 - 1
"""NumPy takes no larger one."""

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
    "distill_model": "distillation is not supported: the teacher would have to be part of every checkpoint",
    "quantize": "quantisation-aware training is not supported: its observers are not part of a checkpoint",
    "augmentations": "custom Albumentations pipelines draw from a random stream of their own",
    **dict.fromkeys(
        ("copy_paste", "copy_paste_mode", "overlap_mask", "mask_ratio", "dropout", "erasing", "auto_augment"),
        "it has no effect on a detector trained on boxes",
    ),
}
"""Arguments of Ultralytics that the job decides itself, each with the reason for the message."""

ALIASES = {"rotate": "degrees"}
"""Other names of arguments, with Ultralytics' own."""


def _whole(value: object) -> object:
    """Return a whole number written as 30.0 as 30."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _indices(value: object) -> object:
    """Return text such as ``0,2,3`` or ``[0]``, as a command line has it, as a list."""
    if not isinstance(value, str) or not {",", "["} & set(value):
        return _whole(value)
    parts = [part.strip() for part in value.strip("[]() ").split(",")]
    return [int(part) if part.removeprefix("-").isdecimal() else part for part in parts]


Whole = Annotated[int, BeforeValidator(_whole)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Index = Annotated[int, Field(ge=0)]
Indices = Annotated[
    list[Index] | Index | None,
    BeforeValidator(_indices),
    Field(description="a whole number of at least 0, or a list of such"),
]


class TrainingArguments(BaseModel):
    """Section ``train`` of a recipe; whole numbers count as numbers, nothing else is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # Scope
    epochs: Whole = Field(default=100, ge=1, le=MAX_COUNT)
    patience: Whole = Field(default=100, ge=0, le=MAX_COUNT)
    batch: Whole = Field(default=16, ge=1, le=MAX_COUNT)
    imgsz: Whole = Field(default=640, ge=MIN_IMGSZ, le=MAX_IMGSZ)
    fraction: float = Field(default=1.0, ge=1e-6, le=1)
    single_cls: bool = False
    classes: Indices = None
    cls_remap: bool = True
    freeze: Indices = None
    # Optimizer
    optimizer: Literal["auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp"] = "auto"
    lr0: Fraction = 0.01
    lrf: Fraction = 0.01
    momentum: Fraction = 0.937
    weight_decay: Fraction = 0.0005
    warmup_epochs: NotNegative = 3.0
    warmup_momentum: Fraction = 0.8
    warmup_bias_lr: Fraction = 0.1
    cos_lr: bool = False
    nbs: Whole = Field(default=64, ge=1, le=MAX_COUNT)
    amp: bool | Literal["fp16", "bf16", "fp32"] = Field(default=True, description="true, false, fp16, bf16 or fp32")
    channels_last: bool | None = None
    deterministic: bool = True
    compile: bool = False
    seed: Whole = Field(default=0, ge=0, le=MAX_SEED)
    # Loss weights
    box: NotNegative = 7.5
    cls: NotNegative = 0.5
    dfl: NotNegative = 1.5
    cls_pw: Fraction = 0.0
    # Augmentation
    hsv_h: Fraction = 0.015
    hsv_s: Fraction = 0.7
    hsv_v: Fraction = 0.4
    degrees: float = 0.0
    translate: Fraction = 0.1
    scale: NotNegative = 0.5
    shear: float = 0.0
    perspective: Fraction = 0.0
    flipud: Fraction = 0.0
    fliplr: Fraction = 0.5
    bgr: Fraction = 0.0
    mosaic: Fraction = 1.0
    mixup: Fraction = 0.0
    cutmix: Fraction = 0.0
    close_mosaic: Whole = Field(default=10, ge=0, le=MAX_COUNT)
    multi_scale: Fraction = 0.0
    # Validation
    iou: Fraction = 0.7
    max_det: Whole = Field(default=300, ge=1, le=MAX_COUNT)
    plots: bool = True
    # Tiles, which Ultralytics does not know
    tiles: Whole = Field(default=0, ge=0, le=MAX_IMGSZ)
    tile_overlap: float = Field(default=0.2, ge=0, le=0.9)
    tile_empty: float = Field(default=0.15, ge=0, le=0.9)
    tile_visible: Fraction = 0.5
    val_tiles: bool = False
    # Which epoch is best, and ends patience: by Ultralytics' fitness, which is mAP50-95, or by F1
    best: Literal["fitness", "f1"] = "fitness"
    # Loading
    cache: Literal[False] = False

    @field_validator("cache", mode="before")
    @classmethod
    def _refuse_caches(cls, value: object) -> object:
        if str(value).lower() == "false":  # `yolo` writes False
            return False
        raise ValueError(
            f"must be false, got {value!r}; the one in memory is given up where memory is short, which changes the "
            "pictures of a mosaic, and the one on disk writes into the dataset, where the next run reads it"
        )

    @field_validator("tiles")
    @classmethod
    def _require_tiles(cls, value: int) -> int:
        if 0 < value < MIN_IMGSZ:
            raise ValueError(f"must be 0 for whole pictures, or at least {MIN_IMGSZ} pixels, got {value}")
        return value

    @staticmethod
    def explain_unknown(name: str) -> str:
        """Return the problem of an unknown argument."""
        if name in OWNED:
            return f"decided by the job; {OWNED[name]}"
        return f"not a training argument{nearest(name, [*DEFAULTS, *ALIASES])}"


DEFAULTS = TrainingArguments().model_dump()

OF_TILES = ("tiles", "tile_overlap", "tile_empty", "tile_visible", "val_tiles")
"""Arguments of the job's own: pixels of the file that a tile is wide and high (0 trains on whole pictures), the share
of it that the next tile repeats, the share of empty tiles in an epoch at most, the share of an object that has to lie
in a tile, and whether validation looks at tiles besides.
"""

OF_THE_JOB = (*OF_TILES, "best")
"""Arguments that Ultralytics does not know."""

YOUNGER = (*OF_THE_JOB, "compile")
"""Arguments that older versions did not record."""

EXACT: Arguments = {"deterministic": True, "compile": False}
"""Values of the arguments that trade exactness for speed, with which nothing is traded."""


def requested(train: Arguments) -> Arguments:
    """Return training arguments as a request records them: of the younger ones those that are not defaults."""
    return {name: value for name, value in train.items() if name not in YOUNGER or value != DEFAULTS[name]}


def traded(train: Mapping[str, Any]) -> list[str]:
    """Return why the arguments alone make a training inexact, each for the sake of speed; empty if they do not."""
    why = {
        "deterministic": "deterministic: is off, so kernels may differ from one time to the next",
        "compile": "compile: is on, so each machine makes kernels of its own",
    }
    return [why[name] for name, value in EXACT.items() if train[name] != value]


def validation_tiles(train: Arguments) -> tuple[int | None, float]:
    """Return size and overlap of the tiles that validation looks at besides; None and 0 if it looks at none."""
    return (train["tiles"] or train["imgsz"], train["tile_overlap"]) if train["val_tiles"] else (None, 0.0)


def check_arguments(given: Arguments) -> tuple[Arguments, list[str]]:
    """Check training arguments by name, type and range.

    Returns:
        The values in canonical form, or every problem found, one sentence each.
    """
    try:
        return TrainingArguments.model_validate(given).model_dump(exclude_unset=True), []
    except ValidationError as error:
        return {}, validation_problems(error, TrainingArguments)


def read_argument(name: str, text: str) -> Any:  # noqa: ANN401 -- of the argument's type
    """Read a value from a command line; unreadable text is returned unchanged, for `check_arguments` to name."""
    try:
        read = TrainingArguments.model_validate_strings({name: text.strip()}, strict=False)
    except ValidationError:
        return text
    return getattr(read, name)
