"""An attempt in the records of its run: its claim, what it began with, and why it ended."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from job.errors import (
    DefectError,
    EndReason,
    ExitCode,
    JobError,
    PeerError,
    PreemptionError,
    SupersededError,
    TransientStoreError,
)
from job.goodput import PhaseTimer
from job.runs import resume
from job.runs.records import Price, ResumeReceipt, RunRecord
from job.runs.run import Run
from job.session import environment
from job.session.preemption import PreemptionWatcher
from job.session.watchdog import Watchdog

if TYPE_CHECKING:
    from job.training.loop import Training

log = logging.getLogger(__name__)


def claim(run: Run, timer: PhaseTimer, price: Price) -> int:
    """Claim a run for this machine; return the number of the attempt."""
    age_s = round(sum(timer.seconds().values()), 3)
    return run.claim({"process_age_s": age_s, "price": price.model_dump(), **environment.about()})


def environment_of(training: "Training") -> dict[str, Any]:
    """Return what may decide the last bits of a result on this machine."""
    return {**training.environment, "versions": environment.versions()}


def record_start(
    run: Run, record: RunRecord, attempt: int, training: "Training", receipt: ResumeReceipt | None
) -> None:
    """Record what an attempt goes on from, and say what makes its bits another machine's."""
    found = environment_of(training)
    differs = resume.environment_differences(record.environment, found)
    # Versions of the job that recorded no pictures let Ultralytics compress some anew; of others their digest tells.
    if "pictures" not in record.environment and (num := training.trainer.num_compressed_anew):
        differs.append(
            f"pictures: {num} JPEGs have bytes behind their end; the version that began the run compressed them anew, "
            "and this one reads them as they are"
        )
    for line in differs:
        log.warning("run %s: no longer bit-comparable from attempt %d: %s", run.name, attempt, line)
    run.start_attempt(
        attempt,
        {
            "environment": found,
            "differs": differs,
            "receipt": receipt and receipt.model_dump(mode="json"),
        },
    )


@contextlib.contextmanager
def recorded(
    run: Run,
    attempt: int,
    timer: PhaseTimer,
    about: Callable[[], dict[str, Any]],
    *,
    watchdog: Watchdog,
    preemption: PreemptionWatcher,
    finished: bool = True,
) -> Iterator[None]:
    """Record in the bucket why an attempt ends, if it ends inside, also by a hang or a deadline, or at the end of it.

    Args:
        run: The run.
        attempt: The attempt.
        timer: Its seconds.
        about: What else the record says, such as `Training.about`.
        watchdog: Ends the attempt if it hangs.
        preemption: End it at their deadline.
        finished: Whether the end of what is inside is that of the attempt.

    Raises:
        DefectError: For an exception that nothing foresees.
    """

    def end(reason: EndReason, exit_code: int, message: str, error: str | None, **more: str) -> None:
        ended = {"exit_code": exit_code, "message": message, "error": error, **more}
        run.end_attempt(attempt, reason, {**ended, **about(), "seconds": timer.seconds()})

    def end_by(error: BaseException) -> None:
        reason, exit_code = _classified(error)
        more = {}
        if isinstance(error, DefectError):
            more["traceback"] = error.traceback
        if isinstance(error, PreemptionError) and error.not_committed:
            more["not_committed"] = error.not_committed
        name = error.name if isinstance(error, DefectError) else type(error).__name__
        with contextlib.suppress(JobError):  # the error that ended the attempt is the one to report
            end(reason, exit_code, " ".join(str(error).split()), name, **more)

    watchdog.on_hang = preemption.on_deadline = end_by
    try:
        yield
    except (JobError, PreemptionError, KeyboardInterrupt) as error:
        end_by(error)
        raise
    except Exception as error:
        defect = DefectError(f"run {run.name}", error)
        end_by(defect)
        raise defect from error
    if finished:
        end(EndReason.FINISHED, 0, "", None)


def _classified(error: BaseException) -> tuple[EndReason, int]:
    """Return the reason to record for an error, and the exit code that it leads to.

    What fails and is to be tried again is ``failed`` as well, with exit 75: a supervisor gives it up if it comes twice
    at the same place. ``transient`` is what lies outside of this machine, and may last.
    """
    if isinstance(error, PreemptionError):
        return EndReason(error.reason), error.exit_code
    exit_code = error.exit_code if isinstance(error, JobError) else ExitCode.DEFECT
    if isinstance(error, SupersededError):
        return EndReason.SUPERSEDED, exit_code
    passing = isinstance(error, TransientStoreError | PeerError)
    return EndReason.TRANSIENT if passing else EndReason.FAILED, exit_code
