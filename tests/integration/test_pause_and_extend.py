"""A run is paused and resumed, and a finished one is extended."""

import shutil

import pytest

from job.cli.app import main
from job.runs import checkpoint
from job.storage.open_store import open_store
from tests.support.bucket import rows_of, run_in, tensors_of
from tests.support.cli_process import SOON_S, TIMEOUT_S, job, kill, messages, start_job, wait_until

SMALL = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--imgsz", "64", "--batch", "4", "--nbs", "8"),
    *("--plots", "false", "--workers", "0", "--checkpoint-every", "0"),
)
"""Six batches an epoch; two batches make an optimizer step; checkpoints only after epochs."""

TRAIN = (*SMALL, "--epochs", "4", "--run", "zebra")


def train(bucket, *words):
    """Train run zebra to its end."""
    done = job(*SMALL, "--run", "zebra", "--bucket", bucket, *words)
    assert done.returncode == 0, done.stderr
    return done


def another_heartbeat(bucket):
    """Return a condition: the first attempt has written another heartbeat than the present one."""
    before = run_in(bucket).attempt(1).heartbeat
    return lambda: run_in(bucket).attempt(1).heartbeat != before


def objects_of(bucket, name):
    """Return all objects of a run."""
    return open_store(bucket).list(f"runs/{name}/", checksums=True)


