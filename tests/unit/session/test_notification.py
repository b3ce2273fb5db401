"""The notification of an end: its content, its place in time, and that it changes nothing."""

import os
import signal

import pytest

from job.errors import PauseError, PreemptionError, SupersededError, TrainingError
from job.runs.notification import Webhook
from job.runs.run import Run
from job.session import notification
from job.session.notification import EndNotification
from job.session.preemption import LIMITS_S, PreemptionWatcher
from job.storage.local import FolderStore
from tests.support.webhook_server import running_webhook


@pytest.fixture
def server():
    """A webhook that takes everything."""
    with running_webhook() as server:
        yield server


@pytest.fixture
def run(tmp_path):
    """A run in a bucket that is a folder."""
    return Run(FolderStore.create(str(tmp_path / "bucket")), "zebra")


def ends(server, run, error=None, preemption=None):
    """End a run, by an error if there is one, and return what the server got."""
    with EndNotification(Webhook.parse(server.url), preemption or PreemptionWatcher(), run) as ended:
        if error is not None:
            raise error
        ended.message = "complete after 3 epochs"
    return server.got


def test_a_finished_run_is_notified(server, run):
    """A run without an error is finished, with exit code 0."""
    (got,) = ends(server, run)
    assert {name: got[name] for name in ("event", "run", "bucket", "reason", "exit_code", "message", "text")} == {
        "event": "end",
        "run": "zebra",
        "bucket": run.store.uri,
        "reason": "finished",
        "exit_code": 0,
        "message": "complete after 3 epochs",
        "text": "run zebra: finished; complete after 3 epochs",
    }


@pytest.mark.parametrize(
    ("error", "reason", "exit_code"),
    [
        (PreemptionError("SIGTERM", "preempted"), "preempted", 75),
        (PauseError("asked"), "paused", 0),
        (SupersededError("a later attempt"), "superseded", 75),
        (TrainingError("not a number"), "failed", 70),
        (ZeroDivisionError("a defect"), "failed", 1),
    ],
    ids=repr,
)
def test_an_error_is_notified_and_stays(server, run, error, reason, exit_code):
    """Every other end has the reason and the exit code of its record, and its error goes on."""
    with pytest.raises(type(error)) as raised:
        ends(server, run, error)
    assert raised.value is error
    (got,) = server.got
    assert (got["reason"], got["exit_code"], got["message"]) == (reason, exit_code, str(error))


def test_an_error_after_the_end_does_not_change_it(server, run):
    """A run that is finished is notified as finished, though a notice comes while its report is written."""
    with (
        pytest.raises(PreemptionError),
        EndNotification(Webhook.parse(server.url), PreemptionWatcher(), run) as ended,
    ):
        ended.message = "complete after 3 epochs"
        raise PreemptionError("SIGTERM", "preempted")
    assert [(got["reason"], got["exit_code"]) for got in server.got] == [("finished", 0)]


def test_a_notice_during_the_notification_changes_no_end(server, run):
    """SIGTERM while a finished run is notified does not make it one that was cut off."""
    server.on_request = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with PreemptionWatcher() as preemption:
        ends(server, run, preemption=preemption)
        assert preemption.pending is not None
    assert len(server.got) == 1


def test_a_notice_with_little_time_left_is_not_delayed(server, run, monkeypatch):
    """Within the reserve before the deadline of a notice nothing is sent."""
    monkeypatch.setattr(notification, "RESERVE_S", LIMITS_S[signal.SIGTERM])
    with (
        pytest.raises(PreemptionError),
        PreemptionWatcher() as preemption,
        EndNotification(Webhook.parse(server.url), preemption, run),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
    assert server.got == []


def test_a_process_that_leaves_at_once_is_notified(server, run):
    """The deadline of a notice and a hang, by which the process leaves, are notified as well."""
    ended = EndNotification(Webhook.parse(server.url), PreemptionWatcher(), run)
    ended.leave(PreemptionError("SIGTERM", "preempted"))
    assert [got["reason"] for got in server.got] == ["preempted"]


def test_without_a_webhook_nothing_is_sent(run):
    """A run without a webhook ends as it did."""
    with EndNotification(None, PreemptionWatcher(), run):
        pass
