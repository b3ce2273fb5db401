"""Weights files: loaded without running their code, compared by content, written in Ultralytics' format.

A ``.pt`` file is a pickled model, which can run code when it is loaded and when it is used. Here the model is built
from a table of known layers, and takes over the file's tensors and class names only.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
import ultralytics
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from job.errors import WeightsError
from job.training.architecture import Architecture, UnfitArchitectureError, checked_architecture, require_size
from job.training.checkpoint_file import CheckpointFile, Record, StoredTensor, UnreadableFileError

MAX_NAMES = 100_000
"""Limit of tensors and modules in a model; the largest that Ultralytics publishes has a few thousand."""

MAX_NAME_LENGTH = 300
MAX_CLASSES = 20_000

SPARE_PARAMETERS = 10_000_000
"""Parameters beyond twice its own that a model may have: a class branch may be as wide as that of other weights."""

OF_THE_MACHINE = {"save_dir", "name", "device", "workers", "verbose"}
"""Arguments of this machine's execution; stock Ultralytics chooses its own when it resumes."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Share of some weights that a model took over."""

    num_tensors: int
    num_taken: int
    percent_of_parameters: float
    """Share of the model's parameters that came from the weights, 0 to 100."""

    percent_of_body: float
    """The same for backbone and neck, without the detection head, 0 to 100."""

    left_out: tuple[str, ...]
    """Tensors that were not taken over and why, one sentence each."""

    has_new_outputs: bool
    """Whether layers of its head are random, since the weights have others: it finds nothing before it is trained."""

    def __str__(self) -> str:
        return f"{self.num_taken} of {self.num_tensors} tensors, {self.percent_of_parameters:.1f} % of the parameters"


@dataclass(frozen=True, slots=True)
class _Stored:
    """The model of a checkpoint file, not yet built."""

    tensors: dict[str, torch.Tensor]
    """Parameters and buffers by name, at the precision in which they are stored."""

    names: object
    architecture: object
    figures: dict[str, dict[str, object]]
    """Metrics and learning curve."""


def load_weights(path: Path) -> DetectionModel:
    """Build the model of an Ultralytics checkpoint anew, in full precision on the CPU, and fill in its tensors.

    The model has the file's tensors, class names and known layers, and nothing else of it. Raises `WeightsError` if the
    file is damaged, is of no detector, claims more than it holds, or names a class of neither torch nor Ultralytics.
    """
    stored = _read(path)
    try:
        architecture = checked_architecture(stored.architecture)
        names = _class_names(stored.names)
        architecture["nc"] = len(names)
        num_elements = sum(tensor.numel() for tensor in stored.tensors.values())
        require_size(architecture, SPARE_PARAMETERS + 2 * num_elements)
        model = _built(architecture, stored.tensors)
    except UnfitArchitectureError as error:
        raise WeightsError(f"{path}: cannot be started from, {error}; pass weights of a YOLO detector") from error
    model.names = names
    return model


def _read(path: Path) -> _Stored:
    try:
        with CheckpointFile(path) as file:
            content = file.content if isinstance(file.content, dict) else {}
            found = [content[key] for key in ("ema", "model") if isinstance(content.get(key), Record)]
            if not found:
                raise WeightsError(f"{path}: holds no model; pass weights that Ultralytics wrote")
            model: Record = found[0]
            tensors = {name: file.read(tensor) for name, tensor in _stored_tensors(model)}
            figures = {name: _figures(content.get(name)) for name in ("train_metrics", "train_results")}
            return _Stored(tensors, model.attributes.get("names"), model.attributes.get("yaml"), figures)
    except UnreadableFileError as error:
        raise WeightsError(_refusal(path, error)) from error
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise WeightsError(
            f"{path}: its model is not one of Ultralytics; pass weights that Ultralytics wrote"
        ) from error


def _refusal(path: Path, error: UnreadableFileError) -> str:
    if any(name.startswith(("models.yolo.", "models.common.")) for name in error.names):
        return (
            f"{path}: was written by the YOLOv5 repository, which Ultralytics cannot start from; pass weights of "
            "Ultralytics itself, such as yolov5nu.pt or yolo11n.pt"
        )
    if error.names:
        return (
            f"{path}: refused without running it, {error}, which is not part of torch or Ultralytics; pass weights "
            "that Ultralytics wrote"
        )
    return f"{path}: cannot be read, {error}; fetch it again, or pass other weights"


