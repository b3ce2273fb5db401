"""Background threads: any exception of a thread is kept, and raised by `check` in the thread that trains."""

import threading
from collections.abc import Callable
from typing import Self

from job.errors import BackgroundError, JobError, what_failed


class Background:
    """One background thread of a training; its name is the subject of messages. A context manager runs it."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._work = work
        self.error: JobError | None = None
        """The error of the work: its own `JobError`, or a `BackgroundError` for any other exception."""

        self.closed = threading.Event()
        """Set at the end of the context, for work that repeats."""

        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _kind: object, _error: BaseException | None, _trace: object) -> None:
        self.closed.set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread was started and has not ended."""
        return self._thread.is_alive()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the thread to end, at most so many seconds."""
        self._thread.join(timeout_s)

    def check(self) -> None:
        """Raise `error`, if there is one; cheap enough for every step."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._work()
        except JobError as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001 -- raised by `check`, in the main thread
            self.error = BackgroundError(
                f"{self._thread.name}: failed, {what_failed(error)}; committed checkpoints stand, the same command "
                "resumes there; if it fails again, please report it"
            )
            self.error.__cause__ = error
