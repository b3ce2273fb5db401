"""State of a run: what it does, how far it got, its best F1, and its last sign of life.

Guarantees no request beyond those for the run's listing, its final record, and the records of its newest attempt.
"""

from dataclasses import dataclass

from job.errors import EndReason
from job.runs.listing import RunListing
from job.runs.records import AttemptRecord, FinalRecord, RunRecord, now
from job.text import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """State of a run at one moment."""

    name: str
    """How it ended, or its newest attempt did; or ``running``, ``running, asked to stop``, ``cut off``, ``not begun``,
    ``imported``, ``not imported``.
    """

    epoch: int
    """Complete epochs that are committed."""

    num_epochs: int
    """The requested epochs."""

    num_attempts: int
    before_f1: float | None
    """F1 of the start weights, once it is finished."""

    best_f1: float | None
    """F1 of the best weights so far; None before the first epoch, and in unfinished runs of older versions."""

    last_sign_at: str
    """Time of its end, or else of the last record of its newest attempt; of its creation, if none has begun."""

    finished: bool = False
    resumable: bool = False
    """Whether it is neither finished nor running, so that ``job resume`` continues it."""

    def __str__(self) -> str:
        if self.finished:
            return f"{self.name}, {counted(self.epoch, 'epoch')}"
        return f"{self.name}, epoch {self.epoch} of {self.num_epochs}, attempt {self.num_attempts}"


def state_of(listing: RunListing, record: RunRecord) -> RunState:
    """Return the state of a run by its listing; raises `UnreadableRecordError` if a record has another form."""
    final, num_epochs = listing.final(), record.request["train"]["epochs"]
    if final is not None:
        return _state_at_end(final, record, len(listing.attempt_numbers))
    committed, numbers = listing.committed(), listing.attempt_numbers
    newest = listing.attempts(numbers[-1:])[0] if numbers else None
    name, running = _describe(newest) if newest else ("not imported" if record.imported else "not begun", False)
    return RunState(
        name=name,
        epoch=committed[-1].epoch if committed else 0,
        num_epochs=num_epochs,
        num_attempts=len(numbers),
        before_f1=None,
        best_f1=newest.best_f1 if newest else None,
        last_sign_at=newest.last_sign_at if newest else record.created_at,
        resumable=not running and record.imported is None,
    )


def _describe(newest: AttemptRecord) -> tuple[str, bool]:
    """Return the state of a run by its newest attempt, and whether that is running."""
    reason = newest.state(newest=True, at=now())
    if reason is EndReason.RUNNING:
        return "running, asked to stop" if newest.stop else "running", True
    return "cut off" if reason is EndReason.VANISHED else str(reason), False


def _state_at_end(final: FinalRecord, record: RunRecord, num_attempts: int) -> RunState:
    before = final.comparison.before
    return RunState(
        name="imported" if record.imported else final.reason,
        epoch=final.num_epochs,
        num_epochs=record.request["train"]["epochs"],
        num_attempts=num_attempts,
        before_f1=before["f1"] if before else None,
        best_f1=final.comparison.after["f1"],
        last_sign_at=final.finished_at,
        finished=True,
    )