def _stored_tensors(model: Record) -> Iterator[tuple[str, StoredTensor]]:
    """Name the tensors of a model as its ``state_dict`` does."""
    waiting = [("", model)]
    num_names = 0
    while waiting:
        prefix, module = waiting.pop()
        of_module = module.attributes
        passing = of_module.get("_non_persistent_buffers_set", ())
        buffers = {name: tensor for name, tensor in of_module["_buffers"].items() if name not in passing}
        tensors, parts = {**of_module["_parameters"], **buffers}, of_module["_modules"]
        num_names += len(tensors) + len(parts) + 1
        if num_names > MAX_NAMES or any(len(prefix) + len(name) > MAX_NAME_LENGTH for name in (*tensors, *parts)):
            raise UnreadableFileError("its model has no end")
        yield from ((f"{prefix}{name}", tensor) for name, tensor in tensors.items() if tensor is not None)
        waiting += [(f"{prefix}{name}.", part) for name, part in parts.items() if part is not None]


def _class_names(found: object) -> dict[int, str]:
    """Return the names by number, as Ultralytics keeps them; older weights have a list."""
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or set(found) != set(range(len(found))) or not 0 < len(found) <= MAX_CLASSES:
        raise UnfitArchitectureError("its classes are not numbered from 0")
    if any(not isinstance(name, str | int) or len(str(name)) > MAX_NAME_LENGTH for name in found.values()):
        raise UnfitArchitectureError("its classes are not named")
    return {number: str(found[number]) for number in range(len(found))}


def _built(architecture: Architecture, tensors: dict[str, torch.Tensor]) -> DetectionModel:
    """Build a model that has these tensors."""
    try:
        with torch.random.fork_rng(devices=[]):  # initial values must not draw from training's streams
            model = DetectionModel(architecture, ch=architecture["channels"], verbose=False)
            _fit_class_branch(model, architecture, tensors)
    except Exception as error:  # Ultralytics raises anything on layers that do not fit each other
        raise UnfitArchitectureError("its layers do not fit each other") from error
    _fill(model, tensors)
    return model


