"""The signals that are a notice, and how a trainer keeps them from the processes that it starts.

Guarantees that a notice that goes to a whole process group (a terminal, torchrun, systemd) is answered by the trainer
alone: loader workers, the report and the tracker live until it ends them, from their first instant on.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

NOTICES = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

TRAINS = (["train"], ["extend"], ["campaign"])
"""Commands that answer a notice with `ExitCode.TRY_AGAIN`, from their first imports on, which take seconds."""


def heeded() -> frozenset[signal.Signals]:
    """Return the notices that this process heeds: SIGHUP is none where it was ignored before, as nohup has it."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return NOTICES - {signal.SIGHUP} if ignored else NOTICES


@contextmanager
def left_to_the_trainer() -> Iterator[None]:
    """Block notices in every process and thread that is started inside; in this thread they arrive at the end.

    The mask is inherited through fork and exec, so there is no moment in which a young process has Python's handlers
    or those of its parent.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
