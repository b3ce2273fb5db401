"""Supervisor: keeps a run in the cloud going until it is finished, failed for good, or at a limit.

Guarantees that each action is recorded in the bucket before it is taken, so that any supervisor continues after an
interruption, and that two at once do no harm. Obeys a record only as far as this machine's settings allow. `policy`
decides, this module acts.
"""

import dataclasses
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from job.cloud.allowance import Allowance
from job.cloud.batch import Batch
from job.cloud.budget import usd_per_hour
from job.cloud.job_spec import render
from job.cloud.policy import Decision, budget, decide
from job.cloud.status import BEING_ENDED, History, read_history
from job.cloud.submission import Placement, Submissions
from job.errors import JobError, RunFailedError, RunStoppedError, TransientCloudError, TransientStoreError
from job.runs.notification import Webhook
from job.runs.records import now
from job.runs.run import Run

log = logging.getLogger(__name__)

AT_ONCE = frozenset({"create", "submit"})
"""Decisions after which the next one is taken without a pause."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """Supervises one run."""

    run: Run
    batch: Batch
    allowance: Allowance
    deadline: str | None = None
    """Replaces that of the submission."""

    poll_s: float
    """Seconds between two polls."""

    webhook: Webhook | None = None
    """Told each decision but to wait; that of the settings if left out."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def watch(self) -> History:
        """Supervise the run until it ends, and return its history; raises errors as `act` and `Allowance.require`."""
        announced = None
        while True:
            try:
                history, decision = self.look()
                self._carry_out(history, decision, tell=decision != announced)
                announced = decision
                if decision.do == "finish":
                    return history
                if decision.do in AT_ONCE:
                    continue
            except (TransientCloudError, TransientStoreError) as error:
                log.warning("%s; it is tried again", error)
            time.sleep(self.poll_s)

    def step(self) -> tuple[History, Decision]:
        """Look and act until there is something to wait for; raises errors as `watch`, and transient ones too."""
        while True:
            history, decision = self.look()
            self._carry_out(history, decision)
            if decision.do not in AT_ONCE:
                return history, decision

    def look(self) -> tuple[History, Decision]:
        """Return the run's history and the next action; raises errors as `Allowance.require`."""
        history = self.history()
        self.allowance.require(history.newest.submission)
        return history, decide(history)

    def history(self) -> History:
        """Return the run's history."""
        return read_history(self.run, self.batch.look, self.clock(), self.allowance, self.deadline)

    def announce(self, history: History, decision: Decision) -> None:
        """Log a decision, and send it to the webhook unless it is to wait."""
        submission, webhook = history.newest.submission, self._webhook
        log.info("%s: %s, %s", submission.job_id, decision.do, decision.reason)
        if webhook is None or decision.do == "wait":
            return
        event = {
            "event": "decision",
            "run": self.run.name,
            "bucket": self.run.store.uri,
            "text": f"run {self.run.name}: {decision.do}; {decision.reason}",
            "decision": decision.do,
            "reason": decision.reason,
            "submission": submission.number,
            "job": submission.job_id,
            "epoch": history.committed.epoch if history.committed else None,
            "num_epochs": history.num_epochs,
            "used_usd": history.used_usd,
        }
        webhook.send(event)

    def announce_error(self, error: JobError) -> None:
        """Send an error that ends the supervision to the webhook."""
        if self._webhook is not None:
            self._webhook.send(
                {
                    "event": "decision",
                    "run": self.run.name,
                    "bucket": self.run.store.uri,
                    "text": f"run {self.run.name}: error; {error}",
                    "decision": "error",
                    "reason": str(error),
                }
            )

    @property
    def _webhook(self) -> Webhook | None:
        return self.webhook or self.allowance.settings.notify

    def _carry_out(self, history: History, decision: Decision, *, tell: bool = True) -> None:
        """Act on a decision, and tell it: an action once it is taken, an end before its error is raised."""
        told_after = decision.do in {"create", "submit", "cancel"}
        if tell and not told_after:
            self.announce(history, decision)
        self.act(history, decision)
        if tell and told_after:
            self.announce(history, decision)

    def act(self, history: History, decision: Decision) -> None:
        """Carry out a decision; raises `RunFailedError` if it is ``fail``, `RunStoppedError` if it is ``stop``."""
        if decision.do == "create":
            submission = history.newest.submission
            job = self.batch.make(submission.job_name, render(submission), submission.request_id)
            Submissions(self.run).write_job(submission.number, submission.job_name, job.uid)
            log.info("made %s: submission %d, %s", submission.job_id, submission.number, submission.placement)
        elif decision.do == "cancel":
            self.batch.cancel(history.submissions[-2].submission.job_name)
        elif decision.do == "submit" and decision.placement is not None:
            self.add_submission(history, decision.placement, decision.reason, "supervisor")
        elif decision.do in {"fail", "stop"}:
            if history.newest.live:
                self.batch.cancel(history.newest.submission.job_name)
            message = f"run {self.run.name}: {decision.reason}"
            if decision.do == "fail":
                raise RunFailedError(f"{message}; `job supervise {self.run.name} --resume` tries again")
            raise RunStoppedError(f"{message}; `job supervise {self.run.name} --resume` resumes it")

    def add_submission(
        self, history: History, placement: Placement, reason: str, by: Literal["hand", "supervisor"]
    ) -> None:
        """Record the next submission; if another supervisor was first, its submission stands."""
        retries, run_s = budget(history, placement)
        before, prices = history.newest.submission, {type_: dict(price) for type_, price in history.prices.items()}
        submission = dataclasses.replace(
            before,
            number=before.number + 1,
            created_at=now(),
            by=by,
            reason=reason,
            settings=dataclasses.replace(before.settings, prices=prices),
            placement=placement,
            deadline=history.deadline.isoformat() if history.deadline else None,
            max_usd=history.limit.usd,
            max_hours=history.limit.hours,
            usd_per_hour=usd_per_hour(history.prices, placement.machine, placement.provisioning),
            max_retries=retries,
            max_run_s=run_s,
        )
        Submissions(self.run).write(submission)

    def resume(self) -> None:
        """Record another submission by hand, for a run that was stopped or given up.

        Raises `RunStoppedError` if the limit does not pay for one, `RunConflictError` as `Allowance.require`.
        """
        history = self.history()
        self.allowance.require(history.newest.submission)
        job = history.newest.job
        ended = job is None or job.over or job.state in BEING_ENDED
        if history.final is None and history.newest.made and ended:
            self.add_submission(history, history.newest.submission.placement, "resumed by hand", "hand")
