"""Weights & Biases: one curve, each epoch once, over real kills; and a server that fails changes nothing."""

import socket
import subprocess
import sys

import pytest

from job.runs.progress import read_progress
from tests.support.bucket import make_bucket, run_in, tensors_of
from tests.support.cli_process import SOON_S, job, kill, start_job, surroundings, wait_until
from tests.support.fake_metadata_server import running_metadata_server
from tests.support.fake_wandb_server import ACCEPTS, FAILS, HANGS, KEY, running_wandb_server
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tracking_status import read_status

NUM_EPOCHS = 7

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", str(NUM_EPOCHS), "--imgsz", "64"),
    *("--batch", "4", "--nbs", "8", "--plots", "false", "--workers", "0", "--run", "zebra"),
    *("--checkpoint-every", "0.5", "--patience", str(NUM_EPOCHS)),
)
"""Epochs of five batches."""

NUM_ENDINGS = 4

WITH_NOTICE = (2, 4)
"""Attempts that get a notice; the last one from the metadata server, the other one by a signal."""

AT_A_COMMIT = (1,)
"""An attempt that ends just after a commit, before the server has to have its row; others end after that."""

WITHOUT_SERVER = (3,)
"""An attempt that is offline, as the one after the last ending is."""

OFFLINE = {"WANDB_MODE": "offline"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=20, num_val=4)


def rows_at(server):
    """Return the rows of epochs that the server has, in the order of its history; the pictures' row is none."""
    [known] = list(server.runs.values()) or [{"history": {}}]
    return [row for _, row in sorted(known["history"].items()) if "metrics/F1(B)" in row]


def epochs_at(server):
    """Return the epochs that the server has, in order."""
    return [row["epoch"] for row in rows_at(server)]


def require_committed_values(run, rows):
    """Check that each row has the values that were committed for its epoch."""
    committed = {int(row["epoch"]): row for row in read_progress(run).rows}
    for row in rows:
        assert row.items() >= committed[row["epoch"]].items()


HELD_AT = "step:6:wait"
"""Each attempt trains so many steps and waits there, so that none gets to the end before it is ended."""


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    """A bucket and W&B's server, whose run was ended four times, twice by SIGKILL and twice by notice, before it was
    finished; two of the five attempts were offline, the last one too.
    """
    folder = tmp_path_factory.mktemp("killed")
    bucket, held = make_bucket(data, folder / "bucket"), folder / "held"
    run = run_in(bucket)

    def up_to_date(number, wandb):
        """Whether the attempt has committed all its epochs before the wait, and the server has the rows."""
        progress = read_progress(run)
        return (
            held.exists()
            and progress.checkpoint.attempt == number
            and epochs_at(wandb) == list(range(1, len(progress.rows) + 1))
        )

    with running_metadata_server() as server, running_wandb_server(ACCEPTS) as wandb:
        for number in range(1, NUM_ENDINGS + 1):
            before = read_progress(run).checkpoint
            env = {"TEST_HELD": held} | (server.env if number == WITH_NOTICE[-1] else {})
            env |= OFFLINE if number in WITHOUT_SERVER else wandb.env
            process = start_job(*TRAIN, "--bucket", bucket, at=HELD_AT, **env)
            if number in AT_A_COMMIT + WITHOUT_SERVER:
                wait_until(lambda before=before: read_progress(run).checkpoint != before, process)
            else:
                wait_until(lambda number=number: up_to_date(number, wandb), process)
            if number not in WITH_NOTICE:
                kill(process)
                held.unlink(missing_ok=True)
                continue
            wait_until(held.exists, process)
            server.preempt() if env.keys() & server.env.keys() else process.terminate()
            held.unlink()
            if number == WITH_NOTICE[-1]:
                wait_until(lambda: run.attempt(NUM_ENDINGS).end is not None, process)
                kill(process)
            else:
                said = process.communicate(timeout=SOON_S)[1]
                assert process.returncode == 75, said
        assert wandb.artifacts == []  # the weights are sent at the end
        done = job(*TRAIN, "--bucket", bucket, **OFFLINE)
        assert done.returncode == 0, done.stderr
        yield bucket, wandb


def test_a_run_without_tracking_has_no_status(undisturbed):
    """With ``WANDB_MODE=disabled``, as here, nothing of W&B is recorded."""
    assert read_status(run_in(undisturbed), 1) is None


def test_endings_of_every_kind_give_one_curve_with_each_epoch_once(killed, undisturbed):
    """The server has one run, by the id of the record, with each epoch once, in order, as they were committed, before
    and after `job wandb sync` adds those of offline attempts and finds nothing to add; and the result is that of a run
    without tracking and kills.
    """
    bucket, server = killed
    run = run_in(bucket)
    record = run.record()
    assert len(run.attempt_numbers()) == NUM_ENDINGS + 1
    live = epochs_at(server)
    assert live == list(range(1, len(live) + 1))
    assert 0 < len(live) < NUM_EPOCHS
    for _ in range(2):
        done = job("wandb", "sync", "zebra", "--bucket", bucket, **server.env)
        assert done.returncode == 0, done.stderr
        assert epochs_at(server) == list(range(1, NUM_EPOCHS + 1))
    assert list(server.runs) == [record.wandb_id]
    require_committed_values(run, rows_at(server))
    attempts = [row["attempt"] for row in rows_at(server)]
    assert attempts == sorted(attempts)
    assert set(attempts) <= set(run.attempt_numbers())
    assert tensors_of(bucket) == tensors_of(undisturbed)


