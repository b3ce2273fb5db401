"""Exceptions and their exit codes, and the reasons for which an attempt ends.

A message reads ``subject: what is wrong, what was found; what to do``. An error that collects several problems lists
them all, one a line.
"""

import traceback
from collections.abc import Sequence
from enum import IntEnum, StrEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes, as a scheduler sees them."""

    FINISHED = 0
    DEFECT = 1
    """Defect of the program; Python's own code of an uncaught exception. The scheduler limits its retries."""

    USAGE = 2
    INVALID = 65
    FAILED = 70
    REFUSED = 74
    TRY_AGAIN = 75
    ELSEWHERE = 78


class EndReason(StrEnum):
    """Why an attempt ended, by its end record; `VANISHED` and `RUNNING` are derived if there is none."""

    FINISHED = "finished"
    PREEMPTED = "preempted"
    INTERRUPTED = "interrupted"
    PAUSED = "paused"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    TRANSIENT = "transient"
    """A cause outside of the machine, such as a bucket that does not answer."""

    VANISHED = "vanished"
    RUNNING = "running"
    UNKNOWN = "unknown"
    """A reason that a later version of the job recorded."""

    @classmethod
    def _missing_(cls, value: object) -> "EndReason | None":
        return cls.UNKNOWN if isinstance(value, str) else None


FATAL = frozenset({ExitCode.USAGE, ExitCode.INVALID, ExitCode.FAILED, ExitCode.REFUSED})
"""No retry changes these, on any machine."""

FATAL_HERE = FATAL | {ExitCode.ELSEWHERE}
"""No retry on the same machine changes these."""

FIRST_OF_BATCH = 50000
"""Exit codes from here on are Cloud Batch's own; this one is a failure of unknown cause."""

PREEMPTED = 50001
"""Batch's code for a Spot machine that was preempted."""

LOST_MACHINE = frozenset({PREEMPTED, 50002, 50003, 50004, 50006})
"""Batch's codes for a machine that was preempted, went silent, was restarted, hung, or was recreated under the task."""

TIME_LIMIT = 50005
"""Batch's code for a task that ran longer than its limit; a hang must not be repeated ten times."""

KILLED = frozenset({125, 137, 143})
"""Codes of a killed or lost container, also after a preemption if its machine ends later."""

GOES_ON = "the same command resumes from the last committed checkpoint"
"""Remedy for a training that ended early."""


class JobError(Exception):
    """A failure that is reported as one message, never as a traceback, with details for `problems`, one a line."""

    exit_code: int = ExitCode.FAILED
    reason = EndReason.FAILED
    """Recorded for the attempt that it ends. With exit code 75, a supervisor gives up what fails twice at one place."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.name = type(self).__name__
        """Of the exception that it stands for."""

    def __str__(self) -> str:
        lines = [self.message, *(f"  - {problem}" for problem in self.problems)]
        return "\n".join(line.replace("\n", "\\n") for line in lines)  # one a line, also if a name has line ends


class DefectError(JobError):
    """A defect of the program: an exception that no code foresees."""

    exit_code = ExitCode.DEFECT

    def __init__(self, subject: str, error: Exception, advice: str = GOES_ON) -> None:
        super().__init__(
            f"{subject}: failed by {what_failed(error)}, a defect of the program; "
            f"{advice}; if it fails again, please report it"
        )
        self.name = type(error).__name__
        self.traceback = "".join(traceback.format_exception(error))


def message_of(error: BaseException) -> str:
    """Return the message of an exception in one line, or its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def what_failed(error: BaseException) -> str:
    """Return class, message and line of an unforeseen exception."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
    return f"{what} ({Path(frame.filename).name}:{frame.lineno})"


class OutputError(JobError):
    """Standard output cannot be written: a full disk."""

    exit_code = ExitCode.REFUSED


class OutputClosedError(Exception):
    """The reader of standard output has closed it, as `head` does."""


class UsageError(JobError):
    """The command line cannot be understood."""

    exit_code = ExitCode.USAGE


class InvalidInputError(JobError):
    """The input cannot be trained; no retry changes that."""

    exit_code = ExitCode.INVALID


class TryAgainError(JobError):
    """A failure that may pass: the same command tries again."""

    exit_code = ExitCode.TRY_AGAIN


class RecipeError(InvalidInputError):
    """A recipe, or an argument that overrides it, is wrong."""


class DataError(InvalidInputError):
    """A dataset is absent, broken, or not the one the run was started on."""


class WeightsError(InvalidInputError):
    """Start weights are absent, unsafe to load, or do not fit the data."""


class RunConflictError(InvalidInputError):
    """A run exists and was started differently."""


class TrainingError(JobError):
    """Training itself failed: a loss that is not a number."""


class ParityError(JobError):
    """An exported model differs from the weights that it was made of."""


class OutOfMemoryError(TrainingError):
    """The GPU's memory ran out; a retry may help the first time, after the same batch fitted for an epoch or longer."""

    def __init__(self, message: str, *, try_again: bool) -> None:
        super().__init__(message)
        self.exit_code = ExitCode.TRY_AGAIN if try_again else ExitCode.FAILED


