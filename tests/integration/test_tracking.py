"""Weights & Biases: one curve, each epoch once, over real kills; and a server that fails changes nothing."""

import socket
import subprocess
import sys

import pytest

from job.errors import SupersededError
from job.runs import offline_logs
from job.runs.progress import read_progress
from job.runs.run import Run
from job.storage.open_store import open_store
from job.tracking.transaction_log import records, rows
from tests.support.attempt_records import final_tensors
from tests.support.bucket import make_bucket
from tests.support.cli_process import SOON_S, job, kill, start_job, surroundings, wait_until
from tests.support.fake_metadata_server import running_metadata_server
from tests.support.fake_wandb_server import ACCEPTS, FAILS, HANGS, KEY, running_wandb_server
from tests.support.tiny_dataset import make_tiny_dataset

SHORT, LONG = 4, 7
"""Epochs of a run that nobody disturbs, and of one that is ended again and again."""


def order(num_epochs, bucket):
    """Return the words that train so many epochs of five batches."""
    return (
        *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", str(num_epochs), "--imgsz", "64"),
        *("--batch", "4", "--nbs", "8", "--plots", "false", "--workers", "0", "--run", "zebra"),
        *("--checkpoint-every", "0.5", "--patience", str(num_epochs), "--bucket", bucket),
    )


NUM_ENDINGS = 4

WITH_NOTICE = (2, 4)
"""Attempts that are told; the last one by the metadata server, the other one by a signal."""

AT_A_COMMIT = (1,)
"""An attempt that ends just after a commit, before that has its place in the curve; the others had just added to it."""

OFFLINE = {"WANDB_MODE": "offline"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=20, num_val=4)


def run_in(bucket):
    """Return the run."""
    return Run(open_store(bucket), "zebra")


def tensors_of(bucket):
    """Return the digests of the final weights."""
    return final_tensors(run_in(bucket).final())


def logs_of(bucket, folder):
    """Return the logs that are the curve, fetched from the bucket."""
    run, paths = run_in(bucket), []
    for segment in offline_logs.segments(run):
        paths.append(folder / f"{segment.attempt}.wandb")
        run.store.get(segment.key(run), paths[-1])
    return paths


def epochs_in(paths):
    """Return the epochs that were logged, in order."""
    return [row["epoch"] for path in paths for row in rows(path)]


