"""An attempt in the records of its run: its claim, what it began with, and why it ended."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from job import continuity, curve, machine
from job.bill import Price
from job.errors import JobError, PeerError, PreemptionError, SupersededError, TransientStoreError
from job.ledger import Ledger
from job.run import Run, RunRecord
from job.watchdog import Watchdog

if TYPE_CHECKING:
    from job.training.fit import Training

log = logging.getLogger(__name__)


def claim(run: Run, ledger: Ledger, price: Price) -> int:
    """Claim a run for this machine; return the number of the attempt."""
    age_s = round(sum(ledger.seconds().values()), 3)
    return run.claim({"process_age_s": age_s, "price": asdict(price), **machine.about()})


def environment_of(training: "Training") -> dict[str, Any]:
    """Return what may decide the last bits of a result on this machine."""
    return {**training.environment, "versions": machine.versions()}


def record_start(
    run: Run, record: RunRecord, attempt: int, training: "Training", receipt: dict[str, Any] | None
) -> None:
    """Record what an attempt goes on from, and say what makes its bits another machine's."""
    found = environment_of(training)
    differs = continuity.environment_differences(record.environment, found)
    for line in differs:
        log.warning("run %s: no longer bit-comparable from attempt %d: %s", run.name, attempt, line)
    gone_on_from = [str(segment) for segment in curve.segments(run)]
    run.start_attempt(attempt, {"environment": found, "differs": differs, "receipt": receipt, "curve": gone_on_from})


@contextlib.contextmanager
def recorded(
    run: Run,
    attempt: int,
    ledger: Ledger,
    about: Callable[[], dict[str, Any]],
    watchdog: Watchdog,
    *,
    finished: bool = True,
) -> Iterator[None]:
    """Record in the bucket why an attempt ends, if it ends inside, by a hang as well, or at the end of it.

    Args:
        run: The run.
        attempt: The attempt.
        ledger: Its seconds.
        about: What else the record says, such as `Training.about`.
        watchdog: Ends the attempt if it hangs.
        finished: Whether the end of what is inside is that of the attempt.
    """

    def end(reason: str, exit_code: int, message: str, error: str | None) -> None:
        ended = {"exit_code": exit_code, "message": message, "error": error}
        run.end_attempt(attempt, reason, {**ended, **about(), "seconds": ledger.seconds()})

    def end_by(error: BaseException) -> None:
        reason, exit_code = _classified(error)
        with contextlib.suppress(JobError):  # the error that ended the attempt is the one to report
            end(reason, exit_code, " ".join(str(error).split()), type(error).__name__)

    watchdog.on_hang = end_by
    try:
        yield
    except BaseException as error:
        end_by(error)
        raise
    if finished:
        end("finished", 0, "", None)


def _classified(error: BaseException) -> tuple[str, int]:
    """Return the reason to record for an error, and the exit code that it leads to.

    What fails and is to be tried again is ``failed`` as well, with exit 75: a supervisor gives it up if it comes twice
    at the same place. ``transient`` is what lies outside of this machine, and may last.
    """
    if isinstance(error, PreemptionError):
        return error.reason, error.exit_code
    exit_code = error.exit_code if isinstance(error, JobError) else 1
    if isinstance(error, SupersededError):
        return "superseded", exit_code
    return "transient" if isinstance(error, TransientStoreError | PeerError) else "failed", exit_code