def test_an_empty_server_is_sent_the_whole_curve_once(killed):
    """`job wandb sync` sends a run and its result from the records alone, beside logs of an old version
    in the bucket; the second time it sends no epoch.
    """
    bucket, _ = killed
    run = run_in(bucket)
    record = run.record()
    run.store.put(run.key("wandb/0001/0003-000000.wandb"), b"of an older version")
    with running_wandb_server(ACCEPTS) as server:
        for _ in range(2):
            done = job("wandb", "sync", "zebra", "--bucket", bucket, **server.env)
            assert done.returncode == 0, done.stderr
        assert epochs_at(server) == list(range(1, NUM_EPOCHS + 1))
        require_committed_values(run, rows_at(server))
        assert {row["attempt"] for row in rows_at(server)} <= set(range(1, NUM_ENDINGS + 2))
        sent = server.runs[record.wandb_id]
        assert sent["summary"]["after"] == run.final().comparison.after
        assert sent["summary"]["preemptions"] == NUM_ENDINGS
        assert sent["config"]["train"]["value"] == record.request["train"]
    assert list(server.runs) == [record.wandb_id]
    assert read_status(run, run.attempt_numbers()[-1]).sent
    refused = job("wandb", "sync", "zebra", "--bucket", bucket, WANDB_MODE="")
    assert (refused.returncode, "there is no key; export WANDB_API_KEY" in refused.stderr) == (78, True)


@pytest.mark.parametrize(
    "behaviour", [HANGS, pytest.param(FAILS, marks=pytest.mark.full), pytest.param("refuses", marks=pytest.mark.full)]
)
def test_a_server_that_fails_changes_nothing_and_is_named(behaviour, bucket, undisturbed, tmp_path):
    """The run ends well with the same tensors; log, status and report name the reason, and once there is a server that
    works `job wandb sync` sends the whole curve.
    """
    with running_wandb_server(behaviour) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = server.url if behaviour != "refuses" else f"http://127.0.0.1:{closed.getsockname()[1]}"
        env = server.env | {"WANDB_BASE_URL": url, "WANDB_INIT_TIMEOUT": "3"}
        done = job(*TRAIN, "--bucket", bucket, **env)
        assert done.returncode == 0, done.stderr
        assert behaviour == "refuses" or server.asked.is_set()
    assert tensors_of(bucket) == tensors_of(undisturbed)
    assert "W&B: the server did not take the run" in done.stderr
    status = read_status(run_in(bucket), 1)
    assert (status.mode, "did not take the run" in status.why) == ("offline", True)
    page = (tmp_path / "bucket" / "runs" / "zebra" / "report.html").read_text()
    assert "the server did not take the run" in page
    assert "job wandb sync zebra" in page
    with running_wandb_server(ACCEPTS) as server:
        assert job("wandb", "sync", "zebra", "--bucket", bucket, **server.env).returncode == 0
        assert epochs_at(server) == list(range(1, NUM_EPOCHS + 1))


def test_a_server_that_hangs_delays_no_preemption_and_gets_all_from_the_next_attempt(bucket, undisturbed, tmp_path):
    """On a notice while the server hangs the process exits 75; the next attempt sends each epoch once, and at the end
    the weights and pictures of before and after, and no record has the key.
    """
    run = run_in(bucket)
    with running_wandb_server(HANGS) as server:
        held = tmp_path / "held"
        env = server.env | {"TEST_HELD": held, "WANDB_INIT_TIMEOUT": "600"}
        process = start_job(*TRAIN, "--bucket", bucket, at=HELD_AT, **env)
        wait_until(lambda: held.exists() and server.asked.is_set(), process)
        process.terminate()
        held.unlink()
        said = process.communicate(timeout=SOON_S)[1]
        assert process.returncode == 75, said
    assert read_status(run, 1) is None
    with running_wandb_server(ACCEPTS) as server:
        done = job(*TRAIN, "--bucket", bucket, **server.env)
        assert done.returncode == 0, done.stderr
        sent = server.runs[run.record().wandb_id]
        assert epochs_at(server) == list(range(1, NUM_EPOCHS + 1))
        require_committed_values(run, rows_at(server))
        assert [row for row in sent["history"].values() if "predictions" in row]
        artifact = server.artifacts[-1]["input"]
        assert run.final().weights["best.pt"].sha256 in artifact["metadata"]
    assert read_status(run, run.attempt_numbers()[-1]).sent
    assert tensors_of(bucket) == tensors_of(undisturbed)
    assert KEY not in "".join(stored.read_text(errors="ignore") for stored in (tmp_path / "bucket").rglob("*.json"))


def test_a_machine_that_was_superseded_adds_nothing(killed, tmp_path):
    """The follower of a superseded attempt is refused, and sends nothing to the server."""
    bucket, _ = killed
    command = [sys.executable, "-m", "job.tracking", "zebra", bucket, "1", str(tmp_path / "follow")]
    with running_wandb_server(ACCEPTS) as server:
        done = subprocess.run(
            command, env=surroundings(server.env), input="committed\n", text=True, capture_output=True, check=False
        )
        assert (done.returncode, "superseded" in done.stderr) == (75, True)
        assert server.runs == {}
