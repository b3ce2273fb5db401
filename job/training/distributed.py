"""Process group of torch.distributed: one process for each device, as torchrun starts them.

Guarantees that all ranks stop at the same step, that each wait has a limit, and that a notice is seen during it.
Ultralytics runs as in a single process: shares of a batch and averaged gradients are done here and in `Trainer`, shares
of a validation in `DistributedValidator`.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from job.errors import DefectError, JobError, MachineError, PeerError, PeerFailedError
from job.training.isolation import hide_torchrun, is_rank

Value = TypeVar("Value")

STEP_S = 300.0
"""Timeout for ranks at the same step: to agree on it, or for gradients."""

WORK_S = 3 * 3600.0
"""Timeout for ranks whose work may differ in length, for example a validation (as long as Ultralytics')."""

NOTICE_LIMIT_S = 5.0
"""Timeout of rank 0 after a notice: the commit needs the rest of the time."""

POLL_S = 0.05

FAILURE = "failure"
"""Key of the error by which the first rank to fail has ended."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Process group as seen by this rank; a single process by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Ranks on this machine."""

    torch: Any = None
    """The module, which a single process starts without."""

    torch_group: Any = None
    """The Gloo group of `agree` and `broadcast`; apart from that of the gradients, whose timeout is shorter."""

    store: Any = None
    """The store through which the ranks have met; it outlives the ranks."""

    noticed: Callable[[], bool] = bool
    """Whether this process was given notice."""

    while_waiting: Callable[[], None] = _nothing
    """Called repeatedly while this process waits for another."""

    @classmethod
    def join(cls, noticed: Callable[[], bool], while_waiting: Callable[[], None] = _nothing) -> "ProcessGroup":
        """Join the process group if torchrun started this process, and hide its variables from Ultralytics."""
        if not is_rank():
            return cls()
        import torch  # noqa: PLC0415 -- a single process starts without it
        from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415 -- as torch itself

        dist: Any = torch.distributed  # its types leave out the documented `PrefixStore`
        limit = timedelta(seconds=STEP_S)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, size = next(rendezvous("env://", timeout=limit))
        grouped = dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=grouped, rank=rank, world_size=size, timeout=limit)
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=WORK_S))
        local = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        hide_torchrun()
        return cls(rank, size, *local, torch, group, store, noticed, while_waiting)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process reports and commits."""
        return self.rank == 0

    def device(self, named: str) -> str:
        """Return this rank's of devices such as ``0,1``, or empty for any; raises `MachineError` if it has none."""
        if self.size == 1:
            return named
        devices = named.split(",")
        if not named:
            return str(self.local_rank) if self.torch.cuda.is_available() else "cpu"
        if len(devices) == 1 and devices[0] == "cpu":
            return "cpu"
        if self.local_rank >= len(devices):
            raise MachineError(
                f"device {named!r}: names {len(devices)}, and process {self.local_rank + 1} of this machine has none; "
                "start as many processes as devices"
            )
        return devices[self.local_rank]

    def agree(self, level: int, limit_s: float = STEP_S) -> int:
        """Return the highest level of any rank; all have to call it, or `PeerError` is raised.

        Runs on the CPU, so that it does not synchronise with a GPU.
        """
        if self.size == 1:
            return level
        levels, dist = self.torch.tensor(level), self.torch.distributed
        self._collective(lambda: dist.all_reduce(levels, dist.ReduceOp.MAX, group=self.torch_group), limit_s)
        return int(levels)

    def broadcast(self, value: Value) -> Value:
        """Return the value of rank 0 in all ranks; raises `PeerError` if another process is gone."""
        if self.size == 1:
            return value
        values, device = [value], self.torch.device("cpu")
        broadcast = self.torch.distributed.broadcast_object_list
        self._collective(lambda: broadcast(values, group=self.torch_group, device=device), WORK_S)
        return values[0]

    def all_gather(self, value: Value, limit_s: float = STEP_S) -> list[Value]:
        """Return the values of all ranks, in their order; raises `PeerError` if another process is gone or late."""
        if self.size == 1:
            return [value]
        values, gather = [value] * self.size, self.torch.distributed.all_gather_object
        self._collective(lambda: gather(values, value, group=self.torch_group), limit_s)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.agree(0, WORK_S)

    def leave(self) -> None:
        """Wait for all ranks and destroy the group, as NCCL wants before a process ends."""
        self.barrier()
        if self.size > 1:
            self.torch.distributed.destroy_process_group()

    def lost(self, what: str = "is gone") -> PeerError:
        """Return the error for a lost peer; for rank 0 that of the peer itself, if it has told how it failed."""
        return self.failure() or PeerError(
            f"{self.subject}: another process of this training {what}; start all of them again to resume from the "
            "last committed checkpoint"
        )

    @contextmanager
    def failure_told(self) -> Iterator[None]:
        """Tell rank 0 of an error by which this rank ends the block, unless it has only lost another."""
        try:
            yield
        except PeerError:
            raise
        except Exception as error:
            told = error if isinstance(error, JobError) else DefectError(self.subject, error)
            failure = {
                "message": f"{self.subject}: {told.message}",
                "problems": told.problems,
                "name": told.name,
                "exit_code": told.exit_code,
                "reason": told.reason,
                "traceback_of_defect": getattr(told, "traceback", ""),
            }
            with suppress(RuntimeError):  # the store is gone with its process
                self.store.compare_set(FAILURE, "", json.dumps(failure))
            raise

    def failure(self) -> PeerFailedError | None:
        """Return to rank 0 the error that another rank has told first, if one has."""
        if self.is_rank_zero and self.store is not None:
            with suppress(RuntimeError):  # the store is gone with its process
                if self.store.check([FAILURE]):
                    return PeerFailedError(**json.loads(self.store.get(FAILURE)))
        return None

    @property
    def subject(self) -> str:
        """This rank in messages."""
        return f"process {self.rank + 1} of {self.size}"

    def _collective(self, call: Callable[[], object], limit_s: float) -> None:
        """Make a collective call in a thread, as torch's own wait blocks signals."""
        over, errors = threading.Event(), list[BaseException]()

        def work() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 -- raised below, in the waiting thread
                errors.append(error)
            finally:
                over.set()

        threading.Thread(target=work, name="peers", daemon=True).start()
        until, hurried = time.monotonic() + limit_s, False
        while not over.wait(POLL_S):
            self.while_waiting()
            if self.is_rank_zero and self.noticed() and not hurried:
                hurried, limit_s = True, NOTICE_LIMIT_S
                until = min(until, time.monotonic() + NOTICE_LIMIT_S)
            if time.monotonic() > until:
                raise self.lost(f"was silent for {limit_s:.0f} s")
        for error in errors:
            if isinstance(error, RuntimeError):
                raise self.lost() from error
            raise error

    @contextmanager
    def local_zero_first(self) -> Iterator[None]:
        """Run the block on local rank 0 before the other ranks of a machine: Ultralytics writes its label cache."""
        if self.local_rank > 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()
