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
from job.training.flat_tensors import side_by_side


class BackgroundCopy(Background):
    """Replaces tensors of tables, each given as a table and a name in it, by copies on the CPU.

    Those of a group lie side by side, so that they are written and freed together.
    """

    def __init__(self, *groups: Iterable[tuple[dict[Any, Any], Any]]) -> None:
        super().__init__("snapshot", self._copy_explained)
        self._ended = threading.Event()
        self._ended.set()
        self._groups = [[(table, name, _num_changes(table[name])) for table, name in group] for group in groups]

    def copy(self) -> None:
        """Copy all tensors; `start` does so in a thread of its own. Keeps no reference to the tables."""
        groups, self._groups = self._groups, []
        for group in groups:
            tensors = [table[name].detach() for table, name, _ in group]
            copies = side_by_side(tensors)
            if copies:
                torch._foreach_copy_(copies, tensors)
            for (table, name, num_changes), tensor, copied in zip(group, tensors, copies, strict=True):
                if _num_changes(tensor) != num_changes:
                    raise TrainingError(
                        f"snapshot: {name} changed while it was copied; this is a defect, please report it"
                    )
                table[name] = copied
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
