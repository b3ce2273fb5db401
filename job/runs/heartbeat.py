"""A sign of life of an attempt in the bucket, and a look at whether somebody asked it to stop.

Guarantees that what a vanished attempt lost can be told. A bucket that fails here never stops training; anything else
that fails does, through `check`.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Self

from job.background import Background
from job.errors import JobError, PauseError
from job.runs.run import Run

log = logging.getLogger(__name__)

EVERY_S = 5.0


class Pulse:
    """Writes what an attempt says of itself every few seconds; use it as a context manager."""

    def __init__(
        self,
        run: Run,
        attempt: int,
        about: Callable[[], dict[str, Any]],
        on_stop: Callable[[PauseError], None],
        every_s: float = EVERY_S,
    ) -> None:
        """Begin.

        Args:
            run: The run.
            attempt: The attempt that lives.
            about: What it says of itself.
            on_stop: Called once, from another thread, when the attempt is asked to stop.
            every_s: Seconds between two signs.
        """
        self._run, self._attempt, self._about, self._on_stop, self._every_s = run, attempt, about, on_stop, every_s
        self._closed = threading.Event()
        self._background = Background("sign of life", self._beat)

    def __enter__(self) -> Self:
        self._background.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def check(self) -> None:
        """Raise what its thread failed of, if it did."""
        self._background.check()

    def _beat(self) -> None:
        complained = asked = False
        while True:
            try:
                self._run.pulse(self._attempt, self._about())
                request = None if asked else self._run.stop_request(self._attempt)
                if request is not None and not self._closed.is_set():
                    asked = True
                    self._on_stop(paused_by(self._run, request))
                complained = False
            except JobError as error:
                if not complained:
                    log.warning("sign of life: %s", error)
                complained = True
            if self._closed.wait(self._every_s):
                return


def paused_by(run: Run, request: dict[str, Any], *, agreed: bool = False) -> PauseError:
    """Return the notice that a request to stop is."""
    return PauseError(
        f"run {run.name}: paused, as was asked at {request['asked_at']} on {request['host']}", agreed=agreed
    )
