"""`job runs list` and `job runs show`: the state of each run."""

import json
import os
import re
import subprocess
import sys

import pytest

from job.cli.app import main
from job.runs.run import Claim
from job.text import as_found
from tests.support.cli_process import TIMEOUT_S, wait_until
from tests.support.run_records import at, record_run
from tests.support.terminal import Terminal


def ended(reason, message=""):
    """Return what ends an attempt."""
    place = {"epoch": 2, "batch": 0}
    return {"reason": reason, "exit_code": 70, "message": message, "position": place, "best_f1": 0.634, "seconds": {}}


LOST = ended("preempted", "SIGTERM: asked to stop; epoch 3 is not committed, StoreError: no permission")
LOST["not_committed"] = "epoch 3 is not committed, StoreError: no permission"


def stand(run, *, end=None, alive=False, stop=False):
    """Let the newest attempt of a run end, live, or be asked to stop."""
    if end is not None:
        Claim(run, 2).end(end["reason"], {name: value for name, value in end.items() if name != "reason"})
    if alive:
        fields = {"position", "best_f1", "seconds", "last_committed"}
        Claim(run, 2).heartbeat(run.attempt(2).heartbeat.model_dump(mode="json", include=fields))
    if stop:
        Claim(run, 2).ask_to_stop("here")


def listed(capsys, bucket, *words):
    """Return what `job runs list` prints."""
    assert main(["runs", "list", "--bucket", str(bucket), *words]) == 0
    return capsys.readouterr().out


def without_ages(text):
    """Return the words of a list, without the time that passes while it is printed."""
    return re.sub(r"\d+ (s|min|h|days) ago", "AGO", " ".join(text.split()))


@pytest.mark.parametrize(
    ("how", "state", "resumable"),
    [
        ({"alive": True}, "running", False),
        ({"alive": True, "stop": True}, "running, asked to stop", False),
        ({}, "cut off", True),
        ({"end": ended("failed", "the loss is not a number")}, "failed", True),
        ({"end": ended("paused")}, "paused", True),
        ({"end": ended("preempted")}, "preempted", True),
        ({"end": LOST}, "preempted", True),
        ({"end": ended("interrupted")}, "interrupted", True),
        ({"end": ended("transient", "the bucket is away")}, "transient", True),
    ],
)
def test_the_list_shows_the_state_of_each_run(tmp_path, capsys, how, state, resumable):
    """A run that runs, one that was cut off, one that failed and one that is paused are distinct, in list and detail;
    those that do not run have the command that continues them; the detail has the reason of a failure, and what a
    preempted run did not commit.
    """
    run = record_run(tmp_path / "bucket", (0.5, 0.6), finished=False, asked=80)
    stand(run, **how)
    _, line, *commands = listed(capsys, tmp_path / "bucket").splitlines()
    f1 = "63.4%" if "end" in how else "61.2%"  # as of the end, or of the last heartbeat
    assert without_ages(line) == f"{state} 2/80 {f1} AGO A zebra"
    assert commands == ["  " + as_found(f"job resume zebra --bucket {tmp_path}/bucket")] * resumable
    assert main(["runs", "show", "zebra", "--bucket", str(tmp_path / "bucket")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"run zebra, {state}, epoch 2 of 80, attempt 2" in shown
    assert how.get("end", {}).get("message", "") in shown


def test_a_finished_run_says_how_it_ended(tmp_path, capsys):
    """Its epochs and the F1 of its best weights are in the list, and no command."""
    record_run(tmp_path / "bucket", (0.62, 0.66), asked=3)
    _, line = listed(capsys, tmp_path / "bucket").splitlines()
    assert without_ages(line) == "complete 2/3 66.0% AGO A zebra"


def test_the_list_is_data_for_programs(tmp_path, capsys):
    """`--json` has the same and more: both F1, the time of the last sign of life, and folders that are no runs."""
    record_run(tmp_path / "bucket", (0.62, 0.66))
    cut_off = record_run(tmp_path / "bucket", (0.5, 0.6), finished=False, asked=80, name="gnu")
    cut_off.store.put("runs/other/notes.txt", b"")
    content = json.loads(listed(capsys, tmp_path / "bucket", "--json"))
    assert content["strays"] == {"other": "is not a run, it has no run.json"}
    gnu, zebra = content["runs"]
    assert (zebra["state"], zebra["before_f1"], zebra["best_f1"], zebra["command"]) == ("complete", 0.58, 0.66, None)
    assert (gnu["state"], gnu["epoch"], gnu["num_epochs"], gnu["last_sign_at"]) == ("cut off", 2, 80, at(340))
    assert gnu["command"] == f"job resume gnu --bucket {tmp_path}/bucket"


def test_the_list_fits_a_terminal_and_is_whole_in_a_pipe(tmp_path_factory):
    """On a terminal no line exceeds 80 columns, and a command that is continued there is the same; in a pipe each run
    is one line that ends with its name.
    """
    name, bucket = f"yolov11_{'savanna' * 6}", tmp_path_factory.mktemp("b") / "bucket"
    stand(record_run(bucket, (0.5, 0.6), finished=False, asked=100, name=name), end=ended("interrupted"))
    record_run(bucket, (0.5, 0.6))
    words = [sys.executable, "-m", "job", "runs", "list", "--bucket", str(bucket)]
    piped = subprocess.run(words, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout
    _, row, command, short = piped.splitlines()
    assert (row.split()[-1], short.split()[-1]) == (name, "zebra")
    assert command == "  " + as_found(f"job resume {name} --bucket {bucket}")
    terminal = Terminal(words, dict(os.environ))
    wait_until(lambda: terminal.text().endswith("zebra\r\n"))
    assert terminal.process.wait(TIMEOUT_S) == 0
    terminal.close()
    assert max(map(len, terminal.text().splitlines())) <= 80
    copied = terminal.text().replace("\\\r\n", " ")
    assert without_ages(copied) == without_ages(piped)
