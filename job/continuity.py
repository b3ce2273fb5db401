"""What an attempt takes over from the ones before it, what they lost, and whether the chain is exact.

Read from the attempts' records; an attempt that vanished is known up to its last sign of life.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from job.checkpoint import Manifest
from job.errors import CorruptObjectError
from job.run import Run, differences

CUT_OFF = {"preempted", None}
"""How an attempt ended that a machine took away; `None` is one that vanished. One that a person stopped says nothing of
machines.
"""


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

    @property
    def stop_request(self) -> dict[str, Any] | None:
        """A request to stop by which no attempt has ended yet; whoever comes next is to end by it.

        An attempt that was asked may vanish before it sees the request, and a scheduler start another in its place.
        """
        for attempt in reversed(self.attempts):
            if attempt["end"] and attempt["end"]["reason"] == "paused":
                return None
            if attempt["stop"]:
                return dict(attempt["stop"])
        return None

    @property
    def preempted_after_s(self) -> list[float]:
        """How long those lived that were cut off, in seconds."""
        return [
            _seconds_between(attempt["claimed_at"], _last_sign(attempt))
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
        seconds_lost = max(0.0, _seconds_between(max(restored.committed_at, last["claimed_at"]), _last_sign(last)))
    return {
        "run": restored.run,
        "checkpoint": str(restored.id),
        "position": {"epoch": restored.epoch, "batch": restored.batch},
        "saved": saved,
        "loaded": loaded,
        "steps_lost": steps_lost,
        "seconds_lost": seconds_lost,
    }


def exactness(run: Run) -> dict[str, Any]:
    """Return whether all attempts of a run can be compared bit by bit, or from which on they cannot, and why."""
    for number in run.attempts():
        start = run.attempt(number)["start"]
        if start and start["differs"]:
            return {"exact": False, "from_attempt": number, "because": start["differs"]}
    return {"exact": True}


def environment_differences(existing: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Say what decides the last bits and is not as it was when the run began, one sentence for each."""
    return [
        line.replace("the run has", "began with").replace("asked for", "now") for line in differences(existing, found)
    ]


def _position(attempt: dict[str, Any]) -> tuple[int, int]:
    known = (attempt["end"] or attempt["pulse"] or {}).get("position") or {"epoch": 0, "batch": 0}
    return known["epoch"], known["batch"]


def _last_sign(attempt: dict[str, Any]) -> str:
    if attempt["end"]:
        return str(attempt["end"]["ended_at"])
    return str(attempt["pulse"]["at"] if attempt["pulse"] else attempt["claimed_at"])


def _seconds_between(earlier: str, later: str) -> float:
    return round((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds(), 3)
