"""W&B status of a run: one non-authoritative record for each attempt; logs of older versions beside it are unread."""

from job.runs.listing import RunListing
from job.runs.records import Record
from job.runs.run import Claim


class WandbStatus(Record):
    """Tracking status of one attempt."""

    mode: str = "online"
    """``online`` or ``offline``, and why: whether rows are sent while the attempt trains."""

    why: str = ""
    url: str | None = None
    sent: bool = False
    """Whether the server has the whole curve."""


def write_status(claim: Claim, status: WandbStatus) -> None:
    """Write the status of an attempt, in place of an earlier one."""
    claim.run.write(_name(claim.attempt), status, overwrite=True)


def describe(listing: RunListing) -> str:
    """Describe the location of a run's curve, by the newest attempt that has a status."""
    run = listing.run
    newest = max((number for number in listing.attempt_numbers if _name(number) in listing.objects), default=None)
    status = listing.read(WandbStatus, _name(newest)) if newest else None
    if status is None:
        return "not used"
    if status.sent:
        return f"all of it is at {status.url}"
    sync = f"`job wandb sync {run.name}` sends what the server lacks"
    return f"{status.url}; {sync}" if status.mode == "online" else f"not sent, because {status.why}; {sync}"


def _name(attempt: int) -> str:
    return f"wandb/{attempt:04d}.json"