class HardwareError(TryAgainError):
    """The machine failed during work, by no fault of the run; a retry may help, perhaps on another machine."""


class StoreError(JobError):
    """The bucket refused: no permission, no such bucket, a full disk."""

    exit_code = ExitCode.REFUSED


class ObjectNotFoundError(StoreError):
    """No object has this key. The only error that means absence."""


class BucketNotFoundError(StoreError):
    """The bucket itself is not there."""


class PreconditionError(StoreError):
    """An object exists under the key of a create-only put, with other bytes."""


class CorruptObjectError(StoreError):
    """The bytes that arrived differ from the bytes that were stored."""


class UnreadableRecordError(CorruptObjectError):
    """The bytes are intact, and this version of the job cannot read them."""


class OversizedObjectError(UnreadableRecordError):
    """An object is larger than what is read into memory."""

    exit_code = ExitCode.INVALID


class TransientStoreError(StoreError):
    """The bucket kept failing until the deadline; trying again later may help."""

    exit_code = ExitCode.TRY_AGAIN
    reason = EndReason.TRANSIENT


class SupersededError(TryAgainError):
    """A later attempt has claimed the run; this one must not write to it any more."""

    reason = EndReason.SUPERSEDED


class CampaignError(JobError):
    """A run of a campaign failed or was cut off, with this exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class BackgroundError(TryAgainError):
    """A background thread failed by an unforeseen exception."""


class NotCommittedError(TryAgainError):
    """A run has reached its end, and its newest checkpoint has not."""


class HangError(TryAgainError):
    """A process hangs: no progress for the watchdog's limit."""


class PeerError(TryAgainError):
    """Another rank of this training is gone: it was preempted, or failed with its own message."""

    reason = EndReason.TRANSIENT


class PeerFailedError(PeerError):
    """Another rank of this training failed, and has told how: the attempt ends as that rank does."""

    def __init__(
        self,
        message: str,
        problems: Sequence[str] = (),
        *,
        name: str,
        exit_code: int,
        reason: str,
        traceback_of_defect: str = "",
    ) -> None:
        super().__init__(message, problems)
        self.name, self.exit_code, self.reason = name, ExitCode(exit_code), EndReason(reason)
        self.traceback = traceback_of_defect


class MachineError(JobError):
    """The machine cannot do the work: an unwritable folder, a full disk, no device."""

    exit_code = ExitCode.ELSEWHERE


class CloudError(JobError):
    """The cloud refused: no permission, no such project, a job that it does not take."""

    exit_code = ExitCode.ELSEWHERE


class TransientCloudError(CloudError):
    """The cloud did not answer; trying again later may help."""

    exit_code = ExitCode.TRY_AGAIN


class RunFailedError(JobError):
    """A run in the cloud failed for a reason that no retry removes."""


class RunStoppedError(TryAgainError):
    """A run in the cloud was stopped before its end, by a person or at a limit, and can be continued."""


class PreemptionError(BaseException):
    """A notice to stop this process. Not an `Exception`, so that no handler takes it for a failure.

    Its reason is ``preempted``, or ``interrupted`` or ``paused`` by a person; after one from the metadata server the
    machine ends by itself.
    """

    exit_code: int = ExitCode.TRY_AGAIN

    def __init__(self, message: str, reason: str, *, from_server: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.from_server = from_server
        self.on_all_ranks = False
        """Whether all ranks stop for it at the same step."""

        self.not_committed = ""
        """Trained steps that no checkpoint has, and why."""

    def __str__(self) -> str:
        return "; ".join(filter(None, (super().__str__(), self.not_committed)))


class PauseError(PreemptionError):
    """A person asked for the run to be paused. Exit code 0, or a scheduler would start the run again at once."""

    exit_code = ExitCode.FINISHED

    def __init__(self, message: str, *, on_all_ranks: bool = False) -> None:
        super().__init__(message, "paused")
        self.on_all_ranks = on_all_ranks
