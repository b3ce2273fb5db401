"""Tracker: starts the follower process of an attempt and notifies it of commits.

Guarantees that training never waits for W&B, and that a failure there is one warning. Without a key no process is
started: the records hold the whole curve, and ``job wandb sync`` sends it later.
"""

import logging
from pathlib import Path
from typing import Self

from job.errors import JobError, PreemptionError
from job.runs.run import Claim
from job.runs.sidecar import Sidecar
from job.runs.wandb_status import WandbStatus, write_status
from job.tracking.credentials import is_disabled, why_offline

log = logging.getLogger(__name__)

COMMITTED, FINISHED, INTERRUPTED = "committed", "finished", "interrupted"
"""Messages to the follower."""

FINISH_LIMIT_S, INTERRUPT_LIMIT_S = 60.0, 5.0
"""Seconds that the follower may take after the run, and after a notice."""


class Tracker:
    """Tracking of one attempt, entered once its start record is written; the W&B library writes below a folder."""

    def __init__(self, claim: Claim, folder: Path) -> None:
        self._claim, self._folder = claim, folder
        self._sidecar: Sidecar | None = None

    def __enter__(self) -> Self:
        if is_disabled():
            return self
        if why := why_offline():
            try:
                write_status(self._claim, WandbStatus(mode="offline", why=why))
            except JobError as error:
                log.warning("W&B: the status was not recorded, %s", error)
            return self
        run = self._claim.run
        remedy = f"nothing is lost, `job wandb sync {run.name}` sends what is missing"
        arguments = (run.name, run.store.uri, str(self._claim.attempt), str(self._folder))
        self._sidecar = Sidecar("W&B", remedy, "job.tracking", *arguments)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Send the last message, and wait for the follower up to a limit."""
        if self._sidecar is not None:
            self._sidecar.send(FINISHED if error is None else INTERRUPTED)
            limit_s = FINISH_LIMIT_S if error is None else INTERRUPT_LIMIT_S
            self._sidecar.wait(limit_s, quiet=isinstance(error, PreemptionError))

    def notify(self) -> None:
        """Notify the follower of a commit, from any thread; warn if the follower has failed."""
        if self._sidecar is not None:
            self._sidecar.send(COMMITTED)
            self._sidecar.check()