def test_a_running_job_is_paused_from_elsewhere_and_resumed(bucket, undisturbed, tmp_path, capsys):
    """`job stop` makes a running job commit all finished steps and end with exit 0, in state paused; the command that
    started it resumes it, and it ends with the tensors of an undisturbed one.
    """
    held = tmp_path / "held"
    process = start_job(*TRAIN, "--bucket", bucket, at="step:3:wait", TEST_HELD=held)
    wait_until(held.exists, process)
    assert main(["stop", "zebra", "--bucket", bucket]) == 0
    for _ in range(2):  # the attempt looks for the request after each heartbeat
        wait_until(another_heartbeat(bucket), process)
    held.unlink()
    said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 0, said
    assert any("run zebra: paused, as was asked at" in message for message in messages(said))
    newest = checkpoint.committed(run_in(bucket))[-1]
    assert (newest.epoch, newest.batch) == (0, 3)
    end = run_in(bucket).attempt(1).end
    assert (end.reason, end.exit_code) == ("paused", 0)
    capsys.readouterr()
    assert main(["stop", "zebra", "--bucket", bucket]) == 0
    assert "run zebra is paused" in capsys.readouterr().out
    assert main(["runs", "list", "--bucket", bucket]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["paused", "0/4"]
    resumed = job("resume", "zebra", "--workers", "0", "--bucket", bucket)
    assert resumed.returncode == 0, resumed.stderr
    assert tensors_of(bucket) == tensors_of(undisturbed)
    capsys.readouterr()
    assert main(["stop", "zebra", "--bucket", bucket]) == 0
    assert "is finished; there is nothing to stop" in capsys.readouterr().out


def test_a_request_outlives_the_attempt_that_did_not_see_it(bucket, tmp_path, capsys):
    """If the machine vanishes before it sees the request, the attempt that its Batch job starts in its place ends at
    once, paused and with exit 0; the next one, which a person starts, trains.
    """
    held = tmp_path / "held"
    words = (*SMALL, "--epochs", "1", "--run", "zebra", "--bucket", bucket)
    process = start_job(*words, at="step:3:hold", TEST_HELD=held, JOB_CLOUD_JOB="job-1")
    wait_until(held.exists, process)
    kill(process)
    assert main(["stop", "zebra", "--bucket", bucket]) == 0
    restarted = job(*words, JOB_CLOUD_JOB="job-1")
    assert restarted.returncode == 0, restarted.stderr
    assert any("run zebra: paused, as was asked at" in message for message in messages(restarted.stderr))
    assert run_in(bucket).attempt(2).end.reason == "paused"
    assert run_in(bucket).attempt(2).start is None
    assert run_in(bucket).final() is None
    train(bucket, "--epochs", "1")
    assert run_in(bucket).attempt_numbers() == [1, 2, 3]


def test_a_run_that_stopped_early_is_extended(bucket, undisturbed):
    """Extended to the number of epochs it was planned for, a run that stopped early ends with the tensors of one that
    did not stop, as long as patience lasts, which begins anew; the old run is not written to.
    """
    words = (*SMALL, "--run", "hasty", "--bucket", bucket, "--epochs", "4", "--patience", "2")
    hasty = start_job(*words, program="tests.support.early_stopping_cli")
    said = hasty.communicate(timeout=TIMEOUT_S)[1]
    assert hasty.returncode == 0, said
    final = run_in(bucket, "hasty").final()
    assert (final.reason, final.num_epochs) == ("stopped early", 3)
    assert run_in(bucket, "hasty").attempt(1).end.best_f1 == final.course[final.best_epoch - 1]["f1"]
    before = objects_of(bucket, "hasty")
    extended = job("extend", "hasty", "--epochs", "4", "--run", "longer", "--bucket", bucket, "--workers", "0")
    assert extended.returncode == 0, extended.stderr
    assert objects_of(bucket, "hasty") == before
    final = run_in(bucket, "longer").final()
    assert (final.reason, final.num_epochs) == ("complete", 4)  # its patience began anew
    assert rows_of(bucket, "longer") == rows_of(undisturbed)
    assert tensors_of(bucket, "longer") == tensors_of(undisturbed)
    record = run_in(bucket, "longer").record()
    assert (record.start.point.kind, record.start.point.run) == ("end", "hasty")
    receipt = run_in(bucket, "longer").attempt(1).start.receipt
    assert (receipt.run, receipt.saved == receipt.loaded) == ("hasty", True)


def test_an_extension_survives_a_kill_and_follows_the_new_schedule(bucket, undisturbed):
    """An extension that is killed before its first commit, and again after it, ends like an undisturbed one; its
    learning rate is that of a run with the new number of epochs, and it writes nothing into the old run's folder.
    """
    train(bucket, "--epochs", "1")
    before = objects_of(bucket, "zebra")
    words = ("extend", "zebra", "--epochs", "4", "--bucket", bucket, "--workers", "0", "--checkpoint-every", "0")
    first = start_job(*words, "--run", "longer", at="step:2:kill")
    first.communicate(timeout=TIMEOUT_S)
    assert checkpoint.committed(run_in(bucket, "longer")) == []
    second = start_job(*words, "--run", "longer", at="manifest:2:kill")
    second.communicate(timeout=TIMEOUT_S)
    assert [str(identity) for identity in checkpoint.committed(run_in(bucket, "longer"))] == ["0002-000000.a0002"]
    manifest = checkpoint.read_manifest(run_in(bucket, "longer"), checkpoint.committed(run_in(bucket, "longer"))[0])
    assert all(file.key.startswith("runs/longer/") for file in manifest.files)
    assert job(*words, "--run", "longer").returncode == 0
    assert job(*words, "--run", "twin").returncode == 0
    assert tensors_of(bucket, "longer") == tensors_of(bucket, "twin")
    assert objects_of(bucket, "zebra") == before
    rates = [[row["lr/pg0"] for row in rows] for rows in (rows_of(bucket, "longer"), rows_of(undisturbed))]
    assert rates[0][1:] == rates[1][1:]
    assert [row["epoch"] for row in rows_of(bucket, "longer")] == ["1", "2", "3", "4"]


def test_what_cannot_be_extended_is_refused(undisturbed, tmp_path, capsys):
    """A run that is not finished, one with as many epochs, and a number that is none are refused with what to do."""
    unfinished = tmp_path / "unfinished"
    shutil.copytree(undisturbed, unfinished)
    (unfinished / "runs" / "zebra" / "final.json").unlink()
    assert main(["extend", "zebra", "--epochs", "6", "--bucket", str(unfinished)]) == 65
    assert "run zebra: is not finished" in capsys.readouterr().err
    assert main(["extend", "zebra", "--epochs", "4", "--bucket", undisturbed]) == 2
    assert "is the new total, and run zebra has trained 4" in capsys.readouterr().err
    assert main(["extend", "zebra", "--epochs", "more", "--bucket", undisturbed]) == 2
    assert main(["extend", "zbra", "--epochs", "6", "--bucket", undisturbed]) == 65
    assert "did you mean 'zebra'" in capsys.readouterr().err


def test_processes_that_train_together_pause_together(bucket):
    """Two processes that are asked to stop do so after the same step, commit, and exit 0."""
    words = (*SMALL, "--epochs", "200", "--run", "zebra", "--bucket", bucket, "--device", "cpu,cpu")
    process = start_job(*words)
    wait_until(lambda: checkpoint.committed(run_in(bucket)), process)
    assert main(["stop", "zebra", "--bucket", bucket]) == 0
    said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 0, said
    end = run_in(bucket).attempt(1).end
    newest = checkpoint.committed(run_in(bucket))[-1]
    assert (end.reason, end.position._asdict()) == ("paused", {"epoch": newest.epoch, "batch": newest.batch})


@pytest.mark.full
def test_processes_that_train_together_extend_together(bucket):
    """A run of two processes is extended by two, which begin with the same state."""
    train(bucket, "--epochs", "1", "--device", "cpu,cpu")
    words = ("extend", "zebra", "--epochs", "2", "--run", "longer", "--bucket", bucket, "--workers", "0")
    alone = job(*words)
    assert (alone.returncode, "world_size: the run has 2" in alone.stderr) == (65, True), alone.stderr
    together = job(*words, "--device", "cpu,cpu")
    assert together.returncode == 0, together.stderr
    straight = job(*SMALL, "--run", "straight", "--epochs", "2", "--device", "cpu,cpu", "--bucket", bucket)
    assert straight.returncode == 0, straight.stderr
    rates = [[row["lr/pg0"] for row in rows_of(bucket, name)][1:] for name in ("longer", "straight")]
    assert rates[0] == rates[1]
