"""Records of an attempt: claim, start, reason of its end, and the run's final record."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from job.analysis.metrics import BeforeAfter
from job.errors import DefectError, EndReason, ExitCode, JobError, NotCommittedError, PreemptionError
from job.recipes.arguments import traded
from job.recipes.recipe import Band
from job.runs import checkpoint, resume
from job.runs.artifacts import ArtifactPublisher
from job.runs.listing import RunListing
from job.runs.progress import metrics_of
from job.runs.records import FinalRecord, Heartbeat, Manifest, ResumeReceipt, RunRecord, now
from job.runs.resume import NO_ATTEMPTS, PreviousAttempts
from job.runs.run import Claim, Run
from job.session import environment
from job.session.context import SessionContext
from job.storage.checksums import sha256_of
from job.training.files import BEST, LAST

if TYPE_CHECKING:
    from job.training.loop import Training

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartedAttempt:
    """A claimed run, set up on this machine and about to train."""

    claim: Claim
    record: RunRecord
    training: "Training"
    previous: PreviousAttempts = NO_ATTEMPTS
    restored: Manifest | None = None
    """The checkpoint that it resumes from; the last one of another run if it extends that."""


def claim_run(run: Run, context: SessionContext) -> Claim:
    """Claim a run for this machine."""
    age_s = round(sum(context.timer.seconds().values()), 3)
    return run.claim({"process_age_s": age_s, "price": context.price.model_dump(), **environment.claim_fields()})


def environment_of(training: "Training") -> dict[str, object]:
    """Return the hardware and library versions that may decide the last bits of a result."""
    return {**training.environment, "versions": environment.versions()}


def record_start(
    claim: Claim, record: RunRecord, training: "Training", receipt: ResumeReceipt | None, *, steps_lost: int = 0
) -> None:
    """Write the start record, and warn if the result is not, or no longer, comparable bit by bit."""
    for line in traded(record.train):
        log.warning("run %s: not bit-exact, for speed: %s", record.run, line)
    found = environment_of(training)
    differs = resume.environment_differences(record.environment, found)
    # Versions of the job that recorded no pictures let Ultralytics compress some anew; of others their digest tells.
    if "pictures" not in record.environment and (num := training.trainer.num_compressed_anew):
        differs.append(
            f"pictures: {num} JPEGs have bytes behind their end; the version that began the run compressed them anew, "
            "and this one reads them as they are"
        )
    for line in differs:
        log.warning("run %s: no longer bit-comparable from attempt %d: %s", record.run, claim.attempt, line)
    resumed = receipt and receipt.model_dump(mode="json")
    claim.start({"environment": found, "differs": differs, "receipt": resumed, "steps_lost": steps_lost})


@contextlib.contextmanager
def attempt_recorded(
    claim: Claim, context: SessionContext, more_fields: Callable[[], Mapping[str, object]], *, finished: bool = True
) -> Iterator[None]:
    """Write the end record of an attempt, for any end within the block: error, notice, hang, deadline.

    `more_fields` returns those of the training, as `Training.record_fields`. If `finished`, the attempt ends with the
    block.

    Raises:
        DefectError: For an exception that is no `JobError`.
        PeerFailedError: For a notice by which a launcher ends this rank, since another one has failed.
    """

    def end(reason: str, fields: Mapping[str, object]) -> None:
        claim.end(reason, {**fields, **more_fields(), "seconds": context.timer.seconds()})

    def cause_of(error: BaseException) -> BaseException:
        if isinstance(error, PreemptionError) and not error.on_all_ranks:
            return context.group.failure() or error
        if isinstance(error, Exception) and not isinstance(error, JobError):
            return DefectError(f"run {claim.run.name}", error)
        return error

    def end_by(error: BaseException) -> None:
        fields = {
            "exit_code": getattr(error, "exit_code", ExitCode.DEFECT),
            "message": " ".join(str(error).split()),
            "error": error.name if isinstance(error, JobError) else type(error).__name__,
        }
        more = {name: text for name in ("traceback", "not_committed") if (text := getattr(error, name, ""))}
        with contextlib.suppress(JobError):  # the error that ended the attempt is the one to report
            end(getattr(error, "reason", EndReason.FAILED), fields | more)

    def leave_by(error: BaseException) -> None:
        cause = cause_of(error)
        end_by(cause)
        context.on_leave(cause)

    context.watchdog.on_hang = context.preemption.on_deadline = leave_by
    try:
        yield
    except BaseException as error:
        cause = cause_of(error)
        end_by(cause)
        if cause is error:
            raise
        raise cause from error
    if finished:
        end(EndReason.FINISHED, {"exit_code": ExitCode.FINISHED, "message": "", "error": None})


def finish(started: StartedAttempt, folder: Path, publisher: ArtifactPublisher) -> FinalRecord:
    """Publish the files that training wrote into a folder, and write the final record, which ends the run.

    Raises `NotCommittedError` if the newest checkpoint is not the end of the run.
    """
    from job.training.weights import digest_file  # noqa: PLC0415 -- imports torch, which is loaded by now

    claim, record, training = started.claim, started.record, started.training
    run, progress = claim.run, training.progress
    claim.require_current()
    if missing := checkpoint.missing_end(run, len(progress.rows)):
        raise NotCommittedError(f"run {run.name}: {missing}; the same command resumes there")
    publisher.copy(folder)
    expect = {name: Band(*ends) for name, ends in record.expect.items()}
    before, after = training.before_and_after
    comparison = BeforeAfter(metrics_of(before) if before else None, metrics_of(after), expect)
    *earlier, this = RunListing(run).attempts()
    seen = Heartbeat.model_validate({"at": now(), **training.record_fields})
    exactness = resume.exactness(record, [*earlier, replace(this, heartbeat=seen)])
    final = {
        "attempt": claim.attempt,
        "profile": record.request["profile"],
        "reason": "stopped early" if progress.stopped_early else "complete",
        "num_epochs": len(progress.rows),
        "best_epoch": training.best_epoch,
        "train_s": round(progress.rows[-1]["time"], 3),
        "bits": exactness.model_dump(exclude_unset=True),
        "comparison": comparison.to_json(),
        "course": [{"epoch": int(row["epoch"]), **metrics_of(row)} for row in progress.rows],
        "weights": {
            name: {"sha256": sha256_of(folder / name), "tensors": digest_file(folder / name)} for name in (BEST, LAST)
        },
    }
    claim.require_current()
    return run.finish(final)
