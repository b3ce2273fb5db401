"""What a training needs of the world around it: checkpoints kept in time, notices obeyed, progress shown.

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
from job.goodput import Label, Ledger
from job.runs.committer import Committer
from job.runs.records import CheckpointId
from job.session.checkpoint_schedule import Cadence
from job.session.console import Reporter
from job.session.preemption import Notices
from job.session.watchdog import Watchdog
from job.training.distributed import World

if TYPE_CHECKING:
    from job.training.callbacks import Step
    from job.training.state import Row, Snapshot

TRACE = "JOB_TRACE"
"""The variable that names a file for one line about each step, by which `job verify-resume` compares trainings."""


class SessionHost:
    """The host of one attempt; see `job.training.callbacks.Host`."""

    def __init__(
        self,
        *,
        committer: Committer,
        cadence: Cadence,
        reporter: Reporter,
        ledger: Ledger,
        notices: Notices,
        world: World,
        watchdog: Watchdog,
        restored: CheckpointId | None,
        furthest: tuple[int, int],
        checks: Sequence[Callable[[], None]],
    ) -> None:
        """Begin.

        Args:
            committer: Commits in the background.
            cadence: Says when.
            reporter: Shows progress.
            ledger: Counts the seconds.
            notices: May end training.
            world: The processes that train together, of which this is the first.
            watchdog: Is shown each step and each batch of a validation.
            restored: The checkpoint that training goes on from.
            furthest: The complete epochs, and batches of the next, that any earlier attempt is known to have reached.
            checks: Raise what failed beside training.
        """
        self._committer, self._cadence, self._reporter = committer, cadence, reporter
        self._ledger, self._notices, self._world = ledger, notices, world
        self._watchdog, self._checks = watchdog, checks
        self._reached = (restored.epoch, restored.batch) if restored else (0, 0)
        self._furthest = furthest
        self._kept = self._reached if restored else None
        trace = os.environ.get(TRACE)
        self._trace = Path(trace) if trace else None

    def enter(self, label: Label) -> None:
        """Count the seconds from now on under a label; steps that were done before are recomputed."""
        again = label is Label.USEFUL and self._reached < self._furthest
        self._ledger.enter(Label.RECOMPUTED if again else label)

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
            notice = self._notices.agreed(self._world.agree)
        except PeerError as error:
            self.keep(snapshot)  # the step is whole: the gradients of all are in it
            raise self._notices.obeyed() or error from error
        if notice is not None or self._cadence.due():
            self.keep(snapshot)
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
        self.keep(snapshot)

    def keep(self, snapshot: Callable[[], "Snapshot"]) -> None:
        """Commit where training stands, unless that was done."""
        if self._kept == self._reached:
            return
        seconds = self._ledger.seconds()
        with self._ledger.entered(Label.STALL), self._cadence.taking():
            self._committer.submit(snapshot(), seconds=seconds)
        self._kept = self._reached

    def interruptible(self) -> AbstractContextManager[None]:
        """Allow a notice to interrupt what is inside."""
        return self._notices.interruptible()

    def _look_around(self) -> None:
        self._watchdog.beat()
        self._committer.check()
        for check in self._checks:
            check()


class FollowerHost:
    """The host of a process that is not the first of those that train together: it stops when all do."""

    def __init__(self, notices: Notices, world: World, watchdog: Watchdog) -> None:
        self._notices, self._world, self._watchdog = notices, world, watchdog

    def enter(self, label: Label) -> None:
        """Take no note."""

    def on_step(self, step: "Step", snapshot: Callable[[], "Snapshot"]) -> None:  # noqa: ARG002 -- the first keeps it
        """End training if any process has a notice.

        Raises:
            PreemptionError: If one has.
        """
        self._watchdog.beat()
        notice = self._notices.agreed(self._world.agree)
        if notice is not None:
            raise notice

    def on_validation_batch(self) -> None:
        """Leave it to the first."""

    def on_epoch(self, row: "Row", snapshot: Callable[[], "Snapshot"]) -> None:
        """Leave it to the first."""

    def keep(self, snapshot: Callable[[], "Snapshot"]) -> None:
        """Leave it to the first."""

    def interruptible(self) -> AbstractContextManager[None]:
        """Wait for the first."""
        return nullcontext()
