"""What a training needs of its surroundings: checkpoints kept in time, notices obeyed, progress shown.

Guarantees that a notice during a step ends training after that step, with all of it committed, and that whatever fails
beside training ends it at the next step or batch of a validation. Knows nothing of how training works.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from job.errors import PeerError
from job.goodput import Phase, PhaseTimer
from job.runs.committer import AsyncCommitter
from job.runs.records import CheckpointId
from job.session.checkpoint_schedule import CheckpointSchedule
from job.session.console import Reporter
from job.session.preemption import PreemptionWatcher
from job.session.watchdog import Watchdog
from job.training.distributed import ProcessGroup

if TYPE_CHECKING:
    from job.training.callbacks import Step
    from job.training.state import Row, Snapshot

TRACE = "JOB_TRACE"
"""The variable that names a file for one line about each step, by which `job verify-resume` compares trainings."""


class SessionCallbacks:
    """The callbacks of one attempt; see `job.training.callbacks.TrainingCallbacks`."""

    def __init__(
        self,
        *,
        committer: AsyncCommitter,
        schedule: CheckpointSchedule,
        reporter: Reporter,
        timer: PhaseTimer,
        preemption: PreemptionWatcher,
        group: ProcessGroup,
        watchdog: Watchdog,
        restored: CheckpointId | None,
        furthest: tuple[int, int],
        checks: Sequence[Callable[[], None]],
    ) -> None:
        """Begin.

        Args:
            committer: Commits in the background.
            schedule: Says when.
            reporter: Shows progress.
            timer: Counts the seconds.
            preemption: May end training.
            group: The processes that train together, of which this is the first.
            watchdog: Is shown each step and each batch of a validation.
            restored: The checkpoint that training goes on from.
            furthest: The complete epochs, and batches of the next, that any earlier attempt is known to have reached.
            checks: Raise what failed beside training.
        """
        self._committer, self._schedule, self._reporter = committer, schedule, reporter
        self._timer, self._preemption, self._group = timer, preemption, group
        self._watchdog, self._checks = watchdog, checks
        self._reached = (restored.epoch, restored.batch) if restored else (0, 0)
        self._furthest = furthest
        self._kept = self._reached if restored else None
        trace = os.environ.get(TRACE)
        self._trace = Path(trace) if trace else None

    def enter(self, phase: Phase) -> None:
        """Count the seconds from now on under a label; steps that were done before are recomputed."""
        again = phase is Phase.USEFUL and self._reached < self._furthest
        self._timer.enter(Phase.RECOMPUTED if again else phase)

    def on_step(self, step: "Step", snapshot: Callable[[], "Snapshot"]) -> None:
        """Show a step, take a checkpoint if one is due, and end training if there is a notice.

        Raises:
            JobError: If something beside training failed: a commit for good, or a peer, and then the step is being
                committed.
            PreemptionError: If there is a notice; the step is being committed.
        """
        self._look_around()
        self._reached = (step.epoch - 1, step.batch)
        if self._trace is not None:
            with self._trace.open("a") as opened:
                opened.write(json.dumps(step.trace()) + "\n")
        self._reporter.on_step(step)
        try:
            notice = self._preemption.agreed(self._group.agree)
        except PeerError as error:
            self.commit(snapshot)  # the step is whole: the gradients of all are in it
            raise self._preemption.obeyed() or error from error
        if notice is not None or self._schedule.due():
            self.commit(snapshot)
        if notice is not None:
            raise notice

    def on_validation_batch(self) -> None:
        """Show that validation goes on.

        Raises:
            JobError: If something beside training failed.
        """
        self._look_around()

    def on_epoch(self, row: "Row", snapshot: Callable[[], "Snapshot"]) -> None:
        """Show an epoch and commit it."""
        self._reached = (int(row["epoch"]), 0)
        self._reporter.on_epoch(row)
        self.commit(snapshot)

    def commit(self, snapshot: Callable[[], "Snapshot"]) -> None:
        """Commit where training stands, unless that was done."""
        if self._kept == self._reached:
            return
        seconds = self._timer.seconds()
        with self._timer.entered(Phase.STALL), self._schedule.taking():
            self._committer.submit(snapshot(), seconds=seconds)
        self._kept = self._reached

    def interruptible(self) -> AbstractContextManager[None]:
        """Allow a notice to interrupt what is inside."""
        return self._preemption.interruptible()

    def _look_around(self) -> None:
        self._watchdog.beat()
        self._committer.check()
        for check in self._checks:
            check()


class FollowerCallbacks:
    """The callbacks of a process that is not the first of those that train together: it stops when all do."""

    def __init__(self, preemption: PreemptionWatcher, group: ProcessGroup, watchdog: Watchdog) -> None:
        self._preemption, self._group, self._watchdog = preemption, group, watchdog

    def enter(self, phase: Phase) -> None:
        """Take no note."""

    def on_step(self, step: "Step", snapshot: Callable[[], "Snapshot"]) -> None:  # noqa: ARG002 -- the first keeps it
        """End training if any process has a notice.

        Raises:
            PreemptionError: If one has.
        """
        self._watchdog.beat()
        notice = self._preemption.agreed(self._group.agree)
        if notice is not None:
            raise notice

    def on_validation_batch(self) -> None:
        """Leave it to the first."""

    def on_epoch(self, row: "Row", snapshot: Callable[[], "Snapshot"]) -> None:
        """Leave it to the first."""

    def commit(self, snapshot: Callable[[], "Snapshot"]) -> None:
        """Leave it to the first."""

    def interruptible(self) -> AbstractContextManager[None]:
        """Wait for the first."""
        return nullcontext()
