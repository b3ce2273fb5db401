"""``job stop``: ask whoever trains a run to commit, end, and leave it until a person goes on with it."""

from job import machine
from job.commands.runs import require_run
from job.commands.values import require_store
from job.errors import RunConflictError


def stop_run(name: str, bucket: str | None) -> None:
    """Ask a run's newest attempt to end as paused.

    The attempt looks for the request every few seconds and obeys it after a batch (a validation is ended first, and a
    run whose last batch is over is finished): it commits, and ends with exit code 0, so that no scheduler starts it
    again. If it vanishes before that, the next attempt ends by the same request, at once. The attempt
    after one that ended as paused trains: the command that started the run goes on with it.

    Raises:
        RunConflictError: If there is no such run, or nobody has begun to train it.
    """
    run, _ = require_run(require_store(bucket), name)
    if run.final() is not None:
        print(f"run {name} is finished; there is nothing to stop")
        return
    numbers = run.attempts()
    if not numbers:
        raise RunConflictError(f"run {name}: no attempt has begun yet; ask again when one has")
    newest = run.attempt(numbers[-1])
    end = newest["end"]
    if end is not None and end["reason"] == "paused":
        print(f"run {name} is paused; the command that started it goes on with it")
        return
    run.ask_to_stop(numbers[-1], {"host": machine.about()["host"]})
    if end is None:
        print(
            f"run {name}: attempt {numbers[-1]} on {newest['host']} was asked to stop; it commits and ends after its "
            "next batch"
        )
    else:
        print(f"run {name}: attempt {numbers[-1]} has ended, {end['reason']}; the next one ends at once, as paused")
