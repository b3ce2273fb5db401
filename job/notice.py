"""Notices that this process is about to be stopped: SIGTERM, Ctrl-C, and the metadata server.

Guarantees that a notice is seen within a second; that it interrupts whatever is under way, except what asked to be
left alone and looks at `pending` by itself; and that a second signal ends the process at once.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from job.errors import PauseError, PreemptionError
from job.metadata import MetadataError, MetadataServer

log = logging.getLogger(__name__)

STAY_S = 150
"""How long to stay after a notice from the metadata server. Who leaves early is started again on the same machine,
which has up to 120 s to live and 30 s to shut down.
"""

PAUSE, STOP, FROM_SERVER = 1, 2, 3
"""How urgent a notice is; the most urgent one is obeyed."""

WAKE = signal.SIGUSR1
"""What the watching thread sends to its own process, so that system calls of the main thread return."""


class Notices:
    """Watches for notices while it is entered, which has to be in the main thread."""

    def __init__(self, stay_s: float = STAY_S) -> None:
        self.pending: PreemptionError | None = None
        """The first notice; raise it once everything that is worth keeping is kept."""

        self._pause: PauseError | None = None

        self._stay_s = stay_s
        self._left_alone = False
        self._signalled = threading.Event()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        signal.signal(WAKE, lambda _number, _frame: self._interrupt())
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.signal(WAKE, signal.SIG_IGN)  # the thread may be about to send it, which would end the process

    def watch(self) -> None:
        """Begin to watch the metadata server, if this machine has one.

        Raises:
            PreemptionError: If the machine has been given notice already.
        """
        server = MetadataServer.find()
        if server is None:
            return
        tag = "0"
        try:
            doomed, tag = server.preempted()
        except MetadataError as error:
            log.warning("%s; notices may not be seen, checkpoints are taken all the same", error)
        else:
            if doomed:
                self.pending = _from_server("is being preempted, nothing was started")
                raise self.pending
        threading.Thread(target=self._watch, args=(server, tag), name="notices", daemon=True).start()

    def agreed(self, agree: Callable[[int], int]) -> PreemptionError | None:
        """Return the notice that processes which train together obey, all at the same step.

        Args:
            agree: Returns the highest number that any of them names.
        """
        level = agree(self._urgency)
        if level == 0:
            return None
        if level == PAUSE:
            self.pending = self._pause or PauseError("another process of this training was asked to pause")
        elif self.pending is None:
            self.pending = PreemptionError("another process of this training was asked to stop", "preempted")
        self.pending.from_server = level == FROM_SERVER
        self.pending.agreed = True
        return self.pending

    @property
    def _urgency(self) -> int:
        if self.pending is not None:
            return FROM_SERVER if self.pending.from_server else STOP
        return PAUSE if self._pause is not None else 0

    def pause(self, notice: PauseError) -> None:
        """Ask for a pause, from any thread. There is no haste: it interrupts nothing, and `agreed` returns it."""
        self._pause = notice

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Let nothing be interrupted inside; it looks at `pending` instead."""
        before, self._left_alone = self._left_alone, True
        try:
            yield
        finally:
            self._left_alone = before

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a notice interrupt what is inside something that is left alone.

        Raises:
            PreemptionError: At any point inside, from its beginning on.
        """
        before, self._left_alone = self._left_alone, False
        try:
            self._interrupt()
            yield
        finally:
            self._left_alone = before

    def stay(self) -> None:
        """Wait to be killed if that is what comes next; return on a signal, or after the longest time it can take."""
        self._left_alone = True
        if self.pending is None or not self.pending.from_server:
            return
        log.info("all is kept; waiting for the machine to end")
        self._signalled.wait(self._stay_s)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if self._signalled.is_set():
            os.write(2, f"{name} again: leaving at once; the last committed checkpoint stands\n".encode())
            os._exit(PreemptionError.exit_code)
        self._signalled.set()
        if self.pending is None:
            self.pending = PreemptionError(f"{name}: asked to stop", "interrupted" if name == "Ctrl-C" else "preempted")
        self._interrupt()

    def _interrupt(self) -> None:
        if self.pending is not None and not self._left_alone:
            self._left_alone = True  # once
            raise self.pending

    def _watch(self, server: MetadataServer, tag: str) -> None:
        while not self._closed.is_set():
            asked = time.monotonic()
            try:
                preempted, tag = server.wait(tag)
            except MetadataError:
                preempted = False
            if preempted:
                self.pending = self.pending or _from_server("is being preempted")
                os.kill(os.getpid(), WAKE)
                return
            self._closed.wait(max(0.0, asked + 0.5 - time.monotonic()))  # a server that does not hold is not pestered


def _from_server(what: str) -> PreemptionError:
    return PreemptionError(f"metadata server: this machine {what}", "preempted", from_server=True)
