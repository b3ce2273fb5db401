"""A run is finished only if its last commit is; failures end with a message and a record."""

import signal
import threading
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

from job.cli.app import main
from job.errors import NotCommittedError
from job.runs import checkpoint
from job.runs.records import CheckpointId
from job.runs.run import Claim, Run
from job.session.attempt import finish
from job.storage.open_store import open_store
from tests.support.bucket import make_bucket
from tests.support.cli_process import SOON_S, TIMEOUT_S, job, kill, messages, start_job, wait_until
from tests.support.fault_proxy import running_proxy
from tests.support.run_records import record_run
from tests.support.tiny_dataset import make_tiny_dataset

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "32", "--batch", "4"),
    *("--plots", "false", "--workers", "0", "--checkpoint-every", "0", "--run", "zebra"),
)
"""Two epochs of three batches."""


@pytest.fixture
def data(tmp_path):
    """A tiny dataset on disk."""
    return make_tiny_dataset(tmp_path / "tiny", num_train=12, num_val=4)


def test_a_run_whose_commits_fail_is_not_finished(data, tmp_path):
    """After an unexpected exception in the committer the run ends with 75 and the reason, and is not finished; the same
    command resumes from the last checkpoint, and finishes it.
    """
    bucket = make_bucket(data, tmp_path / "bucket")
    broken = start_job(*TRAIN, "--bucket", bucket, at="manifest:2:break")
    said = broken.communicate(timeout=TIMEOUT_S)[1]
    assert broken.returncode == 75, said
    assert "committer: failed, KeyError: 'an unexpected answer' (fault_point_cli.py:" in said
    run = Run(open_store(bucket), "zebra")
    assert run.final() is None
    end = run.attempt(1).end
    assert (end.reason, end.exit_code) == ("failed", 75)  # so that a supervisor counts it
    assert [(found.epoch, found.batch) for found in checkpoint.committed(run)] == [(1, 0)]
    again = job(*TRAIN, "--bucket", bucket)
    assert again.returncode == 0, again.stderr
    assert checkpoint.missing_end(run, 2) == ""
    assert main(["runs", "verify", "zebra", "--bucket", bucket]) == 0


def test_a_defect_in_training_costs_no_checkpoint(data, tmp_path):
    """An unexpected exception in a training step ends the attempt as failed, with exit code 1 and one message; record
    and log hold the traceback, and the same command resumes from the last commit.
    """
    bucket = make_bucket(data, tmp_path / "bucket")
    broken = start_job(*TRAIN, "--bucket", bucket, at="step:5:break")
    said = broken.communicate(timeout=TIMEOUT_S)[1]
    assert broken.returncode == 1, said
    assert not [line for line in said.splitlines() if line.startswith("Traceback")]
    (text,) = [message for message in messages(said) if "a defect of the program" in message]
    assert text.startswith("run zebra: failed by KeyError: 'an unexpected answer' (fault_point_cli.py:")
    run = Run(open_store(bucket), "zebra")
    end = run.attempt(1).end
    assert (end.reason, end.exit_code, end.error, end.message) == ("failed", 1, "KeyError", text)
    assert "in break_down" in end.traceback
    assert max(checkpoint.committed(run)).position == (1, 0)
    assert job(*TRAIN, "--bucket", bucket).returncode == 0
    assert str(run.attempt(2).start.receipt.checkpoint) == "0001-000000.a0001"


