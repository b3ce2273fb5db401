"""PreemptionWatcher given to a whole run: no step that was done is lost, whatever is under way."""

import signal

import pytest

from job.runs import checkpoint
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.attempt_records import final_tensors
from tests.support.bucket import make_bucket
from tests.support.cli_process import SOON_S, job, kill, start_job, wait_until
from tests.support.fake_metadata_server import running_metadata_server
from tests.support.tiny_dataset import make_tiny_dataset

ORDER = (
    *("train", "--recipe", "base", "--model", "yolo11n.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--checkpoint-every", "0", "--run", "zebra"),
)
"""Two epochs of six batches; two batches make an optimizer step; checkpoints only after epochs."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny dataset on disk."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=22, num_val=4)


@pytest.fixture
def bucket(data, tmp_path):
    """A folder that holds the tiny dataset."""
    return make_bucket(data, tmp_path / "bucket")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The final tensors of the same training without any notice."""
    bucket = make_bucket(data, tmp_path_factory.mktemp("undisturbed") / "bucket")
    done = job(*ORDER, "--bucket", bucket)
    assert done.returncode == 0, done.stderr
    return tensors_of(bucket)


def run_in(bucket):
    """Return the run."""
    return Run(open_store(bucket), "zebra")


def tensors_of(bucket):
    """Return the digests of the final weights."""
    return final_tensors(run_in(bucket).final())


def num_steps(trace):
    """Return how many steps a training has reported."""
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def position(bucket):
    """Return the newest committed position."""
    newest = checkpoint.committed(run_in(bucket))[-1]
    return newest.epoch, newest.batch


def test_a_signal_during_a_step_loses_no_step(bucket, undisturbed, tmp_path):
    """After SIGTERM the process has committed every step that it reported, and exits 75 with the reason recorded;
    resumed, it ends like one that nobody disturbed.
    """
    trace = tmp_path / "trace"
    process = start_job(*ORDER, "--bucket", bucket, JOB_TRACE=trace)
    wait_until(lambda: num_steps(trace) >= 3, process)
    process.terminate()
    said = process.communicate(timeout=SOON_S)[1]
    assert process.returncode == 75, said
    assert position(bucket) == divmod(num_steps(trace), 6)
    end = run_in(bucket).attempt(1).end
    assert (end.reason, end.exit_code) == ("preempted", 75)
    resumed = job(*ORDER, "--bucket", bucket)
    assert resumed.returncode == 0, resumed.stderr
    receipt = run_in(bucket).attempt(2).start.receipt
    assert receipt.saved == receipt.loaded
    assert receipt.steps_lost == 0
    assert tensors_of(bucket) == undisturbed


def test_a_notice_of_the_metadata_server_loses_no_step_and_waits(bucket, undisturbed, tmp_path):
    """After the server's notice everything is committed, and the process stays until its machine is taken."""
    trace = tmp_path / "trace"
    with running_metadata_server() as server:
        process = start_job(*ORDER, "--bucket", bucket, JOB_TRACE=trace, **server.env)
        wait_until(lambda: num_steps(trace) >= 2, process)
        server.preempt()
        wait_until(lambda: run_in(bucket).attempt(1).end is not None, process)
        assert position(bucket) == divmod(num_steps(trace), 6)
        assert process.poll() is None
        kill(process)
        again = start_job(*ORDER, "--bucket", bucket, **server.env)
        assert any("waiting for the VM to be terminated" in line for line in iter(again.stderr.readline, ""))
        again.terminate()  # which ends its wait
        said = again.communicate(timeout=SOON_S)[1]
        assert (again.returncode, "nothing was started" in said) == (75, True)
    assert run_in(bucket).attempts() == [1]
    assert job(*ORDER, "--bucket", bucket).returncode == 0
    assert tensors_of(bucket) == undisturbed


@pytest.mark.parametrize(
    ("point", "kept", "source"),
    [
        ("download:1", None, "signal"),
        pytest.param("download:1", None, "server", marks=pytest.mark.full),
        pytest.param("check:1", None, "server", marks=pytest.mark.full),
        ("start-up:1", None, "signal"),
        ("validation:1", None, "server"),
        ("validation:2", (0, 6), "signal"),
        pytest.param("validation:2", (0, 6), "server", marks=pytest.mark.full),
        ("final evaluation:1", (2, 0), "server"),
    ],
)
def test_a_notice_at_any_time_keeps_all_that_was_done(bucket, undisturbed, tmp_path, point, kept, source):
    """During download, check, start-up, validation and the final evaluation a notice is acted on at once, and all
    steps that were done are committed.
    """
    held = tmp_path / "held"
    with running_metadata_server() as server:
        process = start_job(*ORDER, "--bucket", bucket, at=f"{point}:hold", TEST_HELD=held, **server.env)
        wait_until(held.exists, process)
        if source == "signal":
            process.terminate()
        else:
            server.preempt()
            attempts = run_in(bucket).attempts()
            wait_until(lambda: not attempts or run_in(bucket).attempt(1).end is not None, process)
            process.send_signal(signal.SIGTERM)  # the machine's shutdown, which ends the wait
        said = process.communicate(timeout=SOON_S)[1]
        assert process.returncode == 75, said
    assert (position(bucket) if kept else checkpoint.committed(run_in(bucket))) == (kept or [])
    assert job(*ORDER, "--bucket", bucket).returncode == 0
    assert tensors_of(bucket) == undisturbed


def test_a_press_of_ctrl_c_after_a_notice_leaves_at_once_and_harms_nothing(bucket, undisturbed, tmp_path):
    """A person who asks once more is obeyed at once, even where the first notice is being acted on."""
    held = tmp_path / "held"
    process = start_job(*ORDER, "--bucket", bucket, at="manifest:2:hold", TEST_HELD=held)
    wait_until(held.exists, process)
    process.terminate()
    assert any("each stops training for" in line for line in iter(process.stderr.readline, ""))  # all else is done
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=SOON_S)[1]
    assert (process.returncode, "leaving at once" in said) == (75, True)
    assert position(bucket) == (0, 0)
    assert job(*ORDER, "--bucket", bucket).returncode == 0
    assert tensors_of(bucket) == undisturbed
