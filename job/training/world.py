"""The processes that train together, one for each device, as torchrun starts them.

Guarantees that all of them stop at the same step. Ultralytics never hears of the others: to it each process is alone,
and what several processes need (a share of each batch, averaged gradients, one validation) is done here and in
`Trainer`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from job.errors import MachineError, PeerError

if TYPE_CHECKING:
    from torch import nn

Value = TypeVar("Value")

LONGEST_WAIT = timedelta(hours=3)
"""How long one process waits for another, for example for the first one's validation (Ultralytics waits as long)."""

OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls) -> "World":
        """Find the other processes, if torchrun started any.

        Its variables are taken away: Ultralytics reads them when imported, and would divide the work once more.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        import torch  # noqa: PLC0415 -- a process that is alone starts without it
        import torch.distributed as dist  # noqa: PLC0415 -- as above

        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=LONGEST_WAIT)
        world = cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
        for name in OF_TORCHRUN:
            os.environ.pop(name, None)
        return world

    @property
    def is_first(self) -> bool:
        """Whether this process validates, reports and commits."""
        return self.rank == 0

    def device(self, named: str) -> str:
        """Return which of some devices is this process's own.

        Args:
            named: ``0,1,...``, or empty for any.

        Raises:
            MachineError: If there are not enough.
        """
        if self.size == 1:
            return named
        devices = named.split(",")
        if not named:
            import torch  # noqa: PLC0415 -- loaded since `join`

            return str(self.local_rank) if torch.cuda.is_available() else "cpu"
        if len(devices) == 1 and devices[0] == "cpu":
            return "cpu"
        if self.local_rank >= len(devices):
            raise MachineError(
                f"device {named!r}: names {len(devices)}, and process {self.local_rank + 1} of this machine has none; "
                "start as many processes as devices"
            )
        return devices[self.local_rank]

    def agree(self, level: int) -> int:
        """Return the highest level that any process names; all of them have to ask.

        Works on the CPU, so that no GPU is waited for.

        Raises:
            PeerError: If another process is gone.
        """
        if self.size == 1:
            return level
        import torch  # noqa: PLC0415 -- loaded since `join`
        import torch.distributed as dist  # noqa: PLC0415 -- as above

        levels = torch.tensor(level)
        with self._others_needed():
            dist.all_reduce(levels, dist.ReduceOp.MAX)
        return int(levels)

    def share(self, value: Value) -> Value:
        """Return the first process's value in all of them.

        Raises:
            PeerError: If another process is gone.
        """
        if self.size == 1:
            return value
        import torch  # noqa: PLC0415 -- loaded since `join`
        import torch.distributed as dist  # noqa: PLC0415 -- as above

        values: list[Any] = [value]
        with self._others_needed():
            dist.broadcast_object_list(values, device=torch.device("cpu"))
        shared: Value = values[0]
        return shared

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.agree(0)

    def leave(self) -> None:
        """Wait until all processes are here, and part from them, as NCCL wants before a process ends."""
        self.wait()
        if self.size > 1:
            import torch.distributed as dist  # noqa: PLC0415 -- loaded since `join`

            dist.destroy_process_group()

    def lost(self) -> PeerError:
        """Return the error for another process that is gone."""
        return PeerError(
            f"process {self.rank + 1} of {self.size}: another process of this training is gone; start all of them "
            "again to go on from the last committed checkpoint"
        )

    @contextmanager
    def _others_needed(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.lost() from error

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let one process of each machine do what is inside before the others: Ultralytics writes its label cache."""
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()

    def joined(self, model: "nn.Module") -> "nn.Module":
        """Return a model whose gradients are averaged over all processes, as Ultralytics does (``trainer.py: 439``)."""
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 -- a process that is alone needs none

        device = next(model.parameters()).device
        return DistributedDataParallel(
            model,
            device_ids=None if device.type == "cpu" else [device.index],
            find_unused_parameters=True,
            broadcast_buffers=False,
        )
