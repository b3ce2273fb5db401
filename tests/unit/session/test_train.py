"""One attempt at a run, around a training that does what the test says."""

import gc
import threading
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest

from job.errors import BackgroundError
from job.runs import checkpoint
from job.runs.run import Claim
from job.session import train as module
from job.session.attempt import StartedAttempt
from job.session.context import SessionContext
from job.session.preemption import LIMITS_S, RANK_LIMITS_S, PreemptionWatcher
from job.training.position import Position
from tests.support.run_records import record_run


@pytest.mark.parametrize(("variables", "limits_s"), [({}, LIMITS_S), ({"RANK": "0"}, RANK_LIMITS_S)])
def test_a_process_among_several_has_less_time_after_ctrl_c(monkeypatch, variables, limits_s):
    """A launcher kills its processes 30 s after any signal; a process without a launcher has a minute."""

    def watcher(limits_s):
        raise InterruptedError(str(limits_s))

    monkeypatch.delenv("RANK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "PreemptionWatcher", watcher)
    with pytest.raises(InterruptedError) as raised:
        module.train(None, SimpleNamespace(hang_after_s=0))
    assert str(raised.value) == str(limits_s)


def count_collections():
    """Return how often the collector of garbage has run."""
    return sum(generation["collections"] for generation in gc.get_stats())


def test_the_objects_of_a_set_up_are_not_looked_at_until_the_end():
    """A set-up is not collected, even if the collector is enabled in it; later objects are, and after the block all."""
    thresholds, before = gc.get_threshold(), count_collections()
    with module.set_up_uncollected() as collect_later_ones:
        gc.enable()
        kept = [[] for _ in range(100_000)]
        assert count_collections() == before
        collect_later_ones()
        assert gc.get_freeze_count() > len(kept)
        assert gc.get_threshold() == thresholds
        later = [[] for _ in range(100_000)]
        assert len(later) == len(kept)
        assert count_collections() > before
    assert gc.get_freeze_count() == 0
    with pytest.raises(InterruptedError), module.set_up_uncollected():
        raise InterruptedError
    assert gc.get_threshold() == thresholds


def test_a_training_collects_none_of_its_set_up(monkeypatch, tmp_path):
    """The set-up of a training is not collected, later objects are, and after its end all."""
    seen, thresholds = [], gc.get_threshold()
    claim = SimpleNamespace(run=record_run(tmp_path / "bucket", (0.5,), finished=False, asked=3))
    context = SimpleNamespace(in_folder=lambda _name: nullcontext(SimpleNamespace(folder=tmp_path)))

    def start(*_):
        seen.append(gc.get_threshold()[0])
        return SimpleNamespace(claim=claim)

    def train_to_end(*_):
        seen.extend((gc.get_threshold(), gc.get_freeze_count() > 0))
        raise InterruptedError

    for name, fake in {
        "start": start,
        "_train_to_end": train_to_end,
        "ReportRefresher": nullcontext,
        "Tracker": lambda *_: nullcontext(),
        "attempt_recorded": lambda *_: nullcontext(),
    }.items():
        monkeypatch.setattr(module, name, fake)
    with pytest.raises(InterruptedError):
        module._train_run(context, claim.run, None, SimpleNamespace(run=None))
    assert seen == [0, thresholds, True]
    assert gc.get_freeze_count() == 0


class Snapshot:
    """A snapshot of one file at a position."""

    metadata = {"phase": "training"}  # noqa: RUF012 -- never changed

    def __init__(self, epoch, batch):
        self.position = Position(epoch, batch)

    def write(self, folder):
        path = folder / "state.pt"
        path.write_text(str(self.position))
        return [path]

    def publish(self, folder):
        """Publish nothing."""


@pytest.fixture
def resume(tmp_path, monkeypatch):
    """A function that resumes a run after its second epoch, as attempt 3; a function of callbacks and context trains
    it to batch 1 of the third. Nothing is uploaded at its end.
    """
    monkeypatch.setattr(module, "finish", lambda *_: None)
    run = record_run(tmp_path / "bucket", (0.5, 0.6), finished=False, asked=3)
    request = SimpleNamespace(checkpoint_every_s=0.0)
    context = SessionContext(store=run.store, request=request, preemption=PreemptionWatcher(), folder=tmp_path)
    silent = SimpleNamespace(notify=lambda: None, refresh=lambda: None, copy=lambda *_: None)

    def train(function):
        training = SimpleNamespace(
            num_epochs=3,
            progress=SimpleNamespace(before=None, rows=[]),
            position=Position(2, 1),
            record_fields={},
            synchronize=lambda: None,
            run=lambda callbacks: function(callbacks, context),
        )
        restored = checkpoint.read_manifest(run, checkpoint.committed(run)[-1])
        started = StartedAttempt(run.claim({}), run.record(), training, restored=restored)
        module._train_to_end(context, started, silent, silent, silent)
        return context

    return train


def test_a_heartbeat_has_no_commit_of_an_earlier_attempt(resume, monkeypatch):
    """What an earlier attempt committed is none of this one's work, and says nothing of this one's seconds."""
    kept, beat = [], threading.Event()
    monkeypatch.setattr(Claim, "heartbeat", lambda _claim, fields: (kept.append(fields["kept"]), beat.set()))
    resume(lambda _callbacks, _context: beat.wait(30))
    assert kept[0] is None


def test_heartbeats_come_until_the_last_upload_is_over(resume, monkeypatch):
    """A run whose results take long to upload does not look as if its machine was gone, and none comes after that."""
    beat, uploaded, late = threading.Event(), threading.Event(), []

    def upload(*_):
        for _ in range(2):  # one may have been under way
            beat.clear()
            assert beat.wait(30)
        uploaded.set()

    monkeypatch.setattr(module, "Heartbeat", partial(module.Heartbeat, every_s=0.01))
    monkeypatch.setattr(Claim, "heartbeat", lambda *_: beat.set())
    monkeypatch.setattr(module, "finish", upload)
    resume(lambda _callbacks, _context: None)
    assert uploaded.is_set()
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(30)
            late.append(thread.is_alive())
    assert not any(late)


def test_what_is_at_stake_is_what_is_trained_and_not_committed(resume):
    """Steps after the newest checkpoint are named; once they are committed, nothing is."""
    stakes = []

    def train(callbacks, context):
        stakes.append(context.preemption.describe_uncommitted())
        callbacks.committer.submit(Snapshot(2, 1))

    context = resume(train)
    assert [*stakes, context.preemption.describe_uncommitted()] == [
        "batch 1 of epoch 3 was trained, and committed is epoch 2",
        "",
    ]


def test_a_heartbeat_that_dies_ends_training_at_the_next_batch(resume, monkeypatch):
    """The callbacks of the training look at the thread."""

    def fail(*_):
        raise ZeroDivisionError

    def train(callbacks, _context):
        for thread in threading.enumerate():
            if thread.name == "heartbeat":
                thread.join(30)
        callbacks.on_validation_batch()

    monkeypatch.setattr(Claim, "heartbeat", fail)
    with pytest.raises(BackgroundError, match="heartbeat: failed, ZeroDivisionError"):
        resume(train)
