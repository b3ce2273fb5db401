"""Follower: the process that sends the committed rows of one attempt to W&B while it trains.

Lines on standard input report a commit, or the end of the attempt; the rows are read from the bucket. When the trainer
is gone the follower ends at once.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from job.errors import TransientStoreError
from job.runs.run import Claim
from job.runs.wandb_status import WandbStatus, write_status
from job.tracking.client import ServerError, WandbRun, confine
from job.tracking.events import CommittedRows, log_result
from job.tracking.tracker import COMMITTED, FINISHED, INTERRUPTED


def follow(claim: Claim, folder: Path, messages: Iterable[str]) -> None:
    """Follow an attempt until it ends.

    Raises `SupersededError` if a later one has claimed the run, `TransientStoreError` if the server does not take it.
    """
    run = claim.run
    record = run.record()
    if record is None:
        return
    claim.require_current()
    confine(folder)
    try:
        wandb_run = WandbRun(record, watched_pid=os.getppid())
    except ServerError as error:
        write_status(claim, WandbStatus(mode="offline", why=str(error)))
        raise TransientStoreError(str(error)) from error
    write_status(claim, WandbStatus(url=wandb_run.url))
    committed = CommittedRows(run)
    for message in itertools.chain([COMMITTED], messages):
        with contextlib.suppress(TransientStoreError):  # the next commit, or the next attempt, tries again
            rows = committed.after(wandb_run.last_epoch)
            claim.require_current()  # after reading: a later attempt sends its own rows
            for row in rows:
                wandb_run.log(row)
        if message == FINISHED:
            log_result(run, record, wandb_run, folder)
            write_status(claim, WandbStatus(url=wandb_run.url, sent=True))
            return
        if message == INTERRUPTED:
            wandb_run.mark_preempting()
            return
