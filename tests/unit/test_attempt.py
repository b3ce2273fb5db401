"""Why an attempt ended, as its record says it and a supervisor reads it."""

import pytest

from job import attempt
from job.errors import (
    BackgroundError,
    DataError,
    HangError,
    MachineError,
    NotCommittedError,
    PauseError,
    PeerError,
    PreemptionError,
    StoreError,
    SupersededError,
    TrainingError,
    TransientStoreError,
)
from job.ledger import Ledger
from job.run import Run
from job.store.folder import FolderStore
from job.watchdog import Watchdog
from tests.support.faulty_store import FaultyStore


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


def ended_by(error, store):
    """Return the end record of an attempt that an error ended."""
    run = Run(store, "zebra")
    run.claim({})
    with (
        pytest.raises(type(error)),
        attempt.recorded(run, 1, Ledger(), lambda: {"position": {"epoch": 2, "batch": 3}}, Watchdog(0)),
    ):
        raise error
    return run.attempt(1)["end"]


@pytest.mark.parametrize(
    ("error", "reason", "exit_code"),
    [
        (PreemptionError("SIGTERM", "preempted"), "preempted", 75),
        (PreemptionError("Ctrl-C", "interrupted"), "interrupted", 75),
        (PauseError("asked"), "paused", 0),
        (SupersededError("a later attempt"), "superseded", 75),
        (TransientStoreError("away"), "transient", 75),
        (PeerError("gone"), "transient", 75),
        (BackgroundError("a thread"), "failed", 75),
        (NotCommittedError("its end"), "failed", 75),
        (HangError("no step"), "failed", 75),
        (TrainingError("not a number"), "failed", 70),
        (StoreError("no permission"), "failed", 74),
        (DataError("broken"), "failed", 65),
        (MachineError("full"), "failed", 78),
        (ZeroDivisionError("a defect"), "failed", 1),
        (KeyboardInterrupt(), "failed", 1),
    ],
    ids=repr,
)
def test_an_end_has_its_reason_and_exit_code(store, error, reason, exit_code):
    """States never mix: taken, asked by a person, paused, overtaken, passing, or failed; and where it stood is said."""
    end = ended_by(error, store)
    assert (end["reason"], end["exit_code"]) == (reason, exit_code)
    assert end["position"] == {"epoch": 2, "batch": 3}


def test_a_hang_is_recorded_from_outside(store):
    """The thread that hangs cannot record the end of its attempt, so the watchdog does, in the same way."""
    run = Run(store, "zebra")
    run.claim({})
    watchdog = Watchdog(0)
    with attempt.recorded(run, 1, Ledger(), lambda: {"position": {"epoch": 2, "batch": 3}}, watchdog):
        watchdog.on_hang(HangError("training: no step was done for 1800 s"))
    end = run.attempt(1)["end"]
    assert (end["reason"], end["exit_code"], end["position"]) == ("failed", 75, {"epoch": 2, "batch": 3})
    assert end["message"] == "training: no step was done for 1800 s"


def test_an_end_that_cannot_be_recorded_hides_nothing(store):
    """The error that ended the attempt is the one that is raised, though the bucket refuses its record."""
    Run(store, "zebra").claim({})
    refusing = Run(FaultyStore(store, survives=0, error=StoreError("no permission")), "zebra")
    with (
        pytest.raises(TrainingError, match="not a number"),
        attempt.recorded(refusing, 1, Ledger(), dict, Watchdog(0)),
    ):
        raise TrainingError("the loss is not a number")
