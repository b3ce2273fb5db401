"""What a training and whoever runs it owe each other: steps and snapshots for the one, an outcome for the other."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from job.goodput import Phase
from job.training.state import Row, Snapshot
from job.training.weights import digest_tensors


@dataclass(frozen=True, slots=True)
class Step:
    """One training batch, for whoever shows progress."""

    epoch: int
    """1-based."""

    batch: int
    """Batches done in this epoch."""

    num_batches: int
    losses: dict[str, torch.Tensor]
    """Means over the epoch so far, on the device; reading one waits for the GPU."""

    images: torch.Tensor
    """The batch as the model saw it, ``(n, 3, h, w)`` RGB from 0 to 1, on the device."""

    def trace(self) -> dict[str, Any]:
        """Return what tells whether two trainings are the same up to here, exactly."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "images": digest_tensors({"img": self.images}),
            "losses": {name: float(value).hex() for name, value in self.losses.items()},
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished training came to."""

    before: Row
    after: Row
    """The best weights, read back from their file, on the validation set."""

    rows: list[Row]
    best_epoch: int
    """1-based."""

    stopped_early: bool


class TrainingCallbacks(Protocol):
    """Whoever runs a training: keeps its snapshots, shows how it goes, and may end it."""

    def enter(self, phase: Phase) -> None:
        """Take note of what time is spent on from now on."""

    def on_step(self, step: Step, snapshot: Callable[[], Snapshot]) -> None:
        """Look at a batch that was trained, take a snapshot if one is wanted, raise if training is to end here."""

    def on_validation_batch(self) -> None:
        """Look up in the midst of a validation: one of its batches is done."""

    def on_epoch(self, row: Row, snapshot: Callable[[], Snapshot]) -> None:
        """Take note of row 0 or of an epoch, and keep a snapshot."""

    def commit(self, snapshot: Callable[[], Snapshot]) -> None:
        """Keep a snapshot of a training that ends within an epoch."""

    def interruptible(self) -> AbstractContextManager[None]:
        """Allow `PreemptionError` at any point inside."""
