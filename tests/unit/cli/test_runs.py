"""`job runs list` and `job runs show`: the state of each run."""

import pytest

from job.cli.app import main
from job.runs.run import Claim
from tests.support.run_records import record_run


def ended(reason, message=""):
    """Return what ends an attempt."""
    return {"reason": reason, "exit_code": 70, "message": message, "position": {"epoch": 2, "batch": 0}, "seconds": {}}


LOST = ended("preempted", "SIGTERM: asked to stop; epoch 3 is not committed, StoreError: no permission")
LOST["not_committed"] = "epoch 3 is not committed, StoreError: no permission"


def stand(run, *, end=None, alive=False, stop=False):
    """Let the newest attempt of a run end, live, or be asked to stop."""
    if end is not None:
        Claim(run, 2).end(end["reason"], {name: value for name, value in end.items() if name != "reason"})
    if alive:
        Claim(run, 2).heartbeat(
            run.attempt(2).heartbeat.model_dump(mode="json", include={"position", "seconds", "last_committed"})
        )
    if stop:
        Claim(run, 2).ask_to_stop("here")


@pytest.mark.parametrize(
    ("how", "state"),
    [
        ({"alive": True}, "running, epoch 2 of 80, attempt 2"),
        ({"alive": True, "stop": True}, "running, asked to stop, epoch 2 of 80, attempt 2"),
        ({}, "cut off, epoch 2 of 80, attempt 2"),
        ({"end": ended("failed", "the loss is not a number")}, "failed, epoch 2 of 80, attempt 2"),
        ({"end": ended("paused")}, "paused, epoch 2 of 80, attempt 2"),
        ({"end": ended("preempted")}, "preempted, epoch 2 of 80, attempt 2"),
        ({"end": LOST}, "preempted, epoch 2 of 80, attempt 2"),
        ({"end": ended("interrupted")}, "interrupted, epoch 2 of 80, attempt 2"),
        ({"end": ended("transient", "the bucket is away")}, "transient, epoch 2 of 80, attempt 2"),
    ],
)
def test_the_list_shows_the_state_of_each_run(tmp_path, capsys, how, state):
    """A run that runs, one that was cut off, one that failed and one that is paused are distinct, in list and detail;
    the reason of a failure, and what a preempted run did not commit, are shown there.
    """
    run = record_run(tmp_path / "bucket", (0.5, 0.6), finished=False, asked=80)
    stand(run, **how)
    assert main(["runs", "list", "--bucket", str(tmp_path / "bucket")]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert [part.strip() for part in line.split("  ") if part.strip()] == ["zebra", "A", "full", state]
    assert main(["runs", "show", "zebra", "--bucket", str(tmp_path / "bucket")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"run zebra, {state}" in shown
    assert how.get("end", {}).get("message", "") in shown


def test_a_finished_run_says_how_it_ended(tmp_path, capsys):
    """Its epochs and F1 before and after are in the list."""
    record_run(tmp_path / "bucket", (0.62, 0.66))
    assert main(["runs", "list", "--bucket", str(tmp_path / "bucket")]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert [part.strip() for part in line.split("  ") if part.strip()] == [
        *("zebra", "A", "full", "complete, 2 epochs", "58.0%", "66.0%")
    ]
