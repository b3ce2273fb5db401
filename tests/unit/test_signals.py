"""Processes beside the trainer never get a notice, and the trainer always does."""

import signal
import subprocess
import threading

import pytest

from job.signals import NOTICES, left_to_the_trainer
from tests.support.signal_mask import hears_no_notice


def test_what_a_notice_is():
    """A terminal, a service manager and a window that is closed give notice."""
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} == NOTICES


def test_a_process_that_is_started_inside_hears_no_notice():
    """From its first instant on, and for ever: fork and exec hand the mask on; what is started afterwards hears all."""
    with left_to_the_trainer():
        deaf = subprocess.Popen(["sleep", "1000"])
    hearing = subprocess.Popen(["sleep", "1000"])
    try:
        assert hears_no_notice(deaf.pid)
        assert not hears_no_notice(hearing.pid)
        for number in NOTICES:
            deaf.send_signal(number)
        hearing.terminate()
        assert hearing.wait(30) == -signal.SIGTERM
        assert deaf.poll() is None
    finally:
        deaf.kill()
        deaf.wait()


def test_a_notice_that_comes_meanwhile_arrives_at_the_end():
    """Nothing that is sent to the trainer is lost while it starts a process."""
    with pytest.raises(KeyboardInterrupt), left_to_the_trainer():
        signal.raise_signal(signal.SIGINT)  # to this thread: any other one would take what is sent to the process
        assert signal.sigpending() == {signal.SIGINT}
    assert threading.current_thread() is threading.main_thread()


def test_what_was_blocked_before_stays_blocked():
    """A process that is started inside of another start does not open the trainer to notices too early."""
    with left_to_the_trainer():
        with left_to_the_trainer():
            pass
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= NOTICES
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & NOTICES
