"""`verify-resume` kills for real, or gives no verdict."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import TrainingError
from job.runs import checkpoint
from job.runs.records import CheckpointId
from job.runs.run import Run
from job.session import verify_resume as module
from job.session.verify_resume import KILLED, Piece, train_straight, verify_resume
from job.storage.local import FolderStore
from tests.support.attempt_records import final_content
from tests.support.cli_process import ROOT, SOON_S, surroundings, wait_until

QUICK = """
import json, os, sys
with open(os.environ["JOB_TRACE"], "a") as trace:
    for batch in range(1, 4):
        trace.write(json.dumps({"epoch": 1, "batch": batch, "images": "", "losses": {}}) + "\\n")
"""
"""A training of three steps that is over at once, and leaves nothing behind."""


@pytest.fixture
def piece(tmp_path):
    """A piece whose training cannot be killed before its end."""
    program = tmp_path / "quick.py"
    program.write_text(QUICK)
    return Piece(FolderStore.create(str(tmp_path / "bucket")), (), tmp_path, (sys.executable, str(program)))


def test_a_training_that_ended_before_its_kills_proves_nothing(piece, monkeypatch):
    """Where the kills come after the end in each of three tries, there is no verdict, and a message with what to do."""
    train_straight(piece)
    killed = []
    monkeypatch.setattr(module, "_train_with_kills", lambda _piece, name, *_: killed.append(name) or [len(killed)])
    monkeypatch.setattr(module, "_resumed_at", lambda _run: ("0001-000000.a0001",))
    with pytest.raises(TrainingError, match=r"killed 1 of 2 times before its end .* --seconds, or pass fewer --kills"):
        verify_resume(piece, num_kills=2, seed=1)
    assert killed == [KILLED, "killed2", "killed3"]


def test_a_verdict_needs_a_resumption(piece, monkeypatch):
    """Kills after which the training began again prove nothing about resuming."""
    train_straight(piece)
    monkeypatch.setattr(module, "_train_with_kills", lambda *_: [0, 0])
    with pytest.raises(TrainingError, match="killed 2 of 2 times before its end and resumed 0 times"):
        verify_resume(piece, num_kills=2, seed=1)


class Early:
    """Chance that always says the beginning."""

    def random(self):
        return 0.0

    def uniform(self, _low, _high):
        return 0.0


PATIENT = """
import sys, time
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.fake_trainer import commit
words = dict(zip(sys.argv, sys.argv[1:]))
commit(Run(open_store(words["--bucket"]), words["--run"]), 0, 0, 1)
time.sleep(1000)
"""
"""A training that commits a checkpoint, and stays."""


@pytest.fixture
def patient(piece, monkeypatch):
    """A piece whose training stays until it is killed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Piece(piece.store, (), piece.folder, (sys.executable, "-c", PATIENT))


def test_a_kill_before_the_end_counts(patient, monkeypatch):
    """Each process that SIGKILL ended before the run did is a kill."""
    monkeypatch.setattr(module, "train_straight", lambda *_: None)
    assert module._train_with_kills(patient, KILLED, 3, 0, Early()) == [0, 0, 0]


def test_no_kill_comes_before_the_first_checkpoint(patient, monkeypatch):
    """Where chance says to kill at once, there is something to resume from all the same."""
    monkeypatch.setattr(module, "train_straight", lambda *_: None)
    module._train_with_kills(patient, KILLED, 1, 0, Early())
    assert checkpoint.committed(Run(patient.store, KILLED)) == [CheckpointId(0, 0, 1)]


def test_a_kill_after_the_end_is_none(patient, monkeypatch):
    """A process that is killed while it writes its last report, with its run finished, was not killed in training."""
    monkeypatch.setattr(module, "train_straight", lambda *_: None)
    Run(patient.store, KILLED).finish(final_content())
    assert module._train_with_kills(patient, KILLED, 3, 0, Early()) == []


def test_an_interrupted_verification_leaves_no_training(patient, monkeypatch):
    """Ctrl-C while a kill is awaited ends the training, whose process group it does not reach."""
    started = []
    start = Piece.start
    monkeypatch.setattr(Piece, "start", lambda self, name: started.append(start(self, name)) or started[0])

    class Interrupted(Early):
        def uniform(self, _low, _high):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module._train_with_kills(patient, KILLED, 1, 0, Interrupted())
    assert started[0].wait(SOON_S) == -signal.SIGKILL


WAITING = """
import os, sys, time
from pathlib import Path
Path(os.environ["JOB_TRACE"]).with_name("began").write_text(str(os.getpid()))
time.sleep(1000)
"""
"""A training that stays, and says which process it is."""

VERIFYING = """
import signal, sys
from pathlib import Path
from job.cli import verify_resume as command
from job.cli.app import main
from job.session.verify_resume import Piece, train_straight
from job.storage.local import FolderStore

def train_for(*_):
    return train_straight(Piece(FolderStore.create(folder), (), Path(folder), (sys.executable, "-c", waiting)))

waiting, folder = sys.argv[1:]
signal.signal(signal.SIGHUP, signal.SIG_DFL)
command.train_for, command._data = train_for, lambda *_: None
sys.exit(main(["verify-resume", "--workdir", folder]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_verification_that_is_asked_to_stop_leaves_no_training(tmp_path, number):
    """A signal to the command alone ends the training as well, and it says that it was asked to stop."""
    began = tmp_path / "began"
    command = [sys.executable, "-c", VERIFYING, WAITING, str(tmp_path)]
    with subprocess.Popen(command, env=surroundings({}), stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: began.exists() and began.read_text(), process)
        process.send_signal(number)
        said = process.communicate(timeout=SOON_S)[1]
    assert (process.returncode, "asked to stop" in said) == (75, True), said
    wait_until(lambda: has_ended(int(began.read_text())))
    assert list(tmp_path.glob("verify-resume-*")) == []


def has_ended(number):
    """Whether there is no such process any more, but perhaps its exit code."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def test_a_process_that_ended_by_itself_was_not_killed(piece, monkeypatch):
    """A process that ends before its kill does not count, and ends the try."""
    started = []
    start = Piece.start

    def start_and_wait(self, name):
        process = start(self, name)
        process.wait()
        started.append(name)
        return process

    monkeypatch.setattr(Piece, "start", start_and_wait)
    assert module._train_with_kills(piece, KILLED, 3, 3, Early()) == []
    assert started == [KILLED]


def test_a_straight_training_that_fails_is_told_with_its_exit_code(piece):
    """There is nothing to compare with, and the end of its log says why."""
    (piece.folder / "quick.py").write_text("import sys\nprint('no memory')\nsys.exit(70)\n")
    with pytest.raises(TrainingError, match="the straight training ended with exit code 70") as raised:
        train_straight(piece)
    assert raised.value.problems == ("no memory",)


def test_a_training_that_fails_for_good_before_its_kill_is_told(piece, monkeypatch):
    """A fatal end is no end of the training, and no try follows it."""
    (piece.folder / "quick.py").write_text("import sys\nsys.exit(65)\n")
    start = Piece.start

    def start_and_wait(self, name):
        process = start(self, name)
        process.wait()
        return process

    monkeypatch.setattr(Piece, "start", start_and_wait)
    with pytest.raises(TrainingError, match="the killed training ended with exit code 65"):
        module._train_with_kills(piece, KILLED, 3, 3, Early())
