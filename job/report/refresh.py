"""Rewrites a run's report while the run trains, in a process of its own.

Guarantees that whatever goes wrong there is a warning and nothing more, and that the process is not waited for while
there is training to be done. Drawing takes seconds of a processor: until then they are taken at the lowest priority.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from job.runs.run import Run
from job.training.signals import left_to_the_trainer

log = logging.getLogger(__name__)

LAST_S = 120.0
"""How long the report at the end of a run may take."""

AT_END_S = 10.0
"""How long it may take when an attempt ends before its run does: a notice leaves 25 s for everything."""

APART_S = 30.0
"""From one report to the next, at least: one takes seconds of a processor, and so may an epoch of a small training."""

NICENESS = 5
"""Training gets three times its share of a busy core; the lowest priority of all would never end on one."""


class Renewal:
    """Starts ``job report`` when there is news; use it as a context manager."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._not_before = clock()
        self._process: subprocess.Popen[str] | None = None
        self._has_begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End what is under way; a report that this attempt began does not go on saying that it runs."""
        self._stop()
        if error is not None and self._has_begun:
            self._rewrite_last(AT_END_S)

    def start(self) -> None:
        """Begin to rewrite the report, unless that is under way or was just done: then the next one tells the rest."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._collect(self._process, None)
        if self._clock() >= self._not_before:
            self._not_before = self._clock() + APART_S
            self._process = self._begun()
            if self._process is not None:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)

    def finish(self) -> None:
        """Rewrite the report of a run that is finished, and wait for it."""
        self._stop()  # it may have begun before the last record was written
        self._rewrite_last(LAST_S)

    def _rewrite_last(self, limit_s: float) -> None:
        self._process = self._begun()
        if self._process is not None:
            try:
                self._collect(self._process, limit_s)
            except subprocess.TimeoutExpired:
                log.warning("report: took more than %.0f s and was given up; `job report` makes it", limit_s)
                self._stop()

    def _begun(self) -> subprocess.Popen[str] | None:
        self._has_begun = True
        command = [sys.executable, "-m", "job", "report", self._run.name, "--bucket", self._run.store.uri]
        try:
            with left_to_the_trainer():
                process = subprocess.Popen(  # noqa: S603 -- this program itself
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                )
        except OSError as error:
            log.warning("report: cannot be made, %s", error.strerror)
            return None
        return process

    def _collect(self, process: subprocess.Popen[str], limit_s: float | None) -> None:
        """Wait for a process to end, and say what went wrong in it, if something did."""
        said = process.communicate(timeout=limit_s)[1]
        self._process = None
        if process.returncode:
            reason = next((line for line in reversed(said.splitlines()) if line), "no reason given")
            log.warning("report: was not made, %s", reason)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
