"""Heartbeat of an attempt, every 5 s; polls for a stop request.

Guarantees that the loss of a vanished attempt is known to within one interval. A failing bucket never stops training;
any other failure does, through `check`. Knows nothing of training.
"""

import logging
from collections.abc import Callable, Mapping

from job.background import Background
from job.errors import JobError, PauseError
from job.runs.records import StopRequest
from job.runs.run import Claim, Run

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""Seconds from one heartbeat to the next."""


class Heartbeat(Background):
    """Writes the fields that `content` returns as an attempt's heartbeat; use it as a context manager.

    A stop request is passed to `on_stop` once, from another thread.
    """

    def __init__(
        self,
        claim: Claim,
        content: Callable[[], Mapping[str, object]],
        on_stop: Callable[[PauseError], None],
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__("heartbeat", self._beat)
        self._claim, self._content, self._on_stop, self._every_s = claim, content, on_stop, every_s

    def _beat(self) -> None:
        complained = asked = False
        while True:
            try:
                self._claim.heartbeat(self._content())
                request = None if asked else self._claim.stop_request()
                if request is not None and not self.closed.is_set():
                    asked = True
                    self._on_stop(paused_by(self._claim.run, request))
                complained = False
            except JobError as error:
                if not complained:
                    log.warning("heartbeat: %s", error)
                complained = True
            if self.closed.wait(self._every_s):
                return


def paused_by(run: Run, request: StopRequest, *, on_all_ranks: bool = False) -> PauseError:
    """Return the notice for a stop request."""
    message = f"run {run.name}: paused, as was asked at {request.asked_at} on {request.host}"
    return PauseError(message, on_all_ranks=on_all_ranks)
