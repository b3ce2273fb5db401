"""The status of an attempt at W&B, as the bucket has it."""

from job.runs.run import Run
from job.runs.wandb_status import WandbStatus


def read_status(run: Run, attempt: int) -> WandbStatus | None:
    """Read the status of an attempt, if it has one."""
    return run.read(WandbStatus, f"wandb/{attempt:04d}.json")
