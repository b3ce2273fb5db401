"""Processes beside the trainer never get a notice, and the trainer always does."""

import os
import signal
import subprocess
import threading

import pytest

from job.training.signals import NOTICES, notices_blocked
from tests.support.cli_process import JOB, ROOT, SOON_S, surroundings
from tests.support.signal_mask import blocks_notices


def test_what_a_notice_is():
    """A terminal, a service manager and a window that is closed give notice."""
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} == NOTICES


def test_a_process_that_is_started_inside_blocks_notices():
    """It blocks them for ever: fork and exec hand the mask on; processes that start afterwards do not."""
    with notices_blocked():
        deaf = subprocess.Popen(["sleep", "1000"])
    hearing = subprocess.Popen(["sleep", "1000"])
    try:
        assert blocks_notices(deaf.pid)
        assert not blocks_notices(hearing.pid)
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
    with pytest.raises(KeyboardInterrupt), notices_blocked():
        signal.raise_signal(signal.SIGINT)  # to this thread: any other one would take what is sent to the process
        assert signal.sigpending() == {signal.SIGINT}
    assert threading.current_thread() is threading.main_thread()


def test_what_was_blocked_before_stays_blocked():
    """A process that is started inside of another start does not open the trainer to notices too early."""
    with notices_blocked():
        with notices_blocked():
            pass
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= NOTICES
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & NOTICES


HELD = "import threading; print('ready', flush=True); threading.Event().wait()"
"""A module whose import does not end."""


@pytest.fixture
def held_at(tmp_path):
    """A function that starts a command which stays at the import of a module."""

    def start(module, *words, ignored=False):
        (tmp_path / f"{module}.py").write_text(HELD)
        return subprocess.Popen(
            [*(["nohup"] if ignored else []), *JOB, *words],
            env=surroundings({"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize("module", ["fire", "yaml"])
@pytest.mark.parametrize("number", sorted(NOTICES))
def test_a_training_that_is_not_there_yet_answers_a_notice(held_at, number, module):
    """While it loads the command line, or what a training needs, nothing is at stake: exit 75 and no traceback."""
    with held_at(module, "train", "--recipe", "base") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 75
    assert said == f"{number.name}: asked to stop, nothing is lost; the same command resumes\n"


def test_a_terminal_that_closes_is_no_notice_under_nohup(held_at):
    """A signal that was ignored when the process began stays ignored."""
    with held_at("fire", "train", ignored=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 75
    assert "SIGHUP" not in said


def test_a_command_that_trains_nothing_ends_by_its_signal(held_at):
    """A shell sees of any other command that it was ended from outside, as of any program."""
    with held_at("fire", "recipes", "list") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SOON_S)
    assert process.returncode == -signal.SIGTERM
