"""Preemption notices: SIGTERM, SIGHUP, Ctrl-C, and the metadata server of Compute Engine.

Guarantees that a notice is seen within a second; that it interrupts all work except blocks under `deferred`, which
poll `pending` themselves; that one deadline holds for the work that follows, after which the process exits, also out of
a library's call that does not return; and that a second Ctrl-C exits at once, likewise.
"""

import contextlib
import logging
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, MappingProxyType
from typing import NoReturn, Self

from job.background import Background
from job.cloud.gce_metadata import MetadataError, MetadataServer
from job.errors import PauseError, PreemptionError
from job.log import CLEARED
from job.training.signals import NOTICES, handled_signals

log = logging.getLogger(__name__)

TERMINATION_WAIT_S = 150
"""Seconds to stay after a notice from the metadata server. A process that leaves early is started again on the same
machine, which has up to 120 s to live and 30 s to shut down.
"""

LIMITS_S: Mapping[int, float] = MappingProxyType({signal.SIGTERM: 25.0, signal.SIGHUP: 25.0, signal.SIGINT: 60.0})
"""Deadline of the process after a signal, in seconds. A service manager kills 30 s after SIGTERM; a person who pressed
Ctrl-C waits.
"""

RANK_LIMITS_S: Mapping[int, float] = MappingProxyType(dict.fromkeys(NOTICES, 25.0))
"""Deadlines of a process that torchrun or our launcher started: they kill 30 s after any signal."""

PARENT_LIMITS_S: Mapping[int, float] = MappingProxyType({number: limit_s + 3 for number, limit_s in LIMITS_S.items()})
"""Deadlines of a process that waits for a training: it must not end before that, as its container would end too."""

SERVER_LIMIT_S = 100.0
"""Deadline after a notice of the metadata server, in seconds: the machine has up to 120 s to live."""

ONE_PRESS_S = 1.0
"""A second SIGINT that is seen within this time is the same Ctrl-C, sent to the process and to its group."""

POLL_S = 0.1
FINAL_LOG_S = 2.0

FINAL_RECORD_S = 1.0
"""The longest time for recording an end by a second Ctrl-C."""

MOST_SIGNALS = 4096
"""Signals read at once from the pipe that Python's own handler writes them to."""

PAUSE, STOP, FROM_SERVER = 1, 2, 3
"""Urgency of a notice; the most urgent one is obeyed."""

WAKE = signal.SIGUSR1
"""Sent by the watching thread to its own process, so that system calls of the main thread return."""


