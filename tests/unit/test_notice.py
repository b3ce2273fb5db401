"""Notices: where they come from, what they interrupt, and how a process leaves."""

import os
import signal
import threading
import time

import pytest

from job.errors import PauseError, PreemptionError
from job.notice import Notices
from tests.support.metadata_server import running_metadata_server

REASONS = [(signal.SIGTERM, "preempted"), (signal.SIGINT, "interrupted")]


@pytest.fixture
def server(monkeypatch):
    """A metadata server that this process takes for its machine's."""
    with running_metadata_server() as fake:
        monkeypatch.setenv("GCE_METADATA_HOST", fake.url)
        yield fake


@pytest.mark.parametrize(("number", "reason"), REASONS)
def test_a_signal_interrupts(number, reason):
    """A signal raises out of whatever is under way, and says whether a person sent it."""
    with pytest.raises(PreemptionError) as raised, Notices():
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert (raised.value.reason, raised.value.from_server) == (reason, False)


def test_what_is_left_alone_asks_by_itself():
    """Inside, a signal only shows as pending; a part that is interruptible again is ended at its beginning."""
    with Notices() as notices, notices.left_alone():
        os.kill(os.getpid(), signal.SIGTERM)
        assert notices.pending is not None
        entered = False
        with pytest.raises(PreemptionError), notices.interruptible():
            entered = True
        assert not entered


def test_it_is_not_swallowed_by_who_catches_failures():
    """Code that catches every `Exception` does not catch a notice."""
    with pytest.raises(PreemptionError), Notices():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception as error:
            raise AssertionError("swallowed") from error


def test_the_metadata_server_interrupts(server):
    """A change on the metadata server ends a wait in the main thread."""
    with pytest.raises(PreemptionError) as raised, Notices() as notices:
        notices.watch()
        assert server.waiting.wait(30)
        server.preempt()
        threading.Event().wait(60)
    assert raised.value.from_server


def test_a_machine_that_is_doomed_does_not_start(server):
    """A process that starts after the notice ends before it did anything."""
    server.preempt()
    with pytest.raises(PreemptionError, match="nothing was started"), Notices() as notices:
        notices.watch()


def test_a_server_that_does_not_answer_costs_nothing(monkeypatch, caplog):
    """Without an answer the process goes on and says that notices may not be seen."""
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    with Notices() as notices:
        notices.watch()
    assert "cannot be reached" in caplog.text


def test_it_stays_after_a_notice_of_the_server_and_leaves_after_a_signal(server):
    """After the server's notice the process waits to be killed, at longest the cap; a signal ends the wait."""
    with pytest.raises(PreemptionError), Notices(stay_s=3600) as notices:
        notices.watch()
        try:
            server.preempt()
            threading.Event().wait(60)
        except PreemptionError:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
            notices.stay()  # hangs if the signal does not end it
            raise


def test_after_the_longest_wait_it_leaves(server):
    """A machine that is not ended after all gets its process back."""
    with pytest.raises(PreemptionError), Notices(stay_s=0.01) as notices:
        notices.watch()
        try:
            server.preempt()
            threading.Event().wait(60)
        except PreemptionError:
            notices.stay()
            raise


def test_handlers_are_put_back():
    """Afterwards signals do what they did before."""
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with Notices():
        assert signal.getsignal(signal.SIGTERM) != handlers[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == handlers


def test_a_pause_interrupts_nothing_and_is_obeyed_when_all_agree():
    """A pause waits until the processes that train together agree on it, and leads to exit 0."""
    with Notices() as notices:
        notices.pause(PauseError("asked"))
        with notices.interruptible():
            time.sleep(0)
        assert notices.pending is None
        notice = notices.agreed(lambda level: level)
    assert (notice.reason, notice.exit_code, notice.agreed) == ("paused", 0, True)


def test_all_processes_pause_together():
    """A process that hears of the pause from another one ends as paused as well."""
    with Notices() as one, Notices() as other:
        one.pause(PauseError("asked"))
        levels = []
        one.agreed(lambda level: levels.append(level) or level)
        notice = other.agreed(lambda level: max(level, *levels))
    assert (type(notice), notice.exit_code) == (PauseError, 0)


def test_a_machine_that_goes_is_more_urgent_than_a_pause():
    """Whoever is preempted while a pause is asked for ends as preempted: the next attempt answers the request."""
    with Notices() as notices, notices.left_alone():
        notices.pause(PauseError("asked"))
        os.kill(os.getpid(), signal.SIGTERM)
        notice = notices.agreed(lambda level: level)
    assert (notice.reason, notice.exit_code) == ("preempted", 75)