def _fill(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Load tensors into a model that has the same ones; raises `UnfitArchitectureError` if it has others."""
    expected = model.state_dict()
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [name for name, tensor in tensors.items() if name in expected and tensor.shape != expected[name].shape]
    if wrong:
        raise UnfitArchitectureError(f"its layers have other tensors, {len(wrong)} of them, such as {wrong[0]:.80}")
    model.load_state_dict(tensors)


def _fit_class_branch(model: DetectionModel, architecture: Architecture, tensors: dict[str, torch.Tensor]) -> None:
    """Give the class branch the width of the stored one, which follows earlier weights (``nn/tasks.py``: 340-359)."""
    head = model.model[-1]
    for branch in ("cv3", "one2one_cv3"):
        parts = getattr(head, branch, None)
        if parts is None:
            continue
        last = f"model.{head.i}.{branch}.0.{len(parts[0]) - 1}.weight"
        width = tensors[last].shape[1] if last in tensors and tensors[last].dim() > 1 else 0
        if width in {0, parts[0][-1].in_channels} or width > MAX_CLASSES:
            continue
        other = DetectionModel({**deepcopy(architecture), "nc": width}, ch=architecture["channels"], verbose=False)
        wider = getattr(other.model[-1], branch)
        for part, own in zip(wider, parts, strict=True):
            part[-1] = nn.Conv2d(part[-1].in_channels, own[-1].out_channels, 1)
        setattr(head, branch, wider)


def digest_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 over tensors: name, dtype, shape and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_file(path: Path) -> str:
    """Return `digest_tensors` of the model in a checkpoint file, at the precision in which it is stored."""
    return digest_tensors(_read(path).tensors)


def measure_transfer(model: nn.Module, source: nn.Module) -> Transfer:
    """Compare a model with the weights it was just loaded from."""
    theirs = source.state_dict()
    ours = model.state_dict()
    head = f"model.{len(model.model) - 1}."  # type: ignore[arg-type]  # DetectionModel.model is a Sequential
    taken, left_out, new = set[str](), [], []
    for name, tensor in ours.items():
        other = theirs.get(name)
        if other is not None and other.shape == tensor.shape and torch.equal(other.to(tensor.dtype), tensor):
            taken.add(name)
        elif other is None:
            new.append(name)
            left_out.append(f"{name}: the weights have no such tensor")
        elif other.shape != tensor.shape:
            if not _shares_rows(tensor, other):
                new.append(name)
            reason = "another number of classes" if name.startswith(head) else "another model size"
            left_out.append(f"{name}: {tuple(other.shape)} does not fit {tuple(tensor.shape)}, {reason}")
        else:
            left_out.append(f"{name}: rearranged by class name")

    def percent(names: list[str]) -> float:
        num_taken = sum(ours[name].numel() for name in names if name in taken)
        return float(100 * num_taken / sum(ours[name].numel() for name in names))

    parameters = [name for name, _ in model.named_parameters()]
    return Transfer(
        num_tensors=len(ours),
        num_taken=len(taken),
        percent_of_parameters=percent(parameters),
        percent_of_body=percent([name for name in parameters if not name.startswith(head)]),
        left_out=tuple(left_out),
        has_new_outputs=any(name.startswith(head) for name in new),
    )


def _shares_rows(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether some of the first dimension is the same, as where a class has its name in other weights.

    Of biases, which have one dimension, a new layer may have the same by chance; its weights tell.
    """
    first, second = ({row.numpy().tobytes() for row in each.float()} for each in (tensor, other))
    return tensor.dim() == 1 or bool(first & second)


class Weights:
    """A ``.pt`` file in memory: a copy of a model, serialised once on demand."""

    def __init__(self, model: nn.Module, *, train_args: Mapping[str, object], **entries: object) -> None:
        """Copy the EMA of a detector to half precision on the CPU; `entries` are further ones of the checkpoint."""
        copied: Any = deepcopy(model).half().cpu()
        copied.to(memory_format=torch.contiguous_format)  # other programs cannot fuse channels-last tensors
        copied.args = dict(train_args)
        copied.criterion = None
        _make_finite(copied)
        copied.requires_grad_(requires_grad=False)
        self._model: nn.Module = copied
        self._train_args, self._entries = train_args, entries
        self._bytes = b""

    @classmethod
    def restored(cls, path: Path, model: nn.Module, *, train_args: Mapping[str, object]) -> "Weights":
        """Read the weights of a checkpoint into a copy of the model that they are of.

        Only its tensors, metrics and learning curve are passed on. Raises `WeightsError` if the file is damaged, or has
        other tensors than the model.
        """
        stored = _read(path)
        weights = cls(model, train_args=train_args, **stored.figures)
        try:
            _fill(weights._model, stored.tensors)
        except UnfitArchitectureError as error:
            raise WeightsError(f"{path}: is not of this run's model, {error}; fetch it again") from error
        _make_finite(weights._model)
        return weights

    def to_bytes(self) -> bytes:
        """Return the file: a stock Ultralytics checkpoint without the optimizer."""
        if not self._bytes:
            nothing = dict.fromkeys(("ema", "optimizer", "best_fitness", "stopper", "updates", "scaler"))
            # The epoch is Ultralytics' own for weights that are not resumed from.
            file = io.BytesIO()
            of_us = {"epoch": -1, **nothing, "model": self._model, "train_args": self._train_args}
            torch.save({**of_us, **self._entries, **_origin()}, file)
            self._bytes = file.getvalue()
        return self._bytes

    def save_resumable(self, path: Path, entries: Mapping[str, object]) -> None:
        """Write the file of an unfinished training, with `entries` from which stock Ultralytics resumes."""
        train_args = {name: value for name, value in self._train_args.items() if name not in OF_THE_MACHINE}
        save(
            {"model": None, "ema": self._model, "train_args": train_args, **self._entries, **entries, **_origin()}, path
        )


def _make_finite(model: nn.Module) -> None:
    """Replace what is no number or overflows in half precision, as engine/trainer.py: 793-795."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            torch.nan_to_num_(tensor)


def _origin() -> dict[str, object]:
    return {
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
    }


def save(content: object, path: Path) -> None:
    """Write the file of ``torch.save`` tensor by tensor; raises `OSError` if the disk fails."""
    with path.open("wb") as file:
        pieces = _Pieces(file)
        torch.save(content, cast("BinaryIO", pieces))
    if pieces.error is not None:
        raise pieces.error


class _Pieces:
    """A file that keeps the first error of the disk, in whose place torch would raise one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, piece: bytes | memoryview) -> None:
        """Write a piece, if all before it are written."""
        if self.error is None:
            try:
                self._file.write(piece)
            except OSError as error:
                self.error = error

    def flush(self) -> None:
        """No-op: `save` closes the file, and raises what that does."""


def _figures(found: object) -> dict[str, object]:
    """Return the numeric entries of a table."""
    table = found if isinstance(found, dict) else {}
    return {
        name: value
        for name, value in table.items()
        if isinstance(name, str)
        and all(isinstance(number, float | int) for number in (value if isinstance(value, list) else [value]))
    }