HELD_AT = "step:6:wait"
"""Each attempt trains so many steps and waits there, so that none gets to the end before it is ended."""


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory):
    """A bucket whose run was ended four times, twice by SIGKILL and twice by notice, before it was finished offline."""
    folder = tmp_path_factory.mktemp("killed")
    bucket, held = make_bucket(data, folder / "bucket"), folder / "held"
    run = run_in(bucket)
    with running_metadata_server() as server:
        for number in range(1, NUM_ENDINGS + 1):
            before = read_progress(run).checkpoint
            env = OFFLINE | {"TEST_HELD": held} | (server.env if number == WITH_NOTICE[-1] else {})
            process = start_job(*order(LONG, bucket), at=HELD_AT, **env)
            if number in AT_A_COMMIT:
                wait_until(lambda before=before: read_progress(run).checkpoint != before, process)
            else:
                wait_until(lambda number=number: number in {s.attempt for s in offline_logs.found(run)}, process)
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
    done = job(*order(LONG, bucket), **OFFLINE)
    assert done.returncode == 0, done.stderr
    return bucket


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The final tensors of the run without tracking and without kills, by its epochs."""
    found = {}
    for num_epochs in (SHORT, LONG):
        bucket = make_bucket(data, tmp_path_factory.mktemp("undisturbed") / "bucket")
        assert job(*order(num_epochs, bucket), WANDB_MODE="disabled").returncode == 0
        assert offline_logs.segments(run_in(bucket)) == []
        found[num_epochs] = tensors_of(bucket)
    return found


def test_endings_of_every_kind_give_one_curve_with_each_epoch_once(killed, undisturbed, tmp_path):
    """The logs have one id, which is that of the record; together they have row 0 and each epoch once, in order, with
    the values that were committed; and the result is that of a run that nobody tracked or killed.
    """
    run = run_in(killed)
    assert len(run.attempts()) == NUM_ENDINGS + 1
    logs = logs_of(killed, tmp_path)
    ids = {record.run.run_id for path in logs for record in records(path) if record.WhichOneof("record_type") == "run"}
    assert ids == {run.record().wandb_id}
    assert epochs_in(logs) == list(range(LONG + 1))
    committed = {int(row["epoch"]): row for row in read_progress(run).rows}
    for row in (row for path in logs for row in rows(path) if row["epoch"]):
        assert {name: row[name] for name in committed[row["epoch"]]} == committed[row["epoch"]]
    assert tensors_of(killed) == undisturbed[LONG]


def test_what_was_logged_without_a_server_is_sent_once(killed):
    """`job wandb sync` uploads the segments in order, and what came of the run; the second time it sends nothing."""
    run = run_in(killed)
    record = run.record()
    with running_wandb_server(ACCEPTS) as server:
        for _ in range(2):
            done = job("wandb", "sync", "zebra", "--bucket", killed, **server.env)
            assert done.returncode == 0, done.stderr
        sent = server.runs[record.wandb_id]
        sent_rows = [row for _, row in sorted(sent["history"].items()) if "metrics/F1(B)" in row]
        assert [row["epoch"] for row in sent_rows] == list(range(LONG + 1))
        assert {row["attempt"] for row in sent_rows} <= set(range(1, NUM_ENDINGS + 2))
        assert sent["summary"]["after"] == run.final().comparison.after
        assert sent["summary"]["preemptions"] == NUM_ENDINGS
        assert sent["config"]["train"]["value"] == record.request["train"]
    assert list(server.runs) == [record.wandb_id]
    refused = job("wandb", "sync", "zebra", "--bucket", killed, WANDB_MODE="")
    assert (refused.returncode, "there is no key; export WANDB_API_KEY" in refused.stderr) == (78, True)


def test_a_server_gets_each_epoch_once_and_the_weights_at_the_end(data, undisturbed, tmp_path):
    """With a key the curve is live; after a kill the server has what was committed, once; the weights, and pictures of
    before and after, come at the end.
    """
    bucket = make_bucket(data, tmp_path / "bucket")
    run = run_in(bucket)
    with running_wandb_server(ACCEPTS) as server:
        process = start_job(*order(LONG, bucket), at=HELD_AT, TEST_HELD=tmp_path / "held", **server.env)
        wait_until(lambda: any(known["history"] for known in list(server.runs.values())), process)
        assert server.artifacts == []
        kill(process)
        done = job(*order(LONG, bucket), **server.env)
        assert done.returncode == 0, done.stderr
        sent = server.runs[run.record().wandb_id]
        epochs = [row["epoch"] for _, row in sorted(sent["history"].items()) if "metrics/F1(B)" in row]
        assert epochs == list(range(LONG + 1))
        assert [row for row in sent["history"].values() if "predictions" in row]
        artifact = server.artifacts[-1]["input"]
        assert run.final().weights["best.pt"].sha256 in artifact["metadata"]
    assert offline_logs.said(run, run.attempts()[-1])["sent"] is True
    assert tensors_of(bucket) == undisturbed[LONG]
    assert KEY not in "".join(stored.read_text(errors="ignore") for stored in (tmp_path / "bucket").rglob("*.json"))


@pytest.mark.parametrize(
    "behaviour", [HANGS, pytest.param(FAILS, marks=pytest.mark.full), pytest.param("refuses", marks=pytest.mark.full)]
)
def test_a_server_that_fails_changes_nothing_and_is_told_of(behaviour, data, undisturbed, tmp_path):
    """The run ends well with the same tensors; the curve is in the bucket, and the report says why."""
    bucket = make_bucket(data, tmp_path / "bucket")
    with running_wandb_server(behaviour) as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = server.url if behaviour != "refuses" else f"http://127.0.0.1:{nobody.getsockname()[1]}"
        env = server.env | {"WANDB_BASE_URL": url, "WANDB_INIT_TIMEOUT": "3"}
        done = job(*order(SHORT, bucket), **env)
        assert done.returncode == 0, done.stderr
        assert behaviour == "refuses" or server.asked.is_set()
    assert tensors_of(bucket) == undisturbed[SHORT]
    assert epochs_in(logs_of(bucket, tmp_path)) == list(range(SHORT + 1))
    said = offline_logs.said(run_in(bucket), 1)
    assert (said["mode"], "did not take the run" in said["why"]) == ("offline", True)
    page = (tmp_path / "bucket" / "runs" / "zebra" / "report.html").read_text()
    assert "the server did not take the run" in page
    assert "job wandb sync zebra" in page


def test_a_server_that_hangs_does_not_keep_a_machine_that_is_taken(data, tmp_path):
    """With the server hanging and notice given, everything is committed and the process exits 75; the next attempt logs
    what this one could not.
    """
    bucket = make_bucket(data, tmp_path / "bucket")
    run = run_in(bucket)
    with running_wandb_server(HANGS) as server:
        held = tmp_path / "held"
        process = start_job(*order(LONG, bucket), at=HELD_AT, TEST_HELD=held, WANDB_INIT_TIMEOUT="600", **server.env)
        wait_until(lambda: held.exists() and server.asked.is_set(), process)
        process.terminate()
        held.unlink()
        said = process.communicate(timeout=SOON_S)[1]
        assert process.returncode == 75, said
    assert offline_logs.segments(run) == []
    assert job(*order(LONG, bucket), **OFFLINE).returncode == 0
    assert epochs_in(logs_of(bucket, tmp_path)) == list(range(LONG + 1))


def test_a_machine_that_was_superseded_adds_nothing(killed, tmp_path):
    """Whoever follows an attempt that another one has followed is refused, and nobody goes on from what it leaves."""
    run = run_in(killed)
    before = offline_logs.segments(run)
    stale = offline_logs.Segment(1, 99, 0)
    (tmp_path / "stale.wandb").write_bytes(b"stale")
    with pytest.raises(SupersededError):
        offline_logs.save(run, stale, tmp_path / "stale.wandb")
    run.store.put(stale.key(run), b"stale")  # the check came just before the other machine's claim
    assert offline_logs.segments(run) == before
    run.store.delete(stale.key(run))
    command = [sys.executable, "-m", "job.tracking", "zebra", killed, "1", str(tmp_path / "follow")]
    done = subprocess.run(
        command, env=surroundings(OFFLINE), input="news\n", text=True, capture_output=True, check=False
    )
    assert (done.returncode, "superseded" in done.stderr) == (75, True)
    assert offline_logs.segments(run) == before
