"""End notification: tells the webhook of a request how an attempt at its run ended.

Guarantees that it is sent last, when everything is committed and recorded, within the deadline of a notice, and that it
changes neither the error nor the exit code.
"""

from typing import Self

from job.errors import EndReason, ExitCode, message_of
from job.runs.notification import TIMEOUT_S, Webhook
from job.runs.run import Run
from job.session.preemption import PreemptionWatcher

RESERVE_S = 1.0
"""Seconds before the deadline of a notice that stay free."""

LAST_S = 1.0
"""Longest time for the notification of a process that leaves at once."""


class EndNotification:
    """Notifies the webhook, if there is one, when its context ends; without an error the run is finished."""

    def __init__(self, webhook: Webhook | None, preemption: PreemptionWatcher, run: Run) -> None:
        self._webhook, self._preemption, self.run = webhook, preemption, run
        self.message = ""
        """How the run was finished; from then on no error changes that it was."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        with self._preemption.deferred():  # a notice that comes now finds nothing left to commit
            self._send(error, min(TIMEOUT_S, self._preemption.left_s - RESERVE_S))

    def leave(self, error: BaseException) -> None:
        """Notify, from another thread, of an error by which the process leaves at once."""
        self._send(error, LAST_S)

    def _send(self, error: BaseException | None, within_s: float) -> None:
        if self._webhook is None:
            return
        reason, exit_code, message = EndReason.FINISHED.value, ExitCode.FINISHED.value, self.message
        if error is not None and not self.message:
            reason = str(getattr(error, "reason", EndReason.FAILED))
            exit_code = int(getattr(error, "exit_code", ExitCode.DEFECT))
            message = message_of(error)
        event = {
            "event": "end",
            "run": self.run.name,
            "bucket": self.run.store.uri,
            "text": f"run {self.run.name}: {reason}; {message}",
            "reason": reason,
            "exit_code": exit_code,
            "message": message,
        }
        self._webhook.send(event, within_s)