class PreemptionWatcher:
    """Watches for notices; a context manager, to be entered in the main thread."""

    def __init__(
        self,
        termination_wait_s: float = TERMINATION_WAIT_S,
        limits_s: Mapping[int, float] = LIMITS_S,
        server_limit_s: float = SERVER_LIMIT_S,
    ) -> None:
        self.pending: PreemptionError | None = None
        """The first notice; raise it once the last step is committed."""

        self.describe_uncommitted: Callable[[], str] = str
        """Describes, from another thread, which steps are not committed; empty if all are."""

        self.on_deadline: Callable[[PreemptionError], None] = lambda _notice: None
        """Called, from another thread, before the process leaves at the deadline, or by a second Ctrl-C."""

        self._pause: PauseError | None = None
        self._termination_wait_s, self._limits_s, self._server_limit_s = termination_wait_s, limits_s, server_limit_s
        self._deferred = self._acknowledged = False
        # A handler may come at any time in the thread that reads these, so none of them is a lock.
        self._number: int | None = None
        self._deadline, self._limit_s = math.inf, math.inf
        self._closed = threading.Event()
        self._threads = [Background("deadline", self._guard)]

    def __enter__(self) -> Self:
        self._arrived, arrives = os.pipe()
        for end in (self._arrived, arrives):
            os.set_blocking(end, False)
            weakref.finalize(self, os.close, end)
        self._previous_pipe = signal.set_wakeup_fd(arrives, warn_on_full_buffer=False)
        self._previous = {number: signal.getsignal(number) for number in handled_signals()}
        for number in self._previous:
            signal.signal(number, self._on_signal)
        signal.signal(WAKE, lambda _number, _frame: self._interrupt())
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.signal(WAKE, signal.SIG_IGN)  # the thread may be about to send it, which would end the process
        signal.set_wakeup_fd(self._previous_pipe)

    def watch(self) -> None:
        """Watch the metadata server, if there is one; raises `PreemptionError` if the machine has notice already."""
        server = MetadataServer.find()
        if server is None:
            return
        doomed, tag = False, "0"
        try:
            doomed, tag = server.preempted()
        except MetadataError as error:
            log.warning("%s; notices may not be seen, checkpoints are taken all the same", error)
        if doomed:
            self._set_deadline(self._server_limit_s)
            self.pending = _from_server("is being preempted, nothing was started")
            self._acknowledged = True
            raise self.pending
        self._threads.append(Background("metadata server", lambda: self._watch(server, tag)))
        self._threads[-1].start()

    def agree_on_notice(self, agree: Callable[[int], int]) -> PreemptionError | None:
        """Return the notice that all ranks obey at the same step; `agree` returns the maximum over all ranks.

        Raises a `JobError` if notices are no longer seen, or no longer have a deadline.
        """
        for thread in self._threads:
            thread.check()
        level = agree(self._urgency)
        if level == 0:
            return None
        if level == PAUSE:
            self.pending = self._pause or PauseError("another process of this training was asked to pause")
        elif self.pending is None:
            self.pending = PreemptionError("another process of this training was asked to stop", "preempted")
        self.pending.from_server = level == FROM_SERVER
        self.pending.on_all_ranks = True
        return self.acknowledge()

    def acknowledge(self) -> PreemptionError | None:
        """Return the notice, if there is one, for a caller that ends by it; it interrupts nothing from here on."""
        self._acknowledged = self.pending is not None
        return self.pending

    @property
    def left_s(self) -> float:
        """Seconds until the deadline of a notice; infinite without one."""
        return self._deadline - time.monotonic()

    @property
    def _urgency(self) -> int:
        if self.pending is not None:
            return FROM_SERVER if self.pending.from_server else STOP
        return PAUSE if self._pause is not None else 0

    def pause(self, notice: PauseError) -> None:
        """Ask for a pause, from any thread. It interrupts nothing; `agree_on_notice` returns it at the next step."""
        self._pause = notice

    def interruptible(self) -> AbstractContextManager[None]:
        """Let notices interrupt a block within one under `deferred`: it may raise `PreemptionError` anywhere."""
        return self.deferred(on=False)

    @contextmanager
    def deferred(self, *, on: bool = True) -> Iterator[None]:
        """Keep notices from interrupting the block, which polls `pending` instead; or no longer."""
        before, self._deferred = self._deferred, on
        try:
            self._interrupt()
            yield
        finally:
            self._deferred = before

    def wait_for_termination(self) -> None:
        """Wait for the VM's end after a notice of the metadata server; return on a signal or after a limit."""
        if self.pending is None or not self.pending.from_server:
            return
        if self._number is None:
            self._deadline = math.inf  # everything is committed
        log.info("checkpoint committed; waiting for the VM to be terminated")
        until = time.monotonic() + self._termination_wait_s
        while self._number is None and time.monotonic() < until:
            time.sleep(POLL_S)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._take_note(number)
        self._interrupt()

    def _take_note(self, number: int) -> None:
        """Set deadline and notice of a signal."""
        self._number = self._number or number
        self._set_deadline(self._limits_s[number])
        self.pending = self.pending or _from_signal(number)

    def _set_deadline(self, limit_s: float) -> None:
        """Set the deadline; the earliest one holds."""
        until = time.monotonic() + limit_s
        if until < self._deadline:
            self._deadline, self._limit_s = until, limit_s

    def _interrupt(self) -> None:
        if self.pending is not None and not self._deferred and not self._acknowledged:
            self._acknowledged = True  # a second one, or the machine's end, does not interrupt the answer to the first
            raise self.pending

    def _guard(self) -> None:
        """Exit at the deadline, or by a second Ctrl-C, even if the main thread is in a library's call."""
        noticed, pressed_at = False, -math.inf
        while not self._closed.wait(POLL_S):
            for number in self._arrived_signals():
                now = time.monotonic()
                if number == signal.SIGINT:  # make, timeout, shells and service managers send others twice for once
                    if noticed and now - pressed_at >= ONE_PRESS_S:
                        _leave(self._log_second_press, FINAL_RECORD_S)
                    pressed_at = now
                noticed = True
                self._take_note(number)
            if time.monotonic() >= self._deadline:
                _leave(self._log_deadline, FINAL_LOG_S)

    def _arrived_signals(self) -> list[int]:
        """Return the notices that have arrived since the last call, handled by the main thread or not."""
        with contextlib.suppress(BlockingIOError):
            return [number for number in os.read(self._arrived, MOST_SIGNALS) if number in self._previous]
        return []

    def _log_second_press(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            text = "Ctrl-C again: leaving at once; the last committed checkpoint stands\n"
            os.write(2, (CLEARED * os.isatty(2) + text).encode())
        self._record(self.describe_uncommitted())

    def _log_deadline(self) -> None:
        lost = self.describe_uncommitted()
        log.error(
            "%s; did not finish within %.0f s, leaving: %s; the same command resumes there",
            *(self.pending, self._limit_s, lost or "the last committed checkpoint stands"),
            extra={"exit_code": PreemptionError.exit_code},
        )
        self._record(lost)

    def _record(self, lost: str) -> None:
        """Record the end by the notice, and what is not committed."""
        if self.pending is not None:
            self.pending.not_committed = self.pending.not_committed or lost
            self.on_deadline(self.pending)

    def _watch(self, server: MetadataServer, tag: str) -> None:
        while not self._closed.is_set():
            asked = time.monotonic()
            try:
                preempted, tag = server.wait(tag)
            except MetadataError:
                preempted = False
            if preempted:
                self._set_deadline(self._server_limit_s)
                self.pending = self.pending or _from_server("is being preempted")
                os.kill(os.getpid(), WAKE)
                return
            self._closed.wait(max(0.0, asked + 0.5 - time.monotonic()))  # at most two requests a second


def _leave(say: Callable[[], None], within_s: float) -> NoReturn:
    """Exit after some last words, or without them, as writing may block."""
    words = threading.Thread(target=say, daemon=True)
    words.start()
    words.join(within_s)
    os._exit(PreemptionError.exit_code)


def _from_signal(number: int) -> PreemptionError:
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    by_a_person = number in {signal.SIGINT, signal.SIGHUP}
    return PreemptionError(f"{name}: asked to stop", "interrupted" if by_a_person else "preempted")


def _from_server(what: str) -> PreemptionError:
    return PreemptionError(f"metadata server: this machine {what}", "preempted", from_server=True)
