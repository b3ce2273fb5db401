"""Callbacks of the training loop: commit checkpoints on schedule, obey notices, show progress.

Guarantees that a notice during a step ends training after that step is committed, and that a failure in the background
ends it at the next step or batch of a validation. Knows nothing of how training works.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import PeerError
from job.goodput import Phase
from job.runs.committer import AsyncCommitter
from job.runs.records import CheckpointId
from job.session.checkpoint_schedule import CheckpointSchedule
from job.session.console import Reporter
from job.session.context import SessionContext
from job.training.callbacks import Step, TrainingCallbacks
from job.training.position import BEGINNING, Position

if TYPE_CHECKING:
    from job.training.state import Row, Snapshot

TRACE = "JOB_TRACE"
"""The variable that names a file for one line about each step, by which `job verify-resume` compares trainings."""


@dataclass(kw_only=True)
class SessionCallbacks(TrainingCallbacks):
    """The callbacks of rank 0."""

    committer: AsyncCommitter
    schedule: CheckpointSchedule
    reporter: Reporter
    context: SessionContext
    restored: CheckpointId | None
    """The checkpoint that training is resumed from."""

    furthest_position: Position
    """The furthest that any earlier attempt is known to have reached."""

    checks: Sequence[Callable[[], None]]
    """Raise the errors of heartbeat and watchdog."""

    synchronize: Callable[[], None]
    """Waits until a GPU has done all that it was given."""

    def __post_init__(self) -> None:
        self._reached = self.restored.position if self.restored else BEGINNING
        self._last_committed = self._reached if self.restored else None
        trace = os.environ.get(TRACE)
        self._trace = Path(trace) if trace else None

    def enter(self, phase: Phase) -> None:
        """Count the seconds from now on under a phase; steps that an earlier attempt did are recomputed."""
        self.context.timer.enter(self._label(phase))

    def rebook(self, seconds: float, before: Phase, after: Phase) -> None:
        """Count seconds of one phase under another."""
        self.context.timer.rebook(seconds, before, self._label(after))

    def _label(self, phase: Phase) -> Phase:
        again = phase is Phase.USEFUL and self._reached < self.furthest_position
        return Phase.RECOMPUTED if again else phase

    def on_step(self, step: Step, snapshot: "Callable[[], Snapshot]") -> None:
        """Show a step, take a checkpoint if one is due and no commit is under way, and end training on a notice.

        The step is being committed if a notice ends training, or a `JobError` of background work or of a peer.
        """
        self._check_others()
        self._reached = step.position
        if self._trace is not None:
            with self._trace.open("a") as opened:
                opened.write(json.dumps(step.trace()) + "\n")
        self.reporter.on_step(step)
        try:
            notice = self.context.preemption.agree_on_notice(self.context.group.agree)
        except PeerError as error:
            self.commit(snapshot)  # the step is complete: it has the gradients of all ranks
            raise self.context.preemption.acknowledge() or error from error
        is_due = self.schedule.due(step.num_batches - step.batch, is_idle=self.committer.is_idle)
        if notice is not None or is_due:
            self.commit(snapshot)
        if notice is not None:
            raise notice

    def on_validation_batch(self) -> None:
        """Show that validation moves, feed the watchdog, and raise the errors of background work."""
        self._check_others()
        self.reporter.on_validation_batch()

    def on_epoch(self, row: "Row", snapshot: Callable[[], "Snapshot"]) -> None:
        """Show an epoch and commit it."""
        self._reached = Position(int(row["epoch"]), 0)
        self.reporter.on_epoch(row)
        self.commit(snapshot)

    def commit(self, snapshot: Callable[[], "Snapshot"]) -> None:
        """Commit the position of training, unless it is the last committed one."""
        if self._last_committed == self._reached:
            return
        self.synchronize()  # under the phase at hand: the steps that a GPU has still to do are no part of the stall
        seconds = self.context.timer.seconds()
        with self.context.timer.entered(Phase.STALL), self.schedule.taking():
            self.committer.submit(snapshot(), seconds=seconds)
        self._last_committed = self._reached

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Count the block as a part of the last checkpoint's stall."""
        with self.context.timer.entered(Phase.STALL), self.schedule.prolonged():
            yield

    def interruptible(self) -> AbstractContextManager[None]:
        """Allow a notice to interrupt the block."""
        return self.context.preemption.interruptible()

    def _check_others(self) -> None:
        self.context.watchdog.beat()
        self.committer.check()
        for check in self.checks:
            check()


class FollowerCallbacks(TrainingCallbacks):
    """The callbacks of a rank other than 0: it trains and validates, and stops when all ranks do."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context

    def on_step(self, step: Step, snapshot: "Callable[[], Snapshot]") -> None:  # noqa: ARG002 -- only rank 0 commits
        """End training with `PreemptionError` if any rank has a notice."""
        self._context.watchdog.beat()
        notice = self._context.preemption.agree_on_notice(self._context.group.agree)
        if notice is not None:
            raise notice

    def on_validation_batch(self) -> None:
        """Feed the watchdog."""
        self._context.watchdog.beat()
