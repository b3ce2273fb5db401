"""Threads beside training cannot die in silence."""

import http.client
import threading

import pytest

from job.background import Background
from job.errors import BackgroundError, PauseError, StoreError
from job.runs.heartbeat import Heartbeat
from job.runs.run import Claim, Run
from job.session.preemption import PreemptionWatcher
from job.storage.local import FolderStore


@pytest.fixture
def run(tmp_path):
    """A run that attempt 1 has claimed."""
    run = Run(FolderStore.create(str(tmp_path / "bucket")), "zebra")
    run.claim({})
    return run


def test_an_error_of_ours_is_raised_as_it_is():
    """An error with an exit code of its own keeps it."""
    error = StoreError("bucket: no permission")

    def fail():
        raise error

    background = Background("work", fail)
    background.start()
    background.join()
    with pytest.raises(StoreError) as raised:
        background.check()
    assert raised.value is error


def test_a_thread_that_ends_raises_nothing():
    """A thread that ends is no failure."""
    background = Background("work", lambda: None)
    background.start()
    background.join()
    background.check()


def test_a_thread_runs_until_its_work_is_done():
    """Work is under way from its start to its end."""
    go = threading.Event()
    background = Background("work", go.wait)
    assert not background.is_running
    background.start()
    assert background.is_running
    go.set()
    background.join()
    assert not background.is_running


def test_a_heartbeat_that_dies_ends_training(run):
    """An exception of the heartbeat thread is kept for the training thread."""

    def about():
        raise ZeroDivisionError("a clock that was set back")

    with Heartbeat(Claim(run, 1), about, lambda _notice: None) as heartbeat:
        heartbeat.join()
    with pytest.raises(BackgroundError, match="heartbeat: failed, ZeroDivisionError: a clock"):
        heartbeat.check()


def test_a_bucket_that_fails_a_heartbeat_ends_nothing(run, monkeypatch, caplog):
    """Heartbeats that cannot be written are reported once; a stop request is seen as soon as they can be."""
    asked, heartbeat = threading.Event(), Claim.heartbeat
    answers = iter([StoreError("bucket: away"), StoreError("bucket: away"), None])

    def flaky(*words):
        if (error := next(answers, None)) is not None:
            raise error
        heartbeat(*words)

    monkeypatch.setattr(Claim, "heartbeat", flaky)
    Claim(run, 1).ask_to_stop("here")
    with Heartbeat(
        Claim(run, 1), dict, lambda notice: isinstance(notice, PauseError) and asked.set(), every_s=0.01
    ) as living:
        assert asked.wait(30)
        living.check()
    living.join()
    assert caplog.text.count("bucket: away") == 1


def test_a_request_to_stop_is_passed_on_once(run):
    """However many heartbeats follow, one request is one pause."""
    asked, beats = [], threading.Semaphore(0)

    def about():
        beats.release()
        return {}

    Claim(run, 1).ask_to_stop("here")
    with Heartbeat(Claim(run, 1), about, asked.append, every_s=0.01) as heartbeat:
        assert all(beats.acquire(timeout=30) for _ in range(4))
    heartbeat.join()
    assert len(asked) == 1


def test_watching_for_notices_that_fails_is_seen_at_the_next_step(monkeypatch):
    """An exception of the thread that asks the metadata server is raised where steps are agreed on."""
    answered = iter(["FALSE"])

    def ask(*_words):
        try:
            return next(answered), "0"
        except StopIteration:
            raise http.client.BadStatusLine("nonsense") from None

    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    monkeypatch.setattr("job.cloud.gce_metadata.MetadataServer._ask", ask)
    with PreemptionWatcher() as preemption:
        preemption.watch()
        preemption._threads[-1].join()
        with pytest.raises(BackgroundError, match="metadata server: failed, BadStatusLine"):
            preemption.agree_on_notice(lambda level: level)


def test_no_heartbeat_follows_the_end(run):
    """Once an attempt has left its heartbeat, the thread ends: a later one would hide when it was last alive."""
    with Heartbeat(Claim(run, 1), dict, lambda _notice: None, every_s=0.01) as heartbeat:
        pass
    heartbeat._thread.join(30)
    assert not heartbeat._thread.is_alive()
