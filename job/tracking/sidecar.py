"""Keeps the process that follows an attempt, and never waits for it while there is training to be done."""

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from job.errors import PreemptionError
from job.runs.run import Run
from job.training.signals import left_to_the_trainer

log = logging.getLogger(__name__)

NEWS, FINISHED, CUT_OFF = "news", "finished", "cut off"
"""What the process is told."""

LAST_S, HURRIED_S = 60.0, 5.0
"""How long it may take after the run, and when the machine is about to go."""

NICENESS = 5
"""Training gets three times its share of a busy core; the lowest priority of all would never end on one."""

MODE, NOT_AT_ALL = "WANDB_MODE", "disabled"


class Tracking:
    """One attempt's tracking; use it as a context manager, once the attempt's start record is written."""

    def __init__(self, run: Run, attempt: int, folder: Path) -> None:
        """Begin.

        Args:
            run: The run.
            attempt: The attempt.
            folder: A folder of its own for the library's files.
        """
        self._run, self._attempt, self._folder = run, attempt, folder
        self._errors = folder / "errors.txt"
        self._process: subprocess.Popen[str] | None = None
        self._complained = False

    def __enter__(self) -> Self:
        if os.environ.get(MODE) != NOT_AT_ALL:
            self._start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Tell how the attempt ended, and wait a little."""
        if self._process is None:
            return
        self._tell(FINISHED if error is None else CUT_OFF)
        self._end(LAST_S if error is None else HURRIED_S, loud=not isinstance(error, PreemptionError))

    def news(self) -> None:
        """Say that something was committed, from any thread and at once; tell if there is no process any more."""
        self._tell(NEWS)
        if self._process is not None and self._process.poll():
            self._complain(self._said())

    def _start(self) -> None:
        try:
            self._process = self._begun()
        except OSError as error:
            log.warning("W&B: cannot be started, %s; training goes on without it", error.strerror)
            return
        assert self._process.stdin is not None  # noqa: S101 -- it is a pipe
        os.set_blocking(self._process.stdin.fileno(), False)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)

    def _begun(self) -> "subprocess.Popen[str]":
        words = [self._run.name, self._run.store.uri, str(self._attempt), str(self._folder)]
        self._folder.mkdir(parents=True)
        with self._errors.open("w") as errors, left_to_the_trainer():
            return subprocess.Popen(  # noqa: S603 -- this program itself
                [sys.executable, "-m", "job.tracking", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
            )

    def _tell(self, word: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError):  # it is gone, which `news` tells, or it has enough to read
            os.write(self._process.stdin.fileno(), f"{word}\n".encode())

    def _end(self, limit_s: float, *, loud: bool) -> None:
        """Wait for the process to end; say what went wrong in it, unless nobody has time for that."""
        assert self._process is not None  # noqa: S101 -- asked by who calls
        why = ""
        try:
            if self._process.wait(limit_s):
                why = self._said()
        except subprocess.TimeoutExpired:
            why = f"took more than {limit_s:.0f} s in the end and was given up"
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None  # noqa: S101 -- it is a pipe
        self._process.stdin.close()
        if why and loud:
            self._complain(why)

    def _said(self) -> str:
        said = self._errors.read_text(errors="replace").splitlines()
        return next((line for line in reversed(said) if line), "no reason given")

    def _complain(self, why: str) -> None:
        """Say what went wrong, once."""
        if not self._complained:
            log.warning("W&B: %s; nothing is lost, `job wandb sync %s` sends what is missing", why, self._run.name)
        self._complained = True
