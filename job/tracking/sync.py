"""``job wandb sync``: sends W&B's server the committed rows that it lacks, from the records of a run.

The server names the last epoch that it has, so a repeated or interrupted sync sends each epoch once.
"""

from pathlib import Path

from job.errors import MachineError, TransientStoreError
from job.runs.records import RunRecord
from job.runs.run import Claim, Run
from job.runs.wandb_status import WandbStatus, write_status
from job.tracking.client import ServerError, WandbRun, confine
from job.tracking.credentials import why_offline
from job.tracking.events import CommittedRows, log_result


def sync(run: Run, record: RunRecord, folder: Path) -> str:
    """Send the server the rows of a run that it lacks, by way of an empty folder; return the address there.

    Raises `MachineError` if there is no key, `TransientStoreError` if the server does not take the run.
    """
    if why := why_offline():
        raise MachineError(f"W&B: {why}; export WANDB_API_KEY, or run `.venv/bin/wandb login`")
    confine(folder)
    try:
        wandb_run = WandbRun(record)
    except ServerError as error:
        raise TransientStoreError(f"W&B: {error}; try again") from error
    for row in CommittedRows(run).after(wandb_run.last_epoch):
        wandb_run.log(row)
    if run.final() is not None:
        log_result(run, record, wandb_run, folder)
    else:
        wandb_run.finish()
    if attempts := run.attempt_numbers():
        write_status(Claim(run, attempts[-1]), WandbStatus(url=wandb_run.url, sent=True))
    return wandb_run.url or f"run {run.name}: is sent; the server names no address"
