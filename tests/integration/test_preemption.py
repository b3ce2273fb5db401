"""Preemption notices to a whole run: no finished step is lost, in any phase."""

import signal
from pathlib import Path

import pytest

from job.runs import checkpoint
from tests.support.bucket import rows_of, run_in, tensors_of
from tests.support.cli_process import SOON_S, job, kill, start_job, wait_until
from tests.support.fake_metadata_server import running_metadata_server
from tests.support.webhook_server import SECRET, running_webhook

TRAIN = (
    *("train", "--recipe", "base", "--model", "tiny.yaml", "--epochs", "2", "--imgsz", "64", "--batch", "4"),
    *("--nbs", "8", "--plots", "false", "--workers", "0", "--checkpoint-every", "0", "--run", "zebra"),
)
"""Two epochs of six batches; two batches make an optimizer step; checkpoints only after epochs."""

PHASES = [
    ("download:1", None, "signal"),
    ("start-up:1", None, "signal"),
    ("validation:1", (0, 6), "server"),
    ("validation:2", (1, 6), "signal"),
    ("final evaluation:1", (2, 0), "server"),
]
"""By attempt: the point of a notice, the position that is committed then, and the source of the notice."""

OTHER_SOURCES = [("download:1", None, "server"), ("check:1", None, "server"), ("validation:1", (0, 6), "signal")]


def num_steps(trace):
    """Return the number of steps that a training has reported."""
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def position(bucket):
    """Return the newest committed position."""
    newest = checkpoint.committed(run_in(bucket))[-1]
    return newest.epoch, newest.batch


def test_a_signal_during_a_step_loses_no_step(bucket, undisturbed, tmp_path):
    """After SIGTERM every reported step is committed, the exit code is 75 and the reason on record, though a webhook
    hangs; the resumed run ends with the tensors of an undisturbed one, and the webhook knows.
    """
    trace = tmp_path / "trace"
    with running_webhook() as webhook:
        webhook.answers.clear()
        process = start_job(*TRAIN, "--bucket", bucket, JOB_TRACE=trace, JOB_NOTIFY=webhook.url)
        wait_until(lambda: num_steps(trace) >= 3, process)
        process.terminate()
        said = process.communicate(timeout=SOON_S)[1]
        assert process.returncode == 75, said
        assert position(bucket) == divmod(num_steps(trace), 6)
        end = run_in(bucket).attempt(1).end
        assert (end.reason, end.exit_code) == ("preempted", 75)
        assert said.count("notification to 127.0.0.1: was not delivered") == 1
        webhook.answers.set()
        resumed = job(*TRAIN, "--bucket", bucket, "--notify", webhook.url)
    assert resumed.returncode == 0, resumed.stderr
    assert [(got["reason"], got["exit_code"]) for got in webhook.got] == [("preempted", 75), ("finished", 0)]
    stored = [path.read_bytes() for path in Path(bucket).rglob("*") if path.is_file()]
    assert not [content for content in (*stored, said.encode(), resumed.stderr.encode()) if SECRET.encode() in content]
    receipt = run_in(bucket).attempt(2).start.receipt
    assert receipt.saved == receipt.loaded
    assert receipt.steps_lost == 0
    assert tensors_of(bucket) == tensors_of(undisturbed)


def test_a_notice_of_the_metadata_server_loses_no_step_and_waits(bucket, undisturbed, tmp_path):
    """After the server's notice everything is committed, and the process waits until its VM is terminated."""
    trace = tmp_path / "trace"
    with running_metadata_server() as server:
        process = start_job(*TRAIN, "--bucket", bucket, JOB_TRACE=trace, **server.env)
        wait_until(lambda: num_steps(trace) >= 2, process)
        server.preempt()
        wait_until(lambda: run_in(bucket).attempt(1).end is not None, process)
        assert position(bucket) == divmod(num_steps(trace), 6)
        assert process.poll() is None
        kill(process)
        again = start_job(*TRAIN, "--bucket", bucket, **server.env)
        assert any("waiting for the VM to be terminated" in line for line in iter(again.stderr.readline, ""))
        again.terminate()  # which ends its wait
        said = again.communicate(timeout=SOON_S)[1]
        assert (again.returncode, "nothing was started" in said) == (75, True)
    assert run_in(bucket).attempt_numbers() == [1]
    assert job(*TRAIN, "--bucket", bucket).returncode == 0
    assert tensors_of(bucket) == tensors_of(undisturbed)


@pytest.mark.parametrize("phases", [PHASES, pytest.param(OTHER_SOURCES, marks=pytest.mark.full)])
def test_a_notice_in_any_phase_loses_no_step(bucket, undisturbed, tmp_path, phases):
    """Each attempt gets a notice in a later phase, acts on it at once and commits all finished steps; the run that
    they make ends with the tensors and the results of an undisturbed one, learning rates of the warm-up among them.
    """
    run, held = run_in(bucket), tmp_path / "held"
    for point, committed, source in phases:
        num_attempts = len(run.attempt_numbers())
        with running_metadata_server() as server:
            process = start_job(*TRAIN, "--bucket", bucket, at=f"{point}:hold", TEST_HELD=held, **server.env)
            wait_until(held.exists, process)
            if source == "signal":
                process.terminate()
            else:
                server.preempt()
                claimed = run.attempt_numbers()[num_attempts:]
                wait_until(lambda claimed=claimed: not claimed or run.attempt(claimed[0]).end is not None, process)
                process.send_signal(signal.SIGTERM)  # the machine's shutdown, which ends the wait
            said = process.communicate(timeout=SOON_S)[1]
            assert process.returncode == 75, said
        held.unlink()
        assert (position(bucket) if committed else checkpoint.committed(run)) == (committed or [])
    assert job(*TRAIN, "--bucket", bucket).returncode == 0
    assert tensors_of(bucket) == tensors_of(undisturbed)
    assert rows_of(bucket) == rows_of(undisturbed)


def test_ctrl_c_after_a_notice_exits_at_once_and_loses_only_its_steps(bucket, undisturbed, tmp_path):
    """Ctrl-C while a first notice is being acted on exits at once, and the record has the notice; the run resumes from
    the last checkpoint.
    """
    held = tmp_path / "held"
    first = start_job(*TRAIN, "--bucket", bucket, at="step:2:heed", TEST_HELD=held)
    wait_until(held.exists, first)
    held.unlink()
    first.terminate()
    said = first.communicate(timeout=SOON_S)[1]
    assert (first.returncode, position(bucket)) == (75, (0, 2)), said
    process = start_job(*TRAIN, "--bucket", bucket, at="manifest:1:hold,step:6:heed", TEST_HELD=held)
    wait_until(held.exists, process)
    process.terminate()  # and the second epoch goes on once it is seen, while the commit of the first one hangs
    assert any("each stops training for" in line for line in iter(process.stderr.readline, ""))  # all else is done
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=SOON_S)[1]
    assert (process.returncode, "leaving at once" in said) == (75, True)
    assert position(bucket) == (0, 2)
    end = run_in(bucket).attempt(2).end  # or it would count as a machine that was taken
    assert (end.reason, end.exit_code) == ("preempted", 75)
    assert "was trained, and committed is" in end.not_committed
    assert job(*TRAIN, "--bucket", bucket).returncode == 0
    assert tensors_of(bucket) == tensors_of(undisturbed)
