"""Sidecar: a low-priority subprocess beside the training, whose failure is one warning.

Guarantees that training never waits for it, and that a preemption notice to the process group does not reach it. Knows
nothing of what the subprocess does.
"""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile

from job.training.signals import notices_blocked

log = logging.getLogger(__name__)

NICENESS = 5
"""Nice value: training gets three times the sidecar's share of a busy core; at 19 the sidecar might never end."""


class Sidecar:
    """One subprocess, ``python -m`` and `command`, started by the constructor; without a start it counts as ended.

    Its warnings begin with `subject` and end with `remedy`; its nice value is that of this process and `niceness`.
    """

    def __init__(self, subject: str, remedy: str, *command: str, niceness: int = NICENESS) -> None:
        self._subject, self._remedy = subject, remedy
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `kill`; a pipe would block when it is full
        try:
            with notices_blocked():
                self._process = subprocess.Popen(  # noqa: S603 -- this program itself
                    [sys.executable, "-m", *command],
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                )
        except OSError as error:
            self._errors.close()
            self._warn(f"cannot be started, {error.strerror}")
            return
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + niceness)

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process is not None and self._process.poll() is None

    def send(self, message: str) -> None:
        """Write a line to the standard input of the process; drop it if the pipe is full or closed."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(f"{message}\n".encode())

    def check(self) -> None:
        """Warn, once, if the process has ended with an error."""
        if not self.is_running:
            self.wait(0)

    def wait(self, limit_s: float, *, quiet: bool = False) -> None:
        """Wait for the process to end, and kill it after a limit; warn of a failure unless quiet."""
        if self._process is None:
            return
        reason = ""
        try:
            if self._process.wait(limit_s):
                self._errors.seek(0)
                lines = self._errors.read().decode(errors="replace").splitlines()
                reason = next(filter(None, reversed(lines)), "no reason given")
        except subprocess.TimeoutExpired:
            reason = f"took more than {limit_s:.0f} s and was given up"
        self.kill()
        if reason and not quiet:
            self._warn(reason)

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._errors.close()
            self._process = None

    def _warn(self, reason: str) -> None:
        log.warning("%s: %s; %s", self._subject, reason, self._remedy)
