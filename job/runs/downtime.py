"""Downtime between two attempts, split by their records.

- `Downtime.QUEUED`: from the last record of an attempt until the machine of the next one boots.
- `Downtime.BOOTING`, `Downtime.PULLING`: from there until the process of that attempt starts; together where the pull
  of the container image was not measured.
- `Downtime.STARTING`: from there to its first step.
- `Downtime.UNKNOWN`: until the process starts, on a machine that ran before, or that did not record when it booted.

Knows nothing of cost.
"""

from collections.abc import Mapping
from enum import StrEnum

from job.runs.cost import GETTING_READY
from job.runs.records import AttemptRecord
from job.text import duration, seconds_between


class Downtime(StrEnum):
    """Part of the time between two attempts."""

    QUEUED = "queued"
    BOOTING = "booting"
    PULLING = "pulling the image"
    BOOTING_AND_PULLING = "booting and pulling the image"
    STARTING = "starting"
    UNKNOWN = "unknown"


def downtime(earlier: AttemptRecord, later: AttemptRecord) -> dict[Downtime, float]:
    """Return the seconds from the last record of an attempt to the first step of the next one, by part."""
    starting = {Downtime.STARTING: sum(s for phase, s in later.seconds.items() if phase in GETTING_READY)}
    ended_at, booted_at, pull_s = earlier.last_sign_at, later.claim.booted_at, later.claim.image_pull_s
    if booted_at is None or not (queued_s := seconds_between(ended_at, booted_at)):
        return {Downtime.UNKNOWN: seconds_between(ended_at, later.began_at)} | starting
    up_s = seconds_between(booted_at, later.began_at)
    if pull_s is None:
        return {Downtime.QUEUED: queued_s, Downtime.BOOTING_AND_PULLING: up_s} | starting
    pull_s = min(pull_s, up_s)
    return {Downtime.QUEUED: queued_s, Downtime.BOOTING: up_s - pull_s, Downtime.PULLING: pull_s} | starting


def describe_downtime(seconds: Mapping[Downtime, float]) -> str:
    """Return the parts in a sentence, for people."""
    parts = ", ".join(f"{duration(s)} {part}" for part, s in seconds.items())
    return f"{duration(sum(seconds.values()))}: {parts}"
