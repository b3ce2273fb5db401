"""What a training needs of the world around it: checkpoints kept in time, notices obeyed, progress shown.

Guarantees that a notice during a step ends training after that step, with all of it committed. Knows nothing of how
training works.
"""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from job.cadence import Cadence
from job.checkpoint import CheckpointId
from job.committer import Committer
from job.ledger import Label, Ledger
from job.notice import Notices
from job.reporter import Reporter
from job.training.world import World

if TYPE_CHECKING:
    from job.training.contract import Step
    from job.training.state import Row, Snapshot

TRACE = "JOB_TRACE"
"""The variable that names a file for one line about each step, by which `job verify-resume` compares trainings."""


class SessionHost:
    """The host of one attempt; see `job.training.contract.Host`."""

    def __init__(
        self,
        *,
        committer: Committer,
        cadence: Cadence,
        reporter: Reporter,
        ledger: Ledger,
        notices: Notices,
        world: World,
        restored: CheckpointId | None,
        furthest: tuple[int, int],
    ) -> None:
        """Begin.

        Args:
            committer: Commits in the background.
            cadence: Says when.
            reporter: Shows progress.
            ledger: Counts the seconds.
            notices: May end training.
            world: The processes that train together, of which this is the first.
            restored: The checkpoint that training goes on from.
            furthest: The complete epochs, and batches of the next, that any earlier attempt is known to have reached.
        """
        self._committer, self._cadence, self._reporter = committer, cadence, reporter
        self._ledger, self._notices, self._world = ledger, notices, world
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
            JobError: If committing failed for good.
            PreemptionError: If there is a notice; the step is being committed.
        """
        self._committer.check()
        self._reached = (step.epoch - 1, step.batch)
        if self._trace is not None:
            with self._trace.open("a") as opened:
                opened.write(json.dumps(step.trace()) + "\n")
        self._reporter.on_step(step)
        notice = self._notices.agreed(self._world.agree)
        if notice is not None or self._cadence.due():
            self.keep(snapshot)
        if notice is not None:
            raise notice

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


class FollowerHost:
    """The host of a process that is not the first of those that train together: it stops when all do."""

    def __init__(self, notices: Notices, world: World) -> None:
        self._notices, self._world = notices, world

    def enter(self, label: Label) -> None:
        """Take no note."""

    def on_step(self, step: "Step", snapshot: Callable[[], "Snapshot"]) -> None:  # noqa: ARG002 -- the first keeps it
        """End training if any process has a notice.

        Raises:
            PreemptionError: If one has.
        """
        notice = self._notices.agreed(self._world.agree)
        if notice is not None:
            raise notice

    def on_epoch(self, row: "Row", snapshot: Callable[[], "Snapshot"]) -> None:
        """Leave it to the first."""

    def keep(self, snapshot: Callable[[], "Snapshot"]) -> None:
        """Leave it to the first."""

    def interruptible(self) -> AbstractContextManager[None]:
        """Wait for the first."""
        return nullcontext()
