"""``job stop``: asks a run's newest attempt to commit and end as paused."""

import logging
import socket
import time

from job.cli.command import command
from job.cli.options import RunOptions
from job.cli.runs import require_run
from job.errors import EndReason, RunConflictError
from job.runs.cost import AttemptCost, read_cost
from job.runs.heartbeat import EVERY_S
from job.runs.run import Claim, Run
from job.text import clock

log = logging.getLogger(__name__)

BEATS_WAITED_FOR, POLL_S = 3, 1.0


@command(RunOptions, "job stop zebra --bucket gs://my-bucket")
def stop(options: RunOptions) -> None:
    """Ask a run's newest attempt to end as paused.

    The attempt polls for the request every few seconds and obeys it after a batch (a validation is ended first, and a
    run whose last batch is over is finished): it commits, and ends with exit code 0, so that no scheduler starts it
    again. If its machine is preempted before that, and its Batch job starts another attempt, that one ends by the same
    request, at once. The command that started the run resumes it: a request binds no attempt that a person starts.
    """
    name = options.run
    run, _ = require_run(options.store(), name)
    if run.final() is not None:
        print(f"run {name} is finished; there is nothing to stop")
        return
    attempts = read_cost(run).attempts
    if not attempts:
        raise RunConflictError(f"run {name}: no attempt has begun yet; ask again when one has")
    newest = attempts[-1]
    if newest.ended is EndReason.PAUSED:
        print(f"run {name} is paused; the command that started it resumes it")
        return
    if newest.ended is not EndReason.RUNNING and not (newest.ended is EndReason.VANISHED and _beats(run, newest)):
        ended = "has vanished" if newest.ended is EndReason.VANISHED else f"has ended, {newest.ended}"
        raise RunConflictError(
            f"run {name}: does not run, attempt {newest.attempt} {ended}; nothing was asked, so that the command that "
            f"started it resumes it; if a Batch job starts it again, `job cancel {name}` ends that"
        )
    host = run.attempt(newest.attempt).claim.host
    Claim(run, newest.attempt).ask_to_stop(socket.gethostname())
    print(f"run {name}: attempt {newest.attempt} on {host} was asked to stop; it commits and ends after its next batch")


def _beats(run: Run, silent: AttemptCost) -> bool:
    """Whether another heartbeat comes of an attempt that is silent by its records: its machine's clock may be wrong."""
    limit_s = BEATS_WAITED_FOR * EVERY_S
    log.info("run %s: no heartbeat since %s; waiting %g s for one", run.name, clock(silent.ended_at), limit_s)
    last, until = run.attempt(silent.attempt).heartbeat, time.monotonic() + limit_s
    while time.monotonic() < until:
        time.sleep(POLL_S)
        if run.attempt(silent.attempt).heartbeat != last:
            return True
    return False
