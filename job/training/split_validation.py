"""Validation of finished weights on a split, outside of a training.

Guarantees that weights are loaded by the allow-list, that metrics without tiles are those of Ultralytics' ``val`` with
the same arguments, and that a split is read as training reads it. Knows nothing of runs and thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import DEFAULT_CFG_DICT

from job.training.dataset import read_only_images
from job.training.device import device_explained, require_device, set_kernels
from job.training.evaluation import detections_collected
from job.training.library_errors import explained_prediction
from job.training.matching import MatchedPicture
from job.training.tiled_validation import TiledValidator
from job.training.weights import load_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """Arguments of Ultralytics' ``val``, and tiles."""

    train: Mapping[str, Any]
    """Training arguments of the weights; those that concern validation hold."""

    max_det: int
    """Detections of a picture, at most; raised to the objects of the most crowded one if it is Ultralytics' default."""

    tiles: int | None
    """Width and height of tiles in pixels of the file; `None` for none."""

    overlap: float
    """Share of a tile that the next one shows again."""

    batch: int
    """Pictures that the model sees at once; it decides how they are padded."""

    device: str
    """``cpu``, ``0`` and so on; empty chooses."""

    workers: int
    """Processes that load pictures for a GPU."""

    num_threads: int
    """Threads of torch on the CPU."""


@dataclass(frozen=True, slots=True)
class ValidatedSplit:
    """What a validation saw."""

    metrics: Mapping[str, float]
    """Ultralytics' own, by its column names."""

    imgsz: int
    max_det: int
    pictures: list[MatchedPicture]


class SplitValidation:
    """A model and how it is validated.

    Args:
        weights: A file in Ultralytics' format.
        data_yaml: Has the paths of the images.
        settings: How.
        folder: For files of Ultralytics.

    Raises:
        WeightsError: If the weights are unsafe or damaged.
        MachineError: If the device does not exist or cannot be used.
    """

    def __init__(self, weights: Path, data_yaml: Path, settings: ValidationSettings, folder: Path) -> None:
        self._model = load_weights(weights)
        require_device(settings.device)
        self._data_yaml, self._settings, self._folder = data_yaml, settings, folder
        self.names = [str(self._model.names[number]) for number in range(len(self._model.names))]
        """Names of the classes, by number."""

    def of(self, split: str) -> ValidatedSplit:
        """Validate a split of the data file.

        Raises:
            MachineError: If the device cannot be used.
            JobError: If it fails, or its memory is too small.
        """
        validator = self._validator(split)
        with (
            explained_prediction(f"evaluation on {split}", "--batch or --tiles"),
            device_explained(self._settings.device),
            detections_collected(validator) as seen,
        ):
            metrics = validator(model=self._model)
        pictures = [each.matched(str(validator.data["path"])) for each in seen]
        measured = {name: float(value) for name, value in metrics.items()}
        return ValidatedSplit(measured, int(validator.args.imgsz), int(validator.args.max_det), pictures)

    def _validator(self, split: str) -> Any:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
        settings = self._settings
        known = {name: value for name, value in settings.train.items() if name in DEFAULT_CFG_DICT}
        kind = DetectionValidator if settings.tiles is None else TiledValidator
        validator: Any = kind(
            save_dir=self._folder,
            args=known
            | {
                "task": "detect",
                "mode": "val",
                "data": str(self._data_yaml),
                "split": split,
                "rect": True,  # as Ultralytics' `val` has it, and validation in training
                "fraction": 1.0,
                "batch": settings.batch,
                "max_det": settings.max_det,
                "device": settings.device,
                "workers": settings.workers,
                "plots": False,
                "verbose": False,
            },
        )
        if settings.tiles is not None:
            validator.tile_size, validator.tile_overlap = settings.tiles, settings.overlap
        build = validator.build_dataset

        def build_of_files(*args: object, **options: object) -> Any:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
            dataset = build(*args, **options)
            read_only_images(dataset)
            return dataset

        validator.build_dataset = build_of_files
        validator.add_callback("on_val_start", lambda _validator: set_kernels(settings.num_threads))
        return validator
