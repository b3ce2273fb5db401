"""Resume: previous attempts, the receipt of a resumption, and whether the chain of attempts is bit-exact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job.errors import CorruptObjectError, EndReason, OutOfMemoryError
from job.recipes.arguments import traded
from job.runs.listing import RunListing
from job.runs.records import AttemptRecord, Exactness, Manifest, ResumeReceipt, RunRecord, StopRequest, differences
from job.runs.run import Claim
from job.text import counted, seconds_between
from job.training.position import BEGINNING, Position

TAKEN = {EndReason.PREEMPTED, EndReason.VANISHED}
"""End reasons of a preempted machine."""

DEVICE = {"gpu", "compute_capability", "driver", "cuda", "cudnn"}
"""Entries of an environment with a GPU."""


@dataclass(frozen=True, slots=True)
class PreviousAttempts:
    """The attempts before this one."""

    attempts: tuple[AttemptRecord, ...] = ()

    @classmethod
    def of(cls, claim: Claim) -> "PreviousAttempts":
        """Read the records of the attempts before a claim, and bundle them for the next one."""
        listing = RunListing(claim.run)
        previous = cls(tuple(listing.attempts(number for number in listing.attempt_numbers if number < claim.attempt)))
        listing.write_bundle()
        return previous

    @property
    def furthest_position(self) -> Position:
        """The furthest that any of them reached."""
        return max((attempt.position or BEGINNING for attempt in self.attempts), default=BEGINNING)

    def steps_after(self, position: Position, num_batches: int) -> int:
        """Return the steps of the last of them after a position, of epochs with so many batches."""
        epoch, batch = (self.attempts[-1].position if self.attempts else None) or BEGINNING
        return max(0, (epoch - position.epoch) * num_batches + batch - position.batch)

    def stop_request(self, cloud_job: str | None) -> StopRequest | None:
        """Return a request to stop that the next attempt has to obey, since no attempt has ended by it.

        A machine may be preempted before its attempt sees the request, or while it is written, and its Batch job starts
        another one in its place. A request before a person's start is void.
        """
        for attempt in reversed(self.attempts):
            end = attempt.end
            if cloud_job is None or attempt.claim.cloud_job != cloud_job or (end and end.reason is EndReason.PAUSED):
                return None
            if attempt.stop:
                return attempt.stop
        return None

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether any of them ended by a lack of GPU memory."""
        return any(attempt.end and attempt.end.error == OutOfMemoryError.__name__ for attempt in self.attempts)

    @property
    def preempted_after_s(self) -> list[float]:
        """Lifetimes of the preempted and vanished attempts, in seconds."""
        return [
            seconds_between(attempt.claim.claimed_at, attempt.last_sign_at)
            for attempt in self.attempts
            if attempt.state(newest=False) in TAKEN
        ]


NO_ATTEMPTS = PreviousAttempts()


def receipt(previous: PreviousAttempts, restored: Manifest, loaded: dict[str, str], num_batches: int) -> ResumeReceipt:
    """Return the receipt of a resumption; raises `CorruptObjectError` if another state was loaded than was saved."""
    saved = restored.metadata.digests
    if different := [f"{group}: saved {saved[group][:12]}, loaded {loaded[group][:12]}" for group in saved
                     if saved[group] != loaded[group]]:  # fmt: skip
        raise CorruptObjectError(
            f"checkpoint {restored.id}: the loaded state differs from the saved one; a defect, please report it",
            different,
        )
    seconds_lost = 0.0
    if previous.attempts:  # else it extends another run
        last = previous.attempts[-1]
        seconds_lost = seconds_between(max(restored.committed_at, last.claim.claimed_at), last.last_sign_at)
    return ResumeReceipt(
        run=restored.run,
        checkpoint=restored.id,
        position=restored.id.position,
        saved=saved,
        loaded=loaded,
        steps_lost=previous.steps_after(restored.id.position, num_batches),
        seconds_lost=seconds_lost,
    )


def exactness(record: RunRecord, attempts: Sequence[AttemptRecord]) -> Exactness:
    """Return whether all attempts of a run can be compared bit by bit, or from which on they cannot, and why."""
    if record.imported:
        return Exactness(exact=False, from_attempt=1, because=["the run was trained elsewhere, and imported"])
    if because := traded(record.train):
        return Exactness(exact=False, from_attempt=1, because=because)
    for attempt in attempts:
        seen = attempt.observations
        because = [*(attempt.start.differs if attempt.start else []), *(w for w in seen.warnings if "determin" in w)]
        if seen.num_ooms:
            times = counted(seen.num_ooms, "time")
            because.append(f"GPU memory: was too short {times}, so that slower kernels may have been chosen")
        if because:
            return Exactness(exact=False, from_attempt=attempt.number, because=because)
    return Exactness(exact=True)


def warnings_of(attempts: Sequence[AttemptRecord]) -> dict[str, int]:
    """Return each warning of a library with the first attempt that had it."""
    first: dict[str, int] = {}
    for attempt in attempts:
        for text in attempt.observations.warnings:
            first.setdefault(text, attempt.number)
    return first


def environment_differences(existing: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """Describe how an environment differs from that of the run's first attempt, by the entries that it recorded."""
    known = {name: value for name, value in found.items() if name in existing or name in DEVICE}
    return differences(existing, known, ("began with", "now"))
