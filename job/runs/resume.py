"""What an attempt takes over from the ones before it, what they lost, and whether the chain is exact.

Read from the attempts' records; an attempt that vanished is known up to its last sign of life.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from job.errors import CorruptObjectError, OutOfMemoryError
from job.runs.checkpoint import Manifest
from job.runs.records import RunRecord, differences
from job.runs.run import Run
from job.text import seconds_between

CUT_OFF = {"preempted", None}
"""How an attempt ended that a machine took away; `None` is one that vanished. One that a person stopped says nothing of
machines.
"""


DEVICE = {"gpu", "compute_capability", "driver", "cuda", "cudnn"}
"""What an environment has on a GPU only."""


@dataclass(frozen=True, slots=True)
class Past:
    """The attempts before this one."""

    attempts: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, run: Run, attempt: int) -> "Past":
        """Read the records of the attempts before an attempt."""
        return cls(tuple(run.attempt(number) for number in run.attempts() if number < attempt))

    @property
    def furthest(self) -> tuple[int, int]:
        """The complete epochs, and batches of the next, that any of them is known to have reached."""
        return max((_position(attempt) for attempt in self.attempts), default=(0, 0))

    def stop_request(self, cloud_job: str | None) -> dict[str, Any] | None:
        """Return a request to stop by which no attempt has ended yet, and the next one has to.

        The machine of an attempt that was asked may be taken away before it sees the request, and its Batch job start
        another one in its place. A request that came after the end is void, and so is one before a person's start.

        Args:
            cloud_job: The Batch job of the next attempt, if it has one.
        """
        for attempt in reversed(self.attempts):
            end, request = attempt["end"], attempt["stop"]
            if cloud_job is None or attempt.get("cloud_job") != cloud_job or (end and end["reason"] == "paused"):
                return None
            if request:
                return None if end and end["ended_at"] < request["asked_at"] else dict(request)
        return None

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether any of them ended because the GPU's memory did not do."""
        ends = [attempt["end"] or {} for attempt in self.attempts]
        return any(end.get("error") == OutOfMemoryError.__name__ for end in ends)

    @property
    def preempted_after_s(self) -> list[float]:
        """How long those lived that were cut off, in seconds."""
        return [
            seconds_between(attempt["claimed_at"], _last_sign(attempt))
            for attempt in self.attempts
            if (attempt["end"] or {"reason": None})["reason"] in CUT_OFF
        ]


def receipt(past: Past, restored: Manifest, loaded: dict[str, str], num_batches: int) -> dict[str, Any]:
    """Return what a resumed attempt records of its resumption.

    Args:
        past: The attempts before it.
        restored: The checkpoint that it goes on from.
        loaded: Digests of what is live after loading.
        num_batches: Batches in an epoch.

    Raises:
        CorruptObjectError: If what is live is not what was saved.
    """
    saved = restored.about["digests"]
    if different := [f"{group}: saved {saved[group][:12]}, loaded {loaded[group][:12]}" for group in saved
                     if saved[group] != loaded[group]]:  # fmt: skip
        raise CorruptObjectError(
            f"checkpoint {restored.id}: its state did not load as it was saved; this is a defect, please report it",
            different,
        )
    steps_lost, seconds_lost = 0, 0.0
    if past.attempts:  # else it goes on from where another run ended
        last = past.attempts[-1]
        epoch, batch = _position(last)
        steps_lost = max(0, (epoch - restored.epoch) * num_batches + batch - restored.batch)
        seconds_lost = seconds_between(max(restored.committed_at, last["claimed_at"]), _last_sign(last))
    return {
        "run": restored.run,
        "checkpoint": str(restored.id),
        "position": {"epoch": restored.epoch, "batch": restored.batch},
        "saved": saved,
        "loaded": loaded,
        "steps_lost": steps_lost,
        "seconds_lost": seconds_lost,
    }


def exactness(record: RunRecord, attempts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return whether all attempts of a run can be compared bit by bit, or from which on they cannot, and why.

    Told from what was seen: machines that differ, warnings of kernels, memory that ran short.

    Args:
        record: The run's own.
        attempts: Its records, in order, as `Run.attempt` returns them.
    """
    if not record.request["train"].get("deterministic", True):
        because = ["deterministic: is off, so kernels may differ from one time to the next"]
        return {"exact": False, "from_attempt": 1, "because": because}
    for attempt in attempts:
        because = [*(attempt["start"] or {}).get("differs", []), *_inexact(attempt)]
        if because:
            return {"exact": False, "from_attempt": attempt["attempt"], "because": because}
    return {"exact": True}


def warnings_of(attempts: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return each warning of a library with the first attempt that had it."""
    first: dict[str, int] = {}
    for attempt in attempts:
        for text in _evidence(attempt).get("warnings", []):
            first.setdefault(text, attempt["attempt"])
    return first


def environment_differences(existing: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Say what decides the last bits and is not as it was when the run began, one sentence for each.

    Of what an older version of the job did not record when the run began, nothing is known.
    """
    known = {name: value for name, value in found.items() if name in existing or name in DEVICE}
    return [
        line.replace("the run has", "began with").replace("asked for", "now") for line in differences(existing, known)
    ]


def _evidence(attempt: dict[str, Any]) -> dict[str, Any]:
    """Return what an attempt saw while it trained, as far as it told."""
    return (attempt["end"] or {}).get("evidence") or (attempt["pulse"] or {}).get("evidence") or {}


def _inexact(attempt: dict[str, Any]) -> Iterator[str]:
    """Say what an attempt saw that makes its bits another's."""
    evidence = _evidence(attempt)
    yield from (text for text in evidence.get("warnings", []) if "determin" in text)
    if num := evidence.get("num_ooms"):
        yield f"GPU memory: was too short {num} times, so that slower kernels may have been chosen"


def _position(attempt: dict[str, Any]) -> tuple[int, int]:
    known = (attempt["end"] or attempt["pulse"] or {}).get("position") or {"epoch": 0, "batch": 0}
    return known["epoch"], known["batch"]


def _last_sign(attempt: dict[str, Any]) -> str:
    if attempt["end"]:
        return str(attempt["end"]["ended_at"])
    return str(attempt["pulse"]["at"] if attempt["pulse"] else attempt["claimed_at"])
