"""A sign of life of an attempt in the bucket, so that what a vanished one lost can be told. Never stops training."""

import logging
import threading
from collections.abc import Callable
from typing import Any, Self

from job.errors import JobError
from job.run import Run

log = logging.getLogger(__name__)

EVERY_S = 5.0


class Pulse:
    """Writes what an attempt says of itself every few seconds; use it as a context manager."""

    def __init__(self, run: Run, attempt: int, about: Callable[[], dict[str, Any]], every_s: float = EVERY_S) -> None:
        self._run, self._attempt, self._about, self._every_s = run, attempt, about, every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def _beat(self) -> None:
        complained = False
        while True:
            try:
                self._run.pulse(self._attempt, self._about())
                complained = False
            except JobError as error:
                if not complained:
                    log.warning("sign of life: %s", error)
                complained = True
            if self._closed.wait(self._every_s):
                return
