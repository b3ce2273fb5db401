"""W&B status of a run: where its curve is, one record for each attempt, ``wandb/<attempt>.json``.

Non-authoritative: what the server lacks is found by asking the server. Beside these records lie the offline logs of
W&B that older versions kept; nothing reads them, since the checkpoints hold the same rows.
"""

from dataclasses import asdict, dataclass, fields

from job.runs.run import Claim, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbStatus:
    """How one attempt's tracking went."""

    mode: str = "online"
    """``online`` or ``offline``: whether rows are sent while the attempt trains."""

    why: str = ""
    """Why nothing is sent, if offline."""

    url: str | None = None
    sent: bool = False
    """Whether the server has the whole curve."""


def write_status(claim: Claim, status: WandbStatus) -> None:
    """Write the status of an attempt, in place of an earlier one."""
    claim.run.note(f"wandb/{claim.attempt:04d}.json", asdict(status))


def read_status(run: Run, attempt: int) -> WandbStatus | None:
    """Read the status of an attempt, if it has one."""
    noted = run.noted(f"wandb/{attempt:04d}.json")
    if noted is None:
        return None
    return WandbStatus(**{field.name: noted[field.name] for field in fields(WandbStatus) if field.name in noted})


def describe(run: Run) -> str:
    """Describe where the curve of a run is, by the newest attempt that has a status."""
    status = next(filter(None, (read_status(run, number) for number in reversed(run.attempts()))), None)
    if status is None:
        return "not used"
    if status.sent:
        return f"all of it is at {status.url}"
    sync = f"`job wandb sync {run.name}` sends what the server lacks"
    return f"{status.url}; {sync}" if status.mode == "online" else f"not sent, because {status.why}; {sync}"
