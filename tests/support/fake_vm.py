"""The machine of a Batch job: a process or a container that can be taken away, with or without notice."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


HELD = "held"
"""A file on the disk of a machine whose program waits to be killed."""


@dataclass(eq=False)
class Machine:
    """One attempt's machine."""

    process: subprocess.Popen[bytes]
    kill: Callable[[], None]
    notify: Callable[[], None]
    verdict: int | None = None
    """Batch's code for the attempt, in place of its exit code."""

    def end(
        self, verdict: int | None, notice_s: float | None = None, enough: Callable[[], bool] = lambda: False
    ) -> None:
        """Take the machine away, after a notice if there is to be one, and wait until it is gone."""
        self.verdict = verdict
        if notice_s is not None:
            self.notify()
            until = time.monotonic() + notice_s
            while time.monotonic() < until and self.process.poll() is None and not enough():
                time.sleep(0.02)
        self.kill()
        self.process.wait()


def start_process(
    command: Sequence[str], variables: Mapping[str, str], disk: Path, said: IO[bytes], notify: Callable[[], None]
) -> Machine:
    """Start a command in an empty folder, in place of a container, whose image sets LOG."""
    process = subprocess.Popen(
        command,
        cwd=disk,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOG": "json", **variables},
        stdout=said,
        stderr=said,
        start_new_session=True,
    )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    return Machine(process, kill, notify)


def start_container(
    engine: str, words: Sequence[str], variables: Mapping[str, str], said: IO[bytes], notify: Callable[[], None]
) -> Machine:
    """Start a container as Batch does: options, image and command in a row, as root of the engine."""
    name = f"job-{uuid.uuid4().hex[:12]}"
    environment = [word for item in variables.items() for word in ("--env", "=".join(item))]
    process = subprocess.Popen(
        [engine, "run", "--rm", "--name", name, "--network", "host", *environment, *words], stdout=said, stderr=said
    )

    def kill() -> None:
        subprocess.run([engine, "kill", "--signal", "KILL", name], check=False, capture_output=True)

    return Machine(process, kill, notify)
