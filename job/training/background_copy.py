"""Background copy: tensors of a snapshot are copied while the next gradients are computed.

Guarantees that the copies have the values of the moment of the snapshot: a tensor that changes before it is copied is
an error. Knows nothing of models and optimizers.
"""

import threading
from collections.abc import Iterable
from typing import Any

import torch

from job.background import Background
from job.errors import HardwareError, TrainingError, message_of


class BackgroundCopy(Background):
    """Replaces tensors of tables, each given as a table and a name in it, by copies on the CPU."""

    def __init__(self, entries: Iterable[tuple[dict[Any, Any], Any]] = ()) -> None:
        super().__init__("snapshot", self._copy_explained)
        self._ended = threading.Event()
        self._ended.set()
        self._entries = [(table, name, _num_changes(table[name])) for table, name in entries]

    def copy(self) -> None:
        """Copy all tensors; `start` does so in a thread of its own. Keeps no reference to the tables."""
        entries, self._entries = self._entries, []
        for table, name, num_changes in entries:
            tensor = table[name]
            table[name] = tensor.detach().to("cpu", copy=True)
            if _num_changes(tensor) != num_changes:
                raise TrainingError(f"snapshot: {name} changed while it was copied; this is a defect, please report it")
        self.error = None

    def start(self) -> None:
        """Start the thread."""
        self._ended.clear()
        self.error = TrainingError("snapshot: was not copied to its end; committed checkpoints stand")
        super().start()

    def wait(self) -> None:
        """Wait until all is copied, if that was started; raises the error of the copy."""
        self._ended.wait()  # not `join`: a notice that interrupts it makes Python 3.11 take the thread for ended
        self.check()

    def _copy_explained(self) -> None:
        try:
            self.copy()
        except (MemoryError, RuntimeError) as error:  # of torch's allocator
            raise HardwareError(
                f"snapshot: cannot be copied, {message_of(error)}; take a machine with more memory, or pass fewer "
                "--workers"
            ) from error

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self._ended.set()


def _num_changes(tensor: torch.Tensor) -> int:
    """Return how many operations have changed a tensor in place, through any of its views."""
    return tensor._version  # noqa: SLF001 -- torch has no other name for it
