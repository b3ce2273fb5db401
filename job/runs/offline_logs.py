"""W&B's logs in the bucket: what each attempt added to the curve.

A segment is the log of one attempt up to a committed place in the run, ``wandb/<attempt>/<epoch>-<batch>.wandb``, never
changed and replaced by the next one. An attempt that begins takes note, in its start record, of the segments that it
goes on from. So a machine that has been superseded may add what it likes: nobody goes on from it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.runs.run import Run

FOLDER = "wandb/"

NUM_KEPT = 2
"""Segments of an attempt; whoever has just found the last but one can still read it."""


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One attempt's part of the curve."""

    attempt: int
    epoch: int
    """Rows up to this epoch are in it, or in an earlier one."""

    batch: int

    def __str__(self) -> str:
        return f"{self.attempt:04d}/{self.epoch:04d}-{self.batch:06d}"

    @classmethod
    def parse(cls, name: str) -> "Segment | None":
        """Read a name as `str` writes it; nothing if it is none."""
        match = re.fullmatch(r"(\d{4,})/(\d{4,})-(\d{6,})", name)
        return cls(*map(int, match.groups())) if match else None

    def key(self, run: Run) -> str:
        """Return its key."""
        return run.key(f"{FOLDER}{self}.wandb")


def found(run: Run) -> list[Segment]:
    """Return the newest segment of each attempt that has one, oldest first."""
    start, end = run.key(FOLDER), ".wandb"
    names = [stored.key.removeprefix(start).removesuffix(end) for stored in run.store.list(start)]
    newest = {segment.attempt: segment for segment in sorted(filter(None, map(Segment.parse, names)))}
    return list(newest.values())


def gone_on_from(run: Run, attempt: int) -> list[Segment]:
    """Return the segments that an attempt took note of when it began."""
    start = run.attempt(attempt).start
    return [segment for name in (start.curve if start else ()) if (segment := Segment.parse(name))]


def segments(run: Run) -> list[Segment]:
    """Return the segments that together are the run's curve, oldest first."""
    newest_first = reversed(run.attempts())
    started = next((number for number in newest_first if run.attempt(number).start is not None), None)
    if started is None:
        return []
    return gone_on_from(run, started) + [segment for segment in found(run) if segment.attempt == started]


def save(run: Run, segment: Segment, path: Path) -> None:
    """Keep a log up to a committed place in the run, in place of that attempt's earlier ones.

    Raises:
        SupersededError: If a later attempt has claimed the run.
        StoreError: If the store refuses.
    """
    run.require_current(segment.attempt)
    run.store.put(segment.key(run), path, overwrite=True)
    start = run.key(f"{FOLDER}{segment.attempt:04d}/")
    for old in sorted(stored.key for stored in run.store.list(start))[:-NUM_KEPT]:
        run.store.delete(old)


def say(run: Run, attempt: int, **about: Any) -> None:  # noqa: ANN401 -- whatever JSON can hold
    """Record how tracking went in an attempt, in addition to what was said before."""
    run.note(f"{FOLDER}{attempt:04d}.json", (said(run, attempt) or {}) | about)


def said(run: Run, attempt: int) -> dict[str, Any] | None:
    """Return what was recorded by `say`."""
    return run.noted(f"{FOLDER}{attempt:04d}.json")


def tell(run: Run) -> str:
    """Say where a run's curve is, for people."""
    known = [told for number in run.attempts() if (told := said(run, number)) is not None]
    if not known:
        return "not used"
    newest, to_do = known[-1], f"`job wandb sync {run.name}` sends"
    if newest.get("sent"):
        return f"all of it is at {newest['url']}"
    if newest["mode"] == "online":
        return f"{newest['url']}; {to_do} what the server lacks"
    kept = segments(run)
    until = f"up to epoch {kept[-1].epoch}, from {len(kept)} attempts" if kept else "nothing so far"
    return f"kept in the bucket ({until}), because {newest['why']}; {to_do} it"
