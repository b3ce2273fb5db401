"""A stub of `job train` in the container: the same records and exit codes, without training.

What each attempt does is read from ``PRETEND``, a JSON list with one list of steps for each attempt of the run; the
last one holds for all later attempts. A step is one of

    claim                   nothing; what comes next comes after the claim
    commit E B              a checkpoint after E epochs and B batches
    hold                    wait to be killed, and show it
    finish                  write final.json and exit 0
    success                 exit 0 without final.json
    exit CODE               exit without an end record, as a crash of the interpreter
    end REASON CODE E B MESSAGE     write an end record and exit
"""

import json
import os
import shlex
import sys
import tempfile
import threading
from pathlib import Path

from job.runs import checkpoint
from job.runs.records import CheckpointId, RunRecord, now
from job.runs.run import Claim, Run
from job.storage.open_store import open_store
from tests.support.attempt_records import final_content
from tests.support.bucket_records import FACTS
from tests.support.fake_vm import HELD

NUM_EPOCHS = 10


def main() -> int:
    """Do what the attempt is to do."""
    flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[2:])
    run = Run(open_store(flags["bucket"]), flags["run"])
    script = json.loads(os.environ["PRETEND"])
    first = script[min(len(run.attempt_numbers()), len(script) - 1)]
    if first and first[0].startswith("exit"):
        return int(first[0].split()[1])  # before the run is claimed
    if run.record() is None:
        run.create(record(run.name))
    claim = run.claim({"host": "machine", "machine": "a machine", "cloud_job": os.environ["JOB_CLOUD_JOB"]})
    for step in script[min(claim.attempt, len(script)) - 1]:
        word, *values = shlex.split(step)
        if word == "commit":
            commit(run, int(values[0]), int(values[1]), claim.attempt)
        elif word == "hold":
            Path(HELD).touch()
            threading.Event().wait()
        elif word == "finish":
            run.finish(final_content(attempt=claim.attempt, num_epochs=NUM_EPOCHS))
            return 0
        elif word == "success":
            return 0
        elif word == "exit":
            os._exit(int(values[0]))
        elif word == "end":
            reason, code, epoch, batch, message = values
            end(claim, reason, int(code), (int(epoch), int(batch)), message)
            return int(code)
    return 0


def record(name: str) -> RunRecord:
    """Return a record with what is read of it."""
    asked = {"dataset": "tiny", "start": "own best.pt", "model": None, "new_classes": False, "quarantine": False}
    request = {"recipe": "A", "profile": "full", "train": {"epochs": NUM_EPOCHS}, **asked}
    return RunRecord(
        run=name,
        created_at=now(),
        request=request,
        recipe_digest="",
        expect={},
        start={"point": {"kind": "own", "source": "best.pt", "architecture": None}},
        dataset={"name": "tiny", "digest": "", "set_aside": []},
        facts=FACTS,
        environment={},
        wandb_id="",
    )


def commit(run: Run, epoch: int, batch: int, attempt: int) -> None:
    """Commit a checkpoint with a file in it."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state.pt"
        state.write_text(f"{epoch} {batch} {attempt}")
        checkpoint.commit(run, CheckpointId(epoch, batch, attempt), [state], {}, None)


def end(claim: Claim, reason: str, code: int, position: tuple[int, int], message: str) -> None:
    """Write the record of an attempt's end."""
    about = {
        "exit_code": code,
        "message": message,
        "position": {"epoch": position[0], "batch": position[1]},
        "seconds": {},
    }
    claim.end(reason, about)


if __name__ == "__main__":
    sys.exit(main())
