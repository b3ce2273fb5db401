"""Complete training state, of tensors and plain values; read as data by `CheckpointFile`.

Ultralytics' own checkpoint keeps the EMA in half precision and neither the live weights, the gradients that are
waiting for an optimizer step, nor any random stream (``engine/trainer.py``: 768-837). A state here is complete, in
full precision, and made of tensors and plain values, so that reading it runs no code.
"""

import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils.torch_utils import convert_optimizer_state_dict_to_fp16, unwrap_model

from job.errors import CorruptObjectError, TrainingError, message_of
from job.text import counted
from job.training.background_copy import BackgroundCopy
from job.training.checkpoint_file import CheckpointFile, UnreadableFileError
from job.training.files import BEST, LAST, STATE
from job.training.flat_tensors import mapped, packed, unpacked
from job.training.position import Position
from job.training.trainer import Trainer
from job.training.weights import Weights, digest_tensors, save

Row = dict[str, float]
"""Metrics of one epoch, by the column names of Ultralytics' ``results.csv``."""

State = dict[str, Any]
"""A complete training state: tensors and plain values, by the names of `capture`."""

SCHEMA = 2
"""Of a file; before 2 its tensors were not packed."""


@dataclass(slots=True, kw_only=True)
class TrainingProgress:
    """Position and history of a training, in plain values."""

    epoch: int = 0
    """Complete epochs."""

    batch: int = 0
    """Complete batches of the next epoch."""

    phase: str = "training"
    """``training``, or ``evaluating`` once the last epoch is over."""

    last_step: int = -1
    """Batch of the optimizer's last step, counted from the start of training."""

    train_s: float = 0.0
    """Seconds spent training, over all attempts."""

    before: Row | None = None
    """Metrics of the start weights on the validation set (row 0)."""

    rows: list[Row] = field(default_factory=list)
    """One row for each complete epoch."""

    stopped_early: bool = False

    waits_from: int = 0
    """Epochs from which patience counts, if the best epoch was earlier: those of the extended run."""

    @property
    def position(self) -> Position:
        """Where the training stands."""
        return Position(self.epoch, self.batch)


@dataclass
class Snapshot:
    """A copy of the state, to be written in the background."""

    progress: TrainingProgress
    state: State
    """Complete once it is copied, and empty once it is written."""

    copying: BackgroundCopy
    last: Weights
    best: Weights | None
    texts: dict[str, bytes]
    """Small files for people, by name."""

    digests: dict[str, str] = field(init=False)
    """`digest_state` of the state, once it is written."""

    @property
    def position(self) -> Position:
        """Where the training stood."""
        return self.progress.position

    @property
    def metadata(self) -> dict[str, object]:
        """Metadata of the manifest."""
        return {
            "phase": self.progress.phase,
            "train_s": round(self.progress.train_s, 3),
            "digests": self.digests,
        }

    def write(self, folder: Path) -> list[Path]:
        """Write the files of a checkpoint into an empty folder, once; return them, the most valuable first.

        The state's memory is free afterwards, but for the moments, which `publish` needs. Raises `TrainingError` if a
        tensor is not a number: the state must not take the place of a good checkpoint.
        """
        self.copying.wait()
        epoch, batch = self.position
        if found := not_a_number(self.state):
            raise TrainingError(
                f"training: {found} is not a number after {counted(batch, 'batch', 'batches')} of epoch {epoch + 1}; "
                "the last good checkpoint is kept; lower --lr0 or augment less, and start a new run"
            )
        save({"schema": SCHEMA, **packed(self.state)}, folder / STATE)
        self.digests = digest_state(self.state)
        _free(self.state["model"], self.state["ema"], self.state["gradients"])
        files = {} if self.best is None else {BEST: self.best.to_bytes()}
        files |= {LAST: self.last.to_bytes(), **self.texts}
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return [folder / name for name in (STATE, *files)]

    def publish(self, folder: Path) -> None:
        """Turn the files of `write` into those of the run's own folder, in Ultralytics' layout.

        Until the run is finished, ``last.pt`` is one of the last complete epoch that stock Ultralytics resumes from.
        Those of checkpoints have no optimizer, since nothing resumes from them.
        """
        epoch, batch = self.position
        if self.progress.phase == "training" and epoch and not batch:
            self.last.save_resumable(folder / LAST, self._resumable())
        else:
            (folder / LAST).unlink()
        _free(self.state["optimizer"]["state"])

    def _resumable(self) -> dict[str, object]:
        """Return the entries that stock Ultralytics saves beside the EMA (``engine/trainer.py``: 800-815)."""
        optimizer = self.state["optimizer"]
        copied = {**optimizer, "state": {index: dict(moments) for index, moments in optimizer["state"].items()}}
        stopper = self.state["stopper"]
        return {
            "epoch": self.progress.epoch - 1,
            "best_fitness": self.state["best_fitness"],
            "stopper": {name: stopper[name] for name in ("best_fitness", "best_epoch")},
            "updates": self.state["ema_updates"],
            "optimizer": convert_optimizer_state_dict_to_fp16(copied),
            "scaler": self.state["scaler"],
        }


def _free(*tables: dict[Any, Any]) -> None:
    """Empty tables of tensors one by one: while memory is given back, no other thread runs Python."""
    for table in tables:
        while table:
            table.popitem()


