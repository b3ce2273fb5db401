"""Weights as files: loaded without running their code, compared by content, written as Ultralytics writes them.

A ``.pt`` file is a pickle, which can run anything when loaded; here only classes of torch and Ultralytics themselves
are built, and a file that names anything else is refused by that name.
"""

import hashlib
import io
import pickle
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import nn
from ultralytics.nn.tasks import _SafeLoad

from job.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Transfer:
    """How much of some weights a model took over."""

    num_tensors: int
    num_taken: int
    percent_of_parameters: float
    """Share of the model's parameters that came from the weights, 0 to 100."""

    percent_of_body: float
    """The same for backbone and neck, without the detection head, 0 to 100."""

    left_out: tuple[str, ...]
    """What was not taken over and why, one sentence each."""

    def __str__(self) -> str:
        return f"{self.num_taken} of {self.num_tensors} tensors, {self.percent_of_parameters:.1f} % of the parameters"


def load_weights(path: Path) -> nn.Module:
    """Load the model of an Ultralytics checkpoint, in full precision on the CPU.

    Raises:
        WeightsError: If the file is damaged, is no checkpoint, or names a class that is not on the allow-list.
    """
    try:
        with _SafeLoad.loading(str(path)):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _refused_names(path)
        if not refused:
            raise WeightsError(f"{path}: is not a checkpoint of torch; pass weights that Ultralytics wrote") from error
        raise WeightsError(
            f"{path}: refused without running it, it names {', '.join(refused)}, which is not part of torch or "
            "Ultralytics; pass weights that Ultralytics wrote"
        ) from error
    except (RuntimeError, EOFError, ValueError, AttributeError, TypeError, KeyError, OSError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: cannot be loaded, {detail}; the file is damaged, fetch it again") from error
    model = (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, dict) else None
    if not isinstance(model, nn.Module):
        raise WeightsError(f"{path}: holds no model; pass weights that Ultralytics wrote")
    return model.float()


def _refused_names(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001 -- whatever a hostile file does to the scanner, it has no names to report
        return []


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
    """Return `digest_tensors` of the model in a checkpoint file, at the precision in which it is stored.

    Raises:
        WeightsError: If the file cannot be loaded safely.
    """
    with_stored_precision = _load_stored(path)
    return digest_tensors(with_stored_precision.state_dict())


def _load_stored(path: Path) -> nn.Module:
    load_weights(path)  # refuses what must be refused, with the message for it
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    model: nn.Module = checkpoint.get("ema") or checkpoint["model"]
    return model


def measure_transfer(model: nn.Module, source: nn.Module) -> Transfer:
    """Compare a model with the weights it was just loaded from."""
    theirs = source.state_dict()
    ours = model.state_dict()
    head = f"model.{len(model.model) - 1}."  # type: ignore[arg-type]  # DetectionModel.model is a Sequential
    taken, left_out = [], []
    for name, tensor in ours.items():
        other = theirs.get(name)
        if other is not None and other.shape == tensor.shape and torch.equal(other.to(tensor.dtype), tensor):
            taken.append(name)
        elif other is None:
            left_out.append(f"{name}: the weights have no such tensor")
        elif other.shape != tensor.shape:
            reason = "another number of classes" if name.startswith(head) else "another model size"
            left_out.append(f"{name}: {tuple(other.shape)} does not fit {tuple(tensor.shape)}, {reason}")
        else:
            left_out.append(f"{name}: rearranged by class name")
    taken_names = set(taken)

    def percent(names: list[str]) -> float:
        num_taken = sum(ours[name].numel() for name in names if name in taken_names)
        return float(100 * num_taken / sum(ours[name].numel() for name in names))

    parameters = [name for name, _ in model.named_parameters()]
    return Transfer(
        num_tensors=len(ours),
        num_taken=len(taken),
        percent_of_parameters=percent(parameters),
        percent_of_body=percent([name for name in parameters if not name.startswith(head)]),
        left_out=tuple(left_out),
    )


class Weights:
    """One `.pt` file to be: a copy of a model, turned into bytes once and only when they are wanted."""

    def __init__(self, model: nn.Module, about: dict[str, Any]) -> None:
        """Copy a model to half precision on the CPU, as Ultralytics stores finished weights.

        Args:
            model: The EMA of a detector.
            about: Further entries of the checkpoint, such as ``train_args`` and ``train_metrics``.
        """
        copied: Any = deepcopy(model).half().cpu()
        copied.to(memory_format=torch.contiguous_format)  # others cannot fuse what is stored channels last
        copied.args = dict(copied.args if isinstance(copied.args, dict) else vars(copied.args))
        copied.criterion = None
        for tensor in copied.state_dict().values():
            if tensor.is_floating_point():
                torch.nan_to_num_(tensor)  # overflow to half, as engine/trainer.py: 793-795
        for parameter in copied.parameters():
            parameter.requires_grad = False
        self._model: nn.Module | None = copied
        self._about = about
        self._bytes = b""

    @classmethod
    def stored(cls, data: bytes) -> "Weights":
        """Wrap the bytes of a file that was written before."""
        weights = cls.__new__(cls)
        weights._model, weights._about, weights._bytes = None, {}, data  # noqa: SLF001 -- its own constructor
        return weights

    def to_bytes(self) -> bytes:
        """Return the file: a stock Ultralytics checkpoint without the optimizer."""
        if self._model is not None:
            buffer = io.BytesIO()
            nothing = dict.fromkeys(("ema", "optimizer", "best_fitness", "stopper", "updates", "scaler"))
            torch.save(
                {
                    "epoch": -1,  # what Ultralytics writes for weights that are not to be resumed from
                    **nothing,
                    "model": self._model,
                    **self._about,
                    "date": datetime.now().astimezone().isoformat(),
                    "version": ultralytics.__version__,
                    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
                    "docs": "https://docs.ultralytics.com",
                },
                buffer,
            )
            self._bytes, self._model = buffer.getvalue(), None
        return self._bytes
