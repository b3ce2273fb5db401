"""Rewrites a run's report while the run trains, in a process of its own.

Guarantees that whatever goes wrong there is a warning and nothing more, and that the process is not waited for while
there is training to be done. Drawing takes seconds of a processor: here they are taken at the lowest priority.
"""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import IO, Self

from job.run import Run

log = logging.getLogger(__name__)

LAST_S = 120.0
"""How long the report at the end of a run may take."""

LOWEST = 19


class Renewal:
    """Starts ``job report`` when there is news; use it as a context manager."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End what is under way; the next attempt rewrites the report."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def start(self) -> None:
        """Begin to rewrite the report, unless that is under way: then the next one tells what this one does not."""
        if self._process is not None and self._process.poll() is None:
            return
        self._explain()
        self._begin()

    def finish(self) -> None:
        """Rewrite the report for the last time, and wait for it."""
        if self._process is not None:  # it may have begun before the last record was written
            self._process.kill()
            self._process.wait()
        self._begin()
        if self._process is not None:
            try:
                self._process.wait(LAST_S)
            except subprocess.TimeoutExpired:
                log.warning("report: took more than %.0f s and was given up; `job report` makes it", LAST_S)
                return
        self._explain()

    def _begin(self) -> None:
        command = [sys.executable, "-m", "job", "report", self._run.name, "--bucket", self._run.store.uri]
        self._process = None
        try:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- read once the process has ended
            self._process = subprocess.Popen(  # noqa: S603 -- this program itself
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said
            )
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, LOWEST)
        except OSError as error:
            log.warning("report: cannot be made, %s", error.strerror)

    def _explain(self) -> None:
        """Say what went wrong in the process that has ended, if something did."""
        if self._process is None or self._said is None:
            return
        if self._process.returncode:
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").split("\n")
            log.warning("report: was not made, %s", next((line for line in reversed(lines) if line), "no reason given"))
        self._said.close()
        self._process = None
