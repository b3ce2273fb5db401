"""Report refresh: rewrites a run's report while the run trains, in a sidecar.

Guarantees that training never waits for a report, and that a failed report is one warning. The last one, for which the
attempt does wait, has the priority of the training.
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from job.errors import JobError, PreemptionError
from job.runs.run import Run
from job.runs.sidecar import NICENESS, Sidecar

FINISH_LIMIT_S = 120.0
"""Limit of the report at the end of a run, and of an attempt that failed."""

INTERRUPT_LIMIT_S = 10.0
"""Limit of the report of an attempt that was asked to stop: a notice leaves 25 s for everything."""

MIN_INTERVAL_S = 30.0
"""Shortest time between two reports, and before the first: one takes seconds of a CPU, and so may a small training."""


class ReportRefresher(AbstractContextManager["ReportRefresher"]):
    """Starts ``job report`` after commits, one at a time; a context manager."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._not_before = clock() + MIN_INTERVAL_S
        self._sidecar: Sidecar | None = None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Kill a report under way; if the attempt did not finish the run, write one that says so."""
        if self._sidecar is not None:
            self._sidecar.kill()
        if error is not None and (self._sidecar is not None or self._is_recorded()):
            self._start(niceness=0).wait(INTERRUPT_LIMIT_S if isinstance(error, PreemptionError) else FINISH_LIMIT_S)

    def refresh(self) -> None:
        """Start a new report, unless one is under way, or `MIN_INTERVAL_S` have not passed."""
        if self._sidecar is not None:
            if self._sidecar.is_running:
                return
            self._sidecar.check()
        if self._clock() >= self._not_before:
            self._not_before = self._clock() + MIN_INTERVAL_S
            self._start()

    def finish(self) -> None:
        """Write the report of a finished run, and wait for it."""
        if self._sidecar is not None:
            self._sidecar.kill()  # it may have started before the final record was written
        self._start(niceness=0).wait(FINISH_LIMIT_S)

    def _is_recorded(self) -> bool:
        with contextlib.suppress(JobError):  # the error that ended the attempt is the one to report
            return self._run.record() is not None
        return False

    def _start(self, niceness: int = NICENESS) -> Sidecar:
        name, remedy = self._run.name, f"`job report {self._run.name}` makes it"
        command = ("job", "report", name, "--bucket", self._run.store.uri)
        self._sidecar = Sidecar("report", remedy, *command, niceness=niceness)
        return self._sidecar