def capture(trainer: Trainer, progress: TrainingProgress, *, in_background: bool) -> tuple[State, BackgroundCopy]:
    """Copy the complete state to the CPU, independent of further training once the returned copy has ended.

    In the background are copied the parameters, those of the EMA and the optimizer's moments: only an optimizer step
    changes them, and has to wait. All else, which the next batch may change, is copied at once.
    """
    model = unwrap_model(trainer.model)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    weights, ema = dict(model.state_dict()), dict(trainer.ema.ema.state_dict())
    optimizer = trainer.optimizer.state_dict()
    of_steps = {name for name, _ in model.named_parameters()}
    buffers = [(tensors, name) for tensors in (weights, ema) for name in tensors if name not in of_steps]
    BackgroundCopy([*buffers, *((gradients, name) for name in gradients)]).copy()
    moments = {index: dict(of_one) for index, of_one in optimizer["state"].items()}
    state = {
        "progress": asdict(progress),
        "model": weights,
        "ema": ema,
        "ema_updates": trainer.ema.updates,
        "optimizer": {**_copied({**optimizer, "state": None}), "state": moments},
        "scaler": _copied(trainer.scaler.state_dict()),
        "gradients": gradients,
        "accumulate": trainer.accumulate,
        "losses": _copied({"mean": trainer.tloss, "last": trainer.loss_items, "total": trainer.loss}),
        "best_fitness": trainer.best_fitness,
        "stopper": {name: getattr(trainer.stopper, name) for name in ("best_fitness", "best_epoch", "possible_stop")},
        "random": _random_state(),
    }
    copying = BackgroundCopy(
        ((tensors, name) for tensors in (weights, ema) for name in tensors if name in of_steps),
        ((of_one, name) for of_one in moments.values() for name, value in of_one.items() if torch.is_tensor(value)),
    )
    if in_background:
        copying.start()
    else:
        copying.copy()
    return state, copying


def read_state(path: Path) -> State:
    """Load a captured state; raises `CorruptObjectError` if the file is none. No code in it is run."""
    try:
        with CheckpointFile(path) as file:
            content = file.plain()
        state: State = unpacked(content) if content["schema"] >= SCHEMA else content
        TrainingProgress(**state["progress"])
    except (UnreadableFileError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise CorruptObjectError(
            f"{path.name}: is not a training state, {message_of(error)}; nothing in it was run"
        ) from error
    return state


def not_a_number(state: State) -> str | None:
    """Return the name of a tensor with a value that is not a number, if there is one."""
    # A scaler lets gradients overflow, and leaves out the step.
    for group in ("model", "ema") if state["scaler"] else ("model", "ema", "gradients"):
        for name, tensor in state[group].items():
            # A sum takes a quarter of the time, and is finite only if all is; one of huge numbers may overflow.
            if not tensor.sum().isfinite() and not tensor.isfinite().all():
                return f"{name} of the {group}"
    return None


def restore_state(trainer: Trainer, state: State) -> TrainingProgress:
    """Restore a captured state into a freshly set up trainer; raises `CorruptObjectError` if it does not fit."""
    model = unwrap_model(trainer.model)
    try:
        if found := not_a_number(state):
            raise CorruptObjectError(f"state.pt: {found} is not a number")
        for group, module in (("model", model), ("ema", trainer.ema.ema)):
            if _shapes_of(state[group]) != _shapes_of(module.state_dict()):
                raise CorruptObjectError(f"state.pt: its {group} is not the one that the run trains")
        return _put_back(trainer, state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptObjectError(f"state.pt: does not fit the training, {type(error).__name__} {error}") from error


def _shapes_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _put_back(trainer: Trainer, state: State) -> TrainingProgress:
    progress = TrainingProgress(**state["progress"])
    model = unwrap_model(trainer.model)
    model.load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["ema"])
    trainer.ema.updates = state["ema_updates"]
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    for name, parameter in model.named_parameters():
        gradient = state["gradients"].get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    trainer.accumulate = state["accumulate"]
    losses = mapped(lambda tensor: tensor.to(trainer.device), state["losses"])
    trainer.tloss, trainer.loss_items, trainer.loss = losses["mean"], losses["last"], losses["total"]
    trainer.best_fitness = state["best_fitness"]
    for name, value in state["stopper"].items():
        setattr(trainer.stopper, name, value)
    _set_random_state(state["random"])
    return progress


def tensors_of(state: State) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors that identify a state: of the live weights, the EMA and the optimizer."""
    moments = {
        f"{index}.{name}": value
        for index, entry in state["optimizer"]["state"].items()
        for name, value in entry.items()
        if isinstance(value, torch.Tensor)
    }
    return {"model": state["model"], "ema": state["ema"], "optimizer": moments}


def digest_state(state: State) -> dict[str, str]:
    """Return `digest_tensors` of each group of `tensors_of`."""
    return {group: digest_tensors(tensors) for group, tensors in tensors_of(state).items()}


def digest_live(trainer: Trainer) -> dict[str, str]:
    """Return `digest_state` of the state that a trainer would capture now."""
    model = unwrap_model(trainer.model)
    ema, optimizer = trainer.ema.ema.state_dict(), trainer.optimizer.state_dict()
    return digest_state({"model": model.state_dict(), "ema": ema, "optimizer": optimizer})


def _copied(tree: Any) -> Any:  # noqa: ANN401 -- a tree of tensors and plain values
    return mapped(lambda tensor: tensor.detach().to("cpu", copy=True), tree)


def _random_state() -> State:
    version, numbers, gauss = random.getstate()
    name, words, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(words.astype(np.int64)), position, has_gauss, cached],  # type: ignore[union-attr]  # legacy=True gives an array
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: State) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, words, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
