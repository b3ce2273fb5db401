"""Brings a run's curve to W&B's server after the fact.

What the server has decides: if it does not know the run, the segments of the bucket are uploaded in order; then
whatever it still lacks is logged from the records. So doing it twice, or after half of it, does it once.
"""

import subprocess
import sys
from pathlib import Path

from job.errors import MachineError, TransientStoreError
from job.runs import offline_logs
from job.runs.progress import read_progress
from job.runs.records import RunRecord
from job.runs.run import Run
from job.tracking.client import Curve, ServerError, UnknownRunError, confine, why_offline
from job.tracking.events import rows_after, tell_the_end


def sync(run: Run, record: RunRecord, folder: Path) -> str | None:
    """Bring the server up to date with what is committed of a run, and return where it is shown.

    Args:
        run: The run.
        record: Its own.
        folder: An empty one.

    Raises:
        MachineError: If there is no key.
        TransientStoreError: If the server does not take it.
    """
    confine(folder)
    if why := why_offline():
        raise MachineError(f"W&B: {why}; export WANDB_API_KEY, or run `.venv/bin/wandb login`")
    try:
        try:
            opened = Curve(record, online=True, resume="must")
        except UnknownRunError:
            _upload(run, record, folder)
            opened = Curve(record, online=True)
    except ServerError as error:
        raise TransientStoreError(f"W&B: {error}; try again") from error
    progress = read_progress(run)
    for row in rows_after(progress, opened.epoch):
        opened.log(row)
    url = opened.url
    if run.final() is not None:
        tell_the_end(run, record, opened, folder)
    else:
        opened.close()
    newest = max(run.attempts(), default=None)
    if newest is not None:
        offline_logs.say(run, newest, sent=True, url=url)
    return url


def _upload(run: Run, record: RunRecord, folder: Path) -> None:
    """Upload the segments of the bucket, oldest first.

    Raises:
        ServerError: If the server does not take them.
    """
    paths = []
    for segment in offline_logs.segments(run):
        # The library reads the order from the logs themselves, and the run's id from the name.
        path = folder / f"offline-run-{segment.attempt:04d}-{record.wandb_id}" / f"run-{record.wandb_id}.wandb"
        path.parent.mkdir()
        run.store.get(segment.key(run), path)
        paths.append(str(path.parent))
    if not paths:
        return
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", "--yes", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)  # noqa: S603 -- a library's own program
    if done.returncode:
        raise ServerError(" ".join(done.stderr.split()) or "the upload failed")
