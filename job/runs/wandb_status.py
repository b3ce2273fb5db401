"""W&B status of a run: one non-authoritative record for each attempt; logs of older versions beside it are unread."""

from job.runs.records import Record
from job.runs.run import Claim, Run


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
    claim.run.write(f"wandb/{claim.attempt:04d}.json", status, overwrite=True)


def read_status(run: Run, attempt: int) -> WandbStatus | None:
    """Read the status of an attempt, if it has one."""
    return run.read(WandbStatus, f"wandb/{attempt:04d}.json")


def describe(run: Run) -> str:
    """Describe the location of a run's curve, by the newest attempt that has a status."""
    status = next(filter(None, (read_status(run, number) for number in reversed(run.attempt_numbers()))), None)
    if status is None:
        return "not used"
    if status.sent:
        return f"all of it is at {status.url}"
    sync = f"`job wandb sync {run.name}` sends what the server lacks"
    return f"{status.url}; {sync}" if status.mode == "online" else f"not sent, because {status.why}; {sync}"
