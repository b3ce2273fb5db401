"""Trainer: Ultralytics' detection trainer, set up from a plan; its loop and its files are not used.

Guarantees that start weights were loaded safely and fit the data, and that samples come from `KeyedDataset`. Replaces
hidden choices of the stock trainer: the precision check that downloads a model, the number of threads, loader workers
on a CPU.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import unwrap_model

from job.errors import MachineError, RecipeError, WeightsError, message_of
from job.text import UnreadableYamlError, counted
from job.training.architecture import Architecture, UnfitArchitectureError, load_architecture, require_size
from job.training.augmentation import Labels
from job.training.cores import num_cores
from job.training.dataset import Batch, KeyedDataset, TiledDataset, is_recompressed, read_only_images
from job.training.device import device_explained, require_device, why_not_compiled
from job.training.distributed import ProcessGroup
from job.training.distributed_validation import DistributedValidator, take_share
from job.training.eager import compiler_left_out, step_eagerly
from job.training.evaluation_record import harmonic_mean
from job.training.isolation import patch_ultralytics
from job.training.label_scan import known_shapes
from job.training.prepared_pixels import PixelFolder
from job.training.rng import start_streams
from job.training.sampler import STRIDE, EpochBatches, TileBatches
from job.training.signals import notices_blocked
from job.training.tiled_validation import TiledValidator
from job.training.tiles import Tiling
from job.training.weights import Transfer, load_weights, measure_transfer

log = logging.getLogger(__name__)

DETECTIONS_PER_OBJECT = 1.5
"""Detections allowed for each object of the most crowded image, and the least ``max_det``, Ultralytics' default."""

