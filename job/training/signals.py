"""Signals that count as a notice, and their blocking in the processes that a trainer starts.

Guarantees that the trainer alone handles a notice to a whole process group (a terminal, torchrun, systemd): loader
workers, the report and the tracker live until it ends them, from their first instant on.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

NOTICES = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

TRAINS = (["train"], ["resume"], ["extend"], ["campaign"], ["predict"])
"""Commands that answer a notice with `ExitCode.TRY_AGAIN`, from their first imports on, which take seconds."""


def handled_signals() -> frozenset[signal.Signals]:
    """Return the signals that this process obeys: without SIGHUP if it was ignored before, as under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return NOTICES - {signal.SIGHUP} if ignored else NOTICES


@contextmanager
def notices_blocked() -> Iterator[None]:
    """Block notices in every process and thread started in the block; in this thread they arrive at its end.

    The mask is inherited through fork and exec, so a new process never has Python's handlers or its parent's.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