def test_a_training_that_hangs_is_ended_and_started_again(data, tmp_path):
    """A step that never ends shows where every thread stands, is recorded as a failure to be tried again, and costs
    nothing of what is committed.
    """
    bucket = make_bucket(data, tmp_path / "bucket")
    hangs = start_job(*TRAIN, "--hang-after", "20", "--bucket", bucket, at="step:5:hold", TEST_HELD=tmp_path / "held")
    said = hangs.communicate(timeout=TIMEOUT_S)[1]
    assert hangs.returncode == 75, said
    (text,) = [message for message in messages(said) if "no step and no batch of a validation was done" in message]
    assert all(words in text for words in ("thread MainThread", "fault_point_cli.py", "in hold", "thread committer"))
    end = Run(open_store(bucket), "zebra").attempt(1).end
    assert (end.reason, end.exit_code, end.position._asdict()) == ("failed", 75, {"epoch": 1, "batch": 1})
    assert job(*TRAIN, "--bucket", bucket).returncode == 0


@pytest.mark.parametrize("point", ["start record", "tracking"])
def test_a_notice_between_the_claim_and_the_first_step_is_recorded(data, tmp_path, point, capsys):
    """A new run that is interrupted as soon as it is claimed has the reason on record, and does not count as running,
    nor as one whose machine was taken.
    """
    bucket, held = make_bucket(data, tmp_path / "bucket"), tmp_path / "held"
    process = start_job(*TRAIN, "--bucket", bucket, at=f"{point}:1:hold", TEST_HELD=held)
    wait_until(held.exists, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 75, said
    end = Run(open_store(bucket), "zebra").attempt(1).end
    assert (end.reason, end.exit_code) == ("interrupted", 75)
    capsys.readouterr()
    assert main(["runs", "list", "--bucket", bucket]) == 0
    assert "interrupted" in capsys.readouterr().out


def test_an_attempt_that_gets_ready_for_long_runs(data, tmp_path):
    """A resumed attempt has heartbeats from its claim on: one that pulls or checks for an hour is not said to be cut
    off, and can be asked to stop.
    """
    bucket, held = make_bucket(data, tmp_path / "bucket"), tmp_path / "held"
    start_job(*TRAIN, "--bucket", bucket, at="start record:1:kill").communicate(timeout=TIMEOUT_S)
    run = Run(open_store(bucket), "zebra")
    assert run.attempt(1).heartbeat is None
    process = start_job(*TRAIN, "--bucket", bucket, at="check:1:hold", TEST_HELD=held)
    try:
        wait_until(held.exists, process)
        wait_until(lambda: run.attempt(2).heartbeat is not None, process, timeout_s=SOON_S)
    finally:
        kill(process)
    assert run.attempt(2).start is None


def test_the_final_record_waits_for_the_last_checkpoint(tmp_path):
    """A run is not finished unless its newest checkpoint is its end."""
    run = record_run(tmp_path / "bucket", (0.5, 0.6, 0.7), finished=False)
    newest = checkpoint.committed(run)[-1]
    run.store.delete(run.key(f"checkpoints/{newest}/manifest.json"))
    training = SimpleNamespace(progress=SimpleNamespace(rows=[{}, {}, {}]))
    started = SimpleNamespace(claim=Claim(run, 2), record=run.record(), training=training)
    with pytest.raises(NotCommittedError, match="ended after epoch 3, and the newest checkpoint is epoch 2") as raised:
        finish(started, tmp_path, None)
    assert raised.value.exit_code == 75
    assert run.final() is None


@pytest.mark.parametrize(
    ("newest", "missing"),
    [((3, 0), ""), ((2, 5), "batch 5 of epoch 3"), ((2, 0), "epoch 2"), ((3, 1), "batch 1 of epoch 4"), (None, "none")],
)
def test_only_the_last_position_is_the_end(tmp_path, newest, missing):
    """A checkpoint within the last epoch, of an earlier one, or none at all, is not the end of three epochs."""
    run = record_run(tmp_path / "bucket", (0.5,), finished=False)
    for identity in checkpoint.committed(run):
        run.store.delete(run.key(f"checkpoints/{identity}/manifest.json"))
    if newest is not None:
        checkpoint.commit(run, CheckpointId(*newest, 2), [], {}, None)
    said = checkpoint.missing_end(run, 3)
    assert said == (missing and f"it ended after epoch 3, and the newest checkpoint is {missing}")


def test_a_run_that_lost_its_end_fails_verification_and_is_not_extended(tmp_path, capsys):
    """A finished run whose last checkpoint is missing fails its verification, and more epochs for it are refused."""
    run = record_run(tmp_path / "bucket", (0.5, 0.6, 0.7))
    where = ("--bucket", str(tmp_path / "bucket"))
    assert main(["runs", "verify", "zebra", *where]) == 0
    newest = checkpoint.committed(run)[-1]
    run.store.delete(run.key(f"checkpoints/{newest}/manifest.json"))
    capsys.readouterr()
    assert main(["runs", "verify", "zebra", *where]) == 74
    assert "run zebra: it ended after epoch 3, and the newest checkpoint is epoch 2" in capsys.readouterr().err
    assert main(["extend", "zebra", "--epochs", "5", *where]) == 65
    assert "so it has no end to extend" in capsys.readouterr().err


def test_a_notice_while_the_bucket_is_away_has_one_deadline(data, tmp_path, emulator, monkeypatch):
    """After SIGTERM the retries of all that is left to do end together, the process says what is not committed and
    leaves with 75; the same command resumes from the last checkpoint.
    """
    with running_proxy(emulator.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        bucket = make_bucket(data, emulator.make_bucket() + "/wild")
        held = tmp_path / "held"
        process = start_job(*TRAIN, "--bucket", bucket, at="step:5:wait", TEST_HELD=held)
        wait_until(held.exists, process)
        run = Run(open_store(bucket), "zebra")
        wait_until(lambda: any(found.epoch == 1 for found in checkpoint.committed(run)), process)
        proxy.answer = lambda _sent: (503, "the bucket is away")
        process.terminate()
        held.unlink()
        said = process.communicate(timeout=TIMEOUT_S)[1]
        assert process.returncode == 75, said
        (text,) = [message for message in messages(said) if "did not finish within 25 s" in message]
        assert "batch 2 of epoch 2 was trained, and committed is epoch 1" in text
        proxy.answer = lambda _sent: None
        assert [(found.epoch, found.batch) for found in checkpoint.committed(run)][-1] == (1, 0)
        again = job(*TRAIN, "--bucket", bucket)
        assert again.returncode == 0, again.stderr


def test_a_notice_while_a_checkpoint_does_not_arrive_has_the_same_deadline(data, tmp_path, emulator, monkeypatch):
    """SIGTERM while the bucket does not send the checkpoint to resume from is answered at the deadline, though the
    library that waits for it heeds no signal; the attempt has its record, and the same command resumes.
    """
    with running_proxy(emulator.url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        bucket = make_bucket(data, emulator.make_bucket() + "/wild")
        run, held = Run(open_store(bucket), "zebra"), tmp_path / "held"
        process = start_job(*TRAIN, "--bucket", bucket, at="step:5:wait", TEST_HELD=held)
        wait_until(lambda: any(found.epoch == 1 for found in checkpoint.committed(run)), process)
        kill(process)
        asked, sends = threading.Event(), threading.Event()

        def hold(sent):
            if sent.method == "GET" and "/state.pt" in unquote(sent.path) and "/storage/v1/" not in sent.path:
                asked.set()
                sends.wait()

        proxy.answer = hold
        process = start_job(*TRAIN, "--bucket", bucket)
        try:
            wait_until(asked.is_set, process)
            process.terminate()
            said = process.communicate(timeout=TIMEOUT_S)[1]
        finally:
            sends.set()
        assert process.returncode == 75, said
        assert [message for message in messages(said) if "asked to stop; did not finish within 25 s" in message], said
        assert run.attempt(2).end.reason == "preempted"
        proxy.answer = lambda _sent: None
        again = job(*TRAIN, "--bucket", bucket)
        assert again.returncode == 0, again.stderr
        assert run.attempt(3).start.receipt.checkpoint.epoch == 1