BODY_PERCENT_NEEDED = 90.0
"""A start from weights must take over at least this share of backbone and neck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One training, on this machine."""

    train: Mapping[str, Any]
    """Ultralytics' argument names and final values; a ``max_det`` of `None` is decided by the data."""

    data_yaml: Path
    folder: Path
    """Folder for plots and other files for people."""

    architecture: str | None
    """A model file of Ultralytics such as ``yolo11n.yaml``; `None` takes that of the weights."""

    weights: Path | None
    """Start weights; `None` trains from scratch."""

    same_classes: bool
    """The weights must have the data's classes in the data's order."""

    device: str
    """``cpu``, ``0`` and so on; empty chooses."""

    workers: int
    """Processes that load images; 0 loads in this one."""

    num_threads: int
    """Threads of torch on the CPU; part of what decides the bits."""

    mosaic_stride: int = STRIDE
    """Batches between those that a mosaic draws from; part of what decides the bits."""

    pixels: PixelFolder | None = None
    """Folder of prepared pixels; `None` decodes each image anew."""

    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Heights and widths of images that were checked, by their paths; others are read once more."""

    of_checkpoint: bool = False
    """The weights are those of a checkpoint: the model is theirs, and its state is to be restored."""

    resumed: bool = False
    """Whether the run exists, so that another machine can train it if this one cannot."""

    ran_out_of_memory: bool = False
    """Whether an earlier attempt ran out of GPU memory."""

    group: ProcessGroup = field(default_factory=ProcessGroup)
    """The process group."""


class Trainer(DetectionTrainer):
    """Ultralytics' trainer, ready for its first step."""

    transfer: Transfer | None
    model: nn.Module
    batches: EpochBatches
    callbacks: dict[str, list[Any]]
    best_fitness: float | None
    train_loader: "DataLoader[Any]"
    begun: tuple[int, int] | None
    """The epoch and the batch (0-based) that `coming` begins with, unless some of it was taken."""

    coming: Iterator[Batch]

    def __init__(self, plan: Plan) -> None:
        """Build model, optimizer and loaders; raises `WeightsError` as `setup_model`.

        Raises `RecipeError` if Ultralytics refuses the arguments, or the device has not the precision that they ask
        for, `MachineError` if the device does not exist or cannot be used.
        """
        self.plan = plan
        self.transfer = None
        self.begun = None
        if plan.train["compile"] and plan.group.size > 1:
            raise RecipeError(
                f"compile: trains on one device, found {plan.group.size} processes; leave it out, or name one --device"
            )
        if plan.train["compile"] and plan.train["multi_scale"]:
            raise RecipeError("compile: is for one size of images, and multi_scale gives others; leave one of them out")
        require_device(plan.group.device(plan.device))
        try:
            with device_explained(plan.device), nullcontext() if plan.train["compile"] else compiler_left_out():
                super().__init__(
                    overrides={
                        **{
                            name: value
                            for name, value in plan.train.items()
                            if value is not None and name in DEFAULT_CFG_DICT
                        },
                        "model": plan.architecture or str(plan.weights),
                        "data": str(plan.data_yaml),
                        "save_dir": str(plan.folder),
                        "device": plan.group.device(plan.device),
                        "workers": plan.workers,
                        "task": "detect",
                        "mode": "train",
                        "verbose": False,
                    }
                )
        except (ValueError, AssertionError) as error:
            raise RecipeError(f"recipe: Ultralytics refuses it, {message_of(error)}; correct it") from error
        self._require_precision()
        self.callbacks = {event: [] for event in self.callbacks}  # callbacks of integrations
        self.args.workers = plan.workers  # set to 0 on a CPU by the base class
        torch.set_num_threads(plan.num_threads)  # select_device sets it from the number of cores
        with plan.group.local_zero_first(), known_shapes(plan.shapes):
            self._setup_train()
        self._require_compiled()
        if plan.group.size > 1:
            plan.group.barrier()  # for ranks that still pull data, before the shorter limit of a step
            device = next(self.model.parameters()).device
            self.model = DistributedDataParallel(  # as Ultralytics does (engine/trainer.py: 439)
                self.model,
                device_ids=None if device.type == "cpu" else [device.index],
                find_unused_parameters=True,
                broadcast_buffers=False,
            )

    def _require_precision(self) -> None:
        supported = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        if self.args.amp == "bf16" and not supported:
            self._refuse(
                f"amp bf16: {self.device} does not calculate in bfloat16",
                "pass another --amp, or take a GPU of compute capability 8.0 or later",
            )

    def _require_compiled(self) -> None:
        """Refuse a machine that cannot compile, where Ultralytics trains the model as it is."""
        if not self.args.compile:
            return
        problem = why_not_compiled(self.device)
        if problem is None and unwrap_model(self.model) is self.model:
            problem = "Ultralytics did not compile the model"
        if problem is not None:
            advice = "leave it out, or take a GPU on a machine with a C compiler and Python's headers"
            self._refuse(f"compile: is not possible here, {problem}", advice)

    def _refuse(self, problem: str, advice: str) -> NoReturn:
        """Refuse a recipe on this machine; a run that exists can be trained by another machine."""
        if self.plan.resumed:
            raise MachineError(f"{problem}; continue the run on a machine like its first")
        raise RecipeError(f"{problem}; {advice}")

    @property
    def starts_trained(self) -> bool:
        """Whether the start weights, head included, were trained, so that they can find something."""
        return self.transfer is not None and not self.transfer.has_new_outputs

    def get_dataset(self) -> dict[str, Any]:
        """Read the data file; the checks of the job have passed by now."""
        data: dict[str, Any] = check_det_dataset(str(self.plan.data_yaml), autodownload=False)
        if self.args.single_cls:
            data["names"], data["nc"] = {0: "item"}, 1
        return data

    def setup_model(self) -> None:
        """Build the model and load the start weights; raises `WeightsError` if they are unsafe or do not fit."""
        plan = self.plan
        source = load_weights(plan.weights) if plan.weights else None
        if source is not None and plan.same_classes:
            _require_same_classes(source.names, self.data["names"], str(plan.weights))
        if source is not None and plan.of_checkpoint:
            self.model = source
            return
        architecture = deepcopy(source.yaml) if source and not plan.architecture else _architecture(plan.architecture)
        self.model = self.get_model(cfg=architecture, weights=source, verbose=False)
        if source is None:
            return
        self.transfer = measure_transfer(self.model, source)
        if self.transfer.percent_of_body < BODY_PERCENT_NEEDED:
            raise WeightsError(
                f"{plan.weights}: fits only {self.transfer.percent_of_body:.1f} % of backbone and neck, at least "
                f"{BODY_PERCENT_NEEDED:g} % is needed; start from weights of the same model, or train from scratch",
                [*self.transfer.left_out[:5], f"... {counted(len(self.transfer.left_out), 'tensor')} in all"],
            )

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
        """Build the stock dataset, which validation uses."""
        dataset = super().build_dataset(img_path, mode, batch)
        read_only_images(dataset)
        return dataset

    def build_optimizer(self, *args: Any, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 -- those of the stock method
        """Build the stock optimizer."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(*args, **options)
        if not self.plan.train["compile"]:
            step_eagerly(optimizer)
        return optimizer

    def get_validator(self) -> Any:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
        """Return the stock validator, whose batches the ranks share, or one that looks at tiles besides."""
        validator = super().get_validator()
        validator.__class__ = DistributedValidator
        validator.group = self.plan.group
        if self.plan.train["val_tiles"]:
            validator.__class__ = TiledValidator
            validator.tile_size = self.plan.train["tiles"] or self.args.imgsz
            validator.tile_overlap = self.plan.train["tile_overlap"]
        return validator

    def validate(self) -> Any:  # noqa: ANN401 -- one of Ultralytics' classes, which are Any
        """Validate, and return the metrics and what decides which epoch is best."""
        best = self.best_fitness
        metrics, fitness = super().validate()
        if self.plan.train["best"] == "f1":
            fitness = harmonic_mean(metrics["metrics/precision(B)"], metrics["metrics/recall(B)"])
            self.best_fitness = fitness if best is None else max(best, fitness)
        return metrics, fitness

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> "DataLoader[Any]":
        """Return keyed batches for training, and the stock loader for validation, which draws nothing."""
        train, group = self.plan.train, self.plan.group
        if mode == "val":
            of_split = super().get_dataloader(dataset_path, max(batch_size // group.size, 1), rank, mode)
            take_share(of_split, group)
            return _without_signals(of_split)
        if batch_size % group.size:
            raise RecipeError(
                f"batch {batch_size}: cannot be shared evenly by {group.size} processes; pass a multiple as --batch"
            )
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        words = (self.args, self.data, batch_size, self.epochs)
        options: dict[str, Any] = {"stride": stride, "mosaic_stride": self.plan.mosaic_stride}
        share = {"rank": group.rank, "num_processes": group.size, "stride": self.plan.mosaic_stride}
        dataset: KeyedDataset
        if train["tiles"]:
            tiling = Tiling(train["tiles"], train["tile_overlap"], train["tile_visible"])
            dataset = tiled = TiledDataset(tiling, *words, **options)
            if tiled.empty.all():
                raise RecipeError(
                    f"tiles {tiling.size}: none of train shows {tiling.visible:.0%} of an object; pass larger --tiles, "
                    "or a smaller --tile-visible"
                )
            self.batches = TileBatches(
                tiled.picture_of, tiled.empty, train["tile_empty"], batch_size, self.args.seed, **share
            )
        else:
            dataset = KeyedDataset(*words, **options, pixels=self.plan.pixels)
            if dataset.prepared:
                self._say_once(dataset.prepared.choose())
            self.batches = EpochBatches(len(dataset), batch_size, self.args.seed, **share)
        workers = self._num_workers()
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self.batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.type == "cuda",
            collate_fn=dataset.collate_fn,
            worker_init_fn=patch_ultralytics,
            generator=torch.Generator(),  # else each epoch draws its workers' seed from the process's own stream
        )
        # _build_train_pipeline reads it (engine/trainer.py: 307); with a batch sampler it is None.
        object.__setattr__(loader, "batch_size", batch_size)  # over all ranks
        return _without_signals(loader)

    def _say_once(self, text: str) -> None:
        """Log what holds for all ranks of this machine."""
        if not self.plan.group.local_rank:
            log.info("%s", text)

    def _num_workers(self) -> int:
        """Return how many processes load: as asked, but no more than this rank has cores, or decode images once."""
        most = min(self.args.workers, max(1, num_cores() // self.plan.group.local_size), len(self.batches))
        if (fit := self.batches.fit_workers(most)) < most:
            log.info("workers: %d instead of %d, which would decode images more than once", fit, most)
        return fit

    def _build_train_pipeline(self) -> None:
        """Build the loaders, and decide how many detections an image may have.

        Stock Ultralytics takes the objects of the most crowded image if they exceed its default, which leaves no room
        for false alarms in it (``models/yolo/detect/val.py``: 64-95).
        """
        share = f"fraction {self.args.fraction:g}: no picture of it has an object; pass a larger --fraction"
        try:
            super()._build_train_pipeline()
        except ValueError as error:
            if "No labels found" not in str(error):
                raise
            raise RecipeError(share) from error
        counts = {name: [len(label["cls"]) for label in labels] for name, labels in self.labels.items()}
        void = [name for name, numbers in counts.items() if not any(numbers)]
        if void and self.args.classes is not None and not self.plan.resumed:
            raise RecipeError(
                f"classes {self.args.classes}: no object of {' and '.join(void)} is of them; pass other --classes"
            )
        if void and self.args.fraction < 1 and not self.plan.resumed:
            raise RecipeError(share)
        most, asked = max(max(numbers, default=0) for numbers in counts.values()), self.plan.train["max_det"]
        enough = max(DEFAULT_CFG.max_det, math.ceil(DETECTIONS_PER_OBJECT * most))
        self.args.max_det = enough if asked is None else asked
        unwrap_model(self.model).set_head_attr(max_det=self.args.max_det)
        if self.args.max_det < most:
            log.warning(
                "max_det %d: an image has %s, so that not all of them can be found; pass a larger --max-det",
                *(self.args.max_det, counted(most, "object")),
            )
        elif asked is None and self.args.max_det != DEFAULT_CFG.max_det:
            log.info(
                "max_det %d: an image may have that many detections, %g x the %s of the most crowded one",
                *(self.args.max_det, DETECTIONS_PER_OBJECT, counted(most, "object")),
            )

    def preprocess_keyed(self, batch: Batch, index: int) -> Batch:
        """Move a batch to the device and draw its size for multi-scale from its key."""
        start_streams("size", self.args.seed, self.epoch, index)
        prepared: Batch = self.preprocess_batch(batch)
        return prepared

    def epoch_of_batches(self, epoch: int, first_batch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch (0-based) from a batch (0-based) on.

        At its end the workers begin the next epoch, so that its first batches are ready after validation.
        """
        if self.begun != (epoch, first_batch):
            self._begin(epoch, first_batch)
        self.begun = None
        yield from self.coming
        if epoch + 1 < self.epochs:
            self._begin(epoch + 1, 0)

    def _begin(self, epoch: int, first_batch: int) -> None:
        """Let the workers load the batches of an epoch from a batch on."""
        self.batches.start(epoch, first_batch)
        self.begun, self.coming = (epoch, first_batch), iter(self.train_loader)

    @property
    def datasets(self) -> Mapping[str, Any]:
        """The two splits."""
        return {"train": self.train_loader.dataset, "val": self.test_loader.dataset}

    @property
    def labels(self) -> dict[str, list[Labels]]:
        """Labels of the whole pictures of the two splits."""
        train = cast("KeyedDataset", self.train_loader.dataset)
        return {"train": train.pictures, "val": self.test_loader.dataset.labels}

    @property
    def num_compressed_anew(self) -> int:
        """Number of images that older versions of the job trained with other pixels; see `is_recompressed`."""
        return sum(is_recompressed(image) for dataset in self.datasets.values() for image in dataset.im_files)

    def shut_loaders(self) -> None:
        """End the loader processes."""
        iterator = getattr(self.train_loader, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()  # noqa: SLF001 -- torch offers no other way before the interpreter ends
        if hasattr(self.test_loader, "close"):
            self.test_loader.close()


def _architecture(name: str | None) -> Architecture:
    """Read the model file of the request."""
    try:
        architecture = load_architecture(str(name))
        require_size(architecture)
    except FileNotFoundError as error:
        raise WeightsError(f"model {name}: Ultralytics has no such model; pass for example yolo11n.yaml") from error
    except (UnfitArchitectureError, UnreadableYamlError) as error:
        raise WeightsError(f"model {name}: cannot be built, {error}; pass for example yolo11n.yaml") from error
    return architecture


def _require_same_classes(theirs: dict[int, str], data_names: dict[int, str], subject: str) -> None:
    if theirs == data_names:
        return
    same_set = sorted(theirs.values()) == sorted(data_names.values())
    what = "are in another order" if same_set else "differ from the data's"
    both = ("weights", theirs), ("data", data_names)
    raise WeightsError(
        f"{subject}: its classes {what}; correct data.yaml, choose other weights, or pass --new-classes if it is meant",
        [f"{whose}: {', '.join(f'{i} {name}' for i, name in sorted(names.items()))}" for whose, names in both],
    )


def _without_signals(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """Let a loader start its processes with signals blocked.

    They would inherit the trainer's handlers, and torch ends a training whose loader lost a process.
    """
    start = loader._get_iterator  # noqa: SLF001 -- where both torch's loader and Ultralytics' start them

    def start_without_signals() -> Any:  # noqa: ANN401 -- torch's iterators have no public type
        with notices_blocked():
            return start()

    loader._get_iterator = start_without_signals  # type: ignore[method-assign]  # noqa: SLF001 -- where both torch's loader and Ultralytics' start them
    return loader
