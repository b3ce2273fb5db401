"""Callbacks of the training loop; imports no torch, so that a caller can extend them before it is loaded."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.goodput import Phase
from job.training.position import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from job.training.state import Row, Snapshot


@dataclass(frozen=True, slots=True)
class Step:
    """One training batch."""

    epoch: int
    """1-based."""

    batch: int
    """Batches done in this epoch."""

    num_batches: int
    losses: "dict[str, torch.Tensor]"
    """Means over the epoch so far, on the device; reading one waits for the GPU."""

    images: "torch.Tensor"
    """The batch as the model saw it, ``(n, 3, h, w)`` RGB from 0 to 1, on the device."""

    @property
    def position(self) -> Position:
        """Where training stands after it."""
        return Position(self.epoch - 1, self.batch)

    def trace(self) -> dict[str, object]:
        """Return digests of images and loss; equal in two trainings only if they are identical up to this step."""
        from job.training.weights import digest_tensors  # noqa: PLC0415 -- imports torch, which is loaded by now

        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "images": digest_tensors({"img": self.images}),
            "losses": {name: float(value).hex() for name, value in self.losses.items()},
        }


class TrainingCallbacks:
    """What the training loop calls; each is a no-op unless a caller replaces it, and may end training by an error."""

    measures_any_start = False
    """Whether start weights that find nothing are measured, too."""

    def enter(self, phase: Phase) -> None:
        """Enter a phase of the phase timer."""

    def rebook(self, seconds: float, before: Phase, after: Phase) -> None:
        """Count seconds of one phase of the phase timer under another."""

    def on_step(self, step: Step, snapshot: "Callable[[], Snapshot]") -> None:
        """Handle a trained batch: take a snapshot if one is due, raise to end training here."""

    def on_validation_batch(self) -> None:
        """Handle a validated batch: raise if background work failed."""

    def on_epoch(self, row: "Row", snapshot: "Callable[[], Snapshot]") -> None:
        """Handle row 0 or a complete epoch, and commit a snapshot."""

    def commit(self, snapshot: "Callable[[], Snapshot]") -> None:
        """Commit a snapshot of a training that ends within an epoch."""

    def stalled(self) -> AbstractContextManager[None]:
        """Count the block as a part of the last snapshot's stall."""
        return nullcontext()

    def interruptible(self) -> AbstractContextManager[None]:
        """Allow `PreemptionError` at any point of the block."""
        return nullcontext()
