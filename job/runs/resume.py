"""Resume: previous attempts, the receipt of a resumption, and whether the chain of attempts is bit-exact.

Read from the attempts' records; an attempt that vanished is known up to its last sign of life.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from job.errors import CorruptObjectError, EndReason, OutOfMemoryError
from job.runs.records import (
    AttemptRecord,
    Exactness,
    Manifest,
    Observations,
    Position,
    ResumeReceipt,
    RunRecord,
    StopRequest,
    differences,
)
from job.runs.run import Claim
from job.text import seconds_between

TAKEN = {EndReason.PREEMPTED, EndReason.VANISHED}
"""How an attempt ends whose machine is taken away. One that a person stopped says nothing of machines."""

DEVICE = {"gpu", "compute_capability", "driver", "cuda", "cudnn"}
"""What an environment has on a GPU only."""


@dataclass(frozen=True, slots=True)
class PreviousAttempts:
    """The attempts before this one."""

    attempts: tuple[AttemptRecord, ...] = ()

    @classmethod
    def of(cls, claim: Claim) -> "PreviousAttempts":
        """Read the records of the attempts before a claim."""
        return cls(tuple(claim.run.attempt(number) for number in claim.run.attempts() if number < claim.attempt))

    @property
    def furthest_position(self) -> tuple[int, int]:
        """The complete epochs, and batches of the next, that any of them is known to have reached."""
        return max((attempt.position or (0, 0) for attempt in self.attempts), default=(0, 0))

    def stop_request(self, cloud_job: str | None) -> StopRequest | None:
        """Return a request to stop by which no attempt has ended yet, and the next one has to.

        The machine of an attempt that was asked may be taken away before it sees the request, and its Batch job start
        another one in its place. A request that came after the end is void, and so is one before a person's start.

        Args:
            cloud_job: The Batch job of the next attempt, if it has one.
        """
        for attempt in reversed(self.attempts):
            end, request = attempt.end, attempt.stop
            if cloud_job is None or attempt.claim.cloud_job != cloud_job or (end and end.reason is EndReason.PAUSED):
                return None
            if request:
                return None if end and end.ended_at < request.asked_at else request
        return None

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the GPU's memory ran out in any of them."""
        return any(attempt.end and attempt.end.error == OutOfMemoryError.__name__ for attempt in self.attempts)

    @property
    def preempted_after_s(self) -> list[float]:
        """How long those lived whose machine was taken away, in seconds."""
        return [
            seconds_between(attempt.claim.claimed_at, attempt.last_sign_at)
            for attempt in self.attempts
            if attempt.state(newest=False) in TAKEN
        ]


NO_ATTEMPTS = PreviousAttempts()


def receipt(previous: PreviousAttempts, restored: Manifest, loaded: dict[str, str], num_batches: int) -> ResumeReceipt:
    """Return what a resumed attempt records of its resumption.

    Args:
        previous: The attempts before it.
        restored: The checkpoint that it resumes from.
        loaded: Digests of the state after loading.
        num_batches: Batches in an epoch.

    Raises:
        CorruptObjectError: If the loaded state is not the saved one.
    """
    saved = restored.metadata.digests
    if different := [f"{group}: saved {saved[group][:12]}, loaded {loaded[group][:12]}" for group in saved
                     if saved[group] != loaded[group]]:  # fmt: skip
        raise CorruptObjectError(
            f"checkpoint {restored.id}: its state did not load as it was saved; this is a defect, please report it",
            different,
        )
    steps_lost, seconds_lost = 0, 0.0
    if previous.attempts:  # else it extends another run
        last = previous.attempts[-1]
        epoch, batch = last.position or (0, 0)
        steps_lost = max(0, (epoch - restored.epoch) * num_batches + batch - restored.batch)
        seconds_lost = seconds_between(max(restored.committed_at, last.claim.claimed_at), last.last_sign_at)
    return ResumeReceipt(
        run=restored.run,
        checkpoint=restored.id,
        position=Position(epoch=restored.epoch, batch=restored.batch),
        saved=saved,
        loaded=loaded,
        steps_lost=steps_lost,
        seconds_lost=seconds_lost,
    )


def exactness(record: RunRecord, attempts: Sequence[AttemptRecord]) -> Exactness:
    """Return whether all attempts of a run can be compared bit by bit, or from which on they cannot, and why.

    Derived from what was seen: machines that differ, warnings of kernels, memory that ran short.

    Args:
        record: The run's own.
        attempts: Its attempts, in order.
    """
    if not record.request["train"].get("deterministic", True):
        because = ["deterministic: is off, so kernels may differ from one time to the next"]
        return Exactness(exact=False, from_attempt=1, because=because)
    for attempt in attempts:
        because = [*(attempt.start.differs if attempt.start else []), *_inexact(attempt.observations)]
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
    """Describe what decides the last bits and differs from the run's first attempt, one sentence for each.

    Of what an older version of the job did not record when the run began, nothing is known.
    """
    known = {name: value for name, value in found.items() if name in existing or name in DEVICE}
    return [
        line.replace("the run has", "began with").replace("asked for", "now") for line in differences(existing, known)
    ]


def _inexact(seen: Observations) -> Iterator[str]:
    """Yield each observation that makes an attempt's result inexact."""
    yield from (text for text in seen.warnings if "determin" in text)
    if seen.num_ooms:
        yield f"GPU memory: was too short {seen.num_ooms} times, so that slower kernels may have been chosen"
