"""``job wandb``: sends a run's curve to W&B's server."""

import tempfile
from pathlib import Path

from job.cli.command import command
from job.cli.options import RunOptions
from job.cli.runs import require_run
from job.errors import MachineError


@command(RunOptions, "job wandb sync zebra --bucket gs://my-bucket")
def sync_run(options: RunOptions) -> None:
    """Bring W&B's server up to date with a run, and print its page.

    Sends the rows that were committed without a key, or while the server was unreachable.
    """
    run, record = require_run(options.store(), options.run)
    try:
        from job.tracking.sync import sync
    except ImportError as error:
        raise MachineError(f"W&B: the package {error.name} is missing; run `make env`") from error
    with tempfile.TemporaryDirectory(prefix="job-wandb-") as folder:
        print(sync(run, record, Path(folder)))
