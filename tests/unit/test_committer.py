"""Commits in the background."""

import threading

import pytest

from job.checkpoint import committed
from job.committer import Committer
from job.errors import StoreError, SupersededError, TransientStoreError
from job.run import Run
from job.store.folder import FolderStore
from tests.support.faulty_store import FaultyStore


class Snapshot:
    """A snapshot of one small file, which may wait to be written until it is let go."""

    batch = 0
    about = {"phase": "training"}  # noqa: RUF012  # never changed

    def __init__(self, epoch, gate=None, writing=None):
        self.epoch, self.gate, self.writing = epoch, gate, writing

    def write(self, folder):
        if self.writing:
            self.writing.set()
        if self.gate:
            assert self.gate.wait(30)
        path = folder / "state.pt"
        path.write_text(f"state {self.epoch}")
        return [path]


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


def committer(store, tmp_path, mirror=lambda _folder: None):
    """Make a committer of attempt 1."""
    run = Run(store, "zebra")
    return Committer(run, 1, tmp_path / "staging", None, mirror)


@pytest.fixture
def run(store):
    """A run that attempt 1 has claimed."""
    run = Run(store, "zebra")
    run.claim({})
    return run


def test_training_does_not_wait_for_a_commit(store, run, tmp_path):
    """Submitting returns while the commit before is still being written, and leaving waits for the last one."""
    gate, writing = threading.Event(), threading.Event()
    with committer(store, tmp_path) as background:
        background.submit(Snapshot(1, gate, writing))
        assert writing.wait(30)
        background.submit(Snapshot(2))
        assert committed(run) == []
        gate.set()
    assert [identity.epoch for identity in committed(run)] == [1, 2]


def test_at_most_one_commit_waits(store, run, tmp_path):
    """A snapshot that waits gives way to a newer one, which is committed."""
    gate, writing = threading.Event(), threading.Event()
    with committer(store, tmp_path) as background:
        background.submit(Snapshot(1, gate, writing))
        assert writing.wait(30)
        background.submit(Snapshot(2))
        background.submit(Snapshot(3))
        gate.set()
    assert [identity.epoch for identity in committed(run)] == [1, 3]


def test_a_passing_failure_is_tried_again(store, run, tmp_path):
    """A commit that fails for a passing reason is made again, and training never hears of it."""
    failing = FaultyStore(store, survives=0, error=TransientStoreError("bucket: kept failing"), num_failures=2)
    with committer(failing, tmp_path) as background:
        background.submit(Snapshot(1))
    assert [identity.epoch for identity in committed(run)] == [1]


@pytest.mark.parametrize("error", [TransientStoreError("bucket: kept failing"), StoreError("bucket: no permission")])
@pytest.mark.usefixtures("run")
def test_a_failure_that_lasts_reaches_the_training_thread(store, tmp_path, error):
    """A failure that does not pass is raised where training goes on, never swallowed."""
    with pytest.raises(type(error)), committer(FaultyStore(store, survives=0, error=error), tmp_path) as background:
        background.submit(Snapshot(1))
        background._thread.join(30)
        background.check()


def test_a_superseded_attempt_is_stopped(store, run, tmp_path):
    """A commit after another machine's claim ends this one's training."""
    with pytest.raises(SupersededError), committer(store, tmp_path) as background:
        background.submit(Snapshot(1))
        run.claim({})
        background.submit(Snapshot(2))


@pytest.mark.usefixtures("run")
def test_what_waits_is_committed_when_training_fails(store, run, tmp_path):
    """An error in training does not cost the epoch that was complete before it."""
    with pytest.raises(ValueError, match="training"), committer(store, tmp_path) as background:
        background.submit(Snapshot(1))
        raise ValueError("training")
    assert [identity.epoch for identity in committed(run)] == [1]


def test_a_failing_mirror_costs_no_checkpoint(store, run, tmp_path, caplog):
    """A copy for people that cannot be made is told and does not end training."""

    def mirror(_folder):
        raise StoreError("bucket: no permission to overwrite")

    with committer(store, tmp_path, mirror) as background:
        background.submit(Snapshot(1))
    assert [identity.epoch for identity in committed(run)] == [1]
    assert "no permission to overwrite" in caplog.text
