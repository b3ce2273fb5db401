"""Commits in the background."""

import threading

import pytest

from job.errors import BackgroundError, MachineError, PreemptionError, StoreError, SupersededError, TransientStoreError
from job.runs import checkpoint, committer
from job.runs.checkpoint import commit, committed
from job.runs.committer import AsyncCommitter
from job.runs.records import CheckpointId
from job.runs.run import Claim, Run
from job.storage.local import FolderStore
from job.training.position import Position
from tests.support.faulty_store import FaultyStore


class Snapshot:
    """A snapshot of one small file, which may wait to be written until it is let go."""

    metadata = {"phase": "training"}  # noqa: RUF012  # never changed

    def __init__(self, epoch, gate=None, writing=None, error=None, batch=0):
        self.epoch, self.position = epoch, Position(epoch, batch)
        self.gate, self.writing, self.error = gate, writing, error

    def write(self, folder):
        if self.writing:
            self.writing.set()
        if self.gate:
            assert self.gate.wait(30)
        if self.error:
            raise self.error
        path = folder / "state.pt"
        path.write_text(f"state {self.epoch}")
        return [path]

    def publish(self, folder):
        if not self.position.batch:
            (folder / "last.pt").write_text(f"epoch {self.epoch} for people")


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


def made(store, tmp_path, mirror=lambda _folder: None):
    """Make a committer of attempt 1."""
    run = Run(store, "zebra")
    return AsyncCommitter(Claim(run, 1), tmp_path / "staging", None, mirror)


def settle(background):
    """Wait until a committer's thread has ended."""
    background.join()


@pytest.fixture
def run(store):
    """A run that attempt 1 has claimed."""
    run = Run(store, "zebra")
    run.claim({})
    return run


def test_training_does_not_wait_for_a_commit(store, run, tmp_path):
    """Submitting returns while the commit before is still being written, and leaving waits for the last one."""
    gate, writing = threading.Event(), threading.Event()
    with made(store, tmp_path) as background:
        background.submit(Snapshot(1, gate, writing))
        assert writing.wait(30)
        background.submit(Snapshot(2))
        assert committed(run) == []
        gate.set()
    assert [identity.epoch for identity in committed(run)] == [1, 2]


def test_at_most_one_commit_waits(store, run, tmp_path):
    """A snapshot that waits gives way to a newer one, which is committed."""
    gate, writing = threading.Event(), threading.Event()
    with made(store, tmp_path) as background:
        background.submit(Snapshot(1, gate, writing))
        assert writing.wait(30)
        background.submit(Snapshot(2))
        background.submit(Snapshot(3))
        gate.set()
    assert [identity.epoch for identity in committed(run)] == [1, 3]


def test_a_passing_failure_is_tried_again(store, run, tmp_path):
    """A commit that fails for a passing reason is made again, without an error in training."""
    failing = FaultyStore(store, survives=0, error=TransientStoreError("bucket: kept failing"), num_failures=2)
    with made(failing, tmp_path) as background:
        background.submit(Snapshot(1))
    assert [identity.epoch for identity in committed(run)] == [1]


def test_what_failed_does_not_take_the_place_of_what_is_newer(store, run, tmp_path):
    """When a commit fails while a newer snapshot waits, the newer one is committed, and the older one is not."""
    gate, writing = threading.Event(), threading.Event()
    failing = FaultyStore(store, survives=0, error=TransientStoreError("bucket: kept failing"), num_failures=1)
    with made(failing, tmp_path) as background:
        background.submit(Snapshot(1, gate, writing))
        assert writing.wait(30)
        background.submit(Snapshot(2))
        gate.set()
    assert [identity.epoch for identity in committed(run)] == [2]


def test_failures_count_anew_after_a_commit(store, run, tmp_path, monkeypatch):
    """Only commits that fail in a row end training: one that succeeds between them sets the count back."""
    real, failing = checkpoint.commit, iter([True, True, False, True, True, False])

    def flaky(*words):
        if next(failing):
            raise TransientStoreError("bucket: kept failing")
        return real(*words)

    monkeypatch.setattr(checkpoint, "commit", flaky)
    done = threading.Event()
    with made(store, tmp_path, lambda _folder: done.set()) as background:
        for epoch in (1, 2):
            background.submit(Snapshot(epoch))
            assert done.wait(30)
            done.clear()
    assert [identity.epoch for identity in committed(run)] == [1, 2]
    assert committer.NUM_TRIES == 3


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("error", [TransientStoreError("bucket: kept failing"), StoreError("bucket: no permission")])
def test_a_failure_that_lasts_reaches_the_training_thread(store, tmp_path, error):
    """A failure that lasts is raised in the training thread."""
    with pytest.raises(type(error)), made(FaultyStore(store, survives=0, error=error), tmp_path) as background:
        background.submit(Snapshot(1))
        settle(background)
        background.check()


@pytest.mark.usefixtures("run")
def test_a_commit_is_tried_three_times(store, tmp_path, monkeypatch):
    """A commit that keeps failing for a passing reason is given up at its third failure, and not at a later one."""
    tries = []

    def fail(*_words):
        tries.append(1)
        if len(tries) == 5:
            raise StoreError("tried too often")
        raise TransientStoreError("bucket: kept failing")

    monkeypatch.setattr(checkpoint, "commit", fail)
    with pytest.raises(TransientStoreError, match="kept failing"), made(store, tmp_path) as background:
        background.submit(Snapshot(1))
    assert len(tries) == 3


UNFORESEEN = [MemoryError(), ValueError("an unexpected answer"), KeyError("name"), RuntimeError("no"), SystemExit(3)]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["write", "put", "mirror", "retain"])
def test_an_unexpected_exception_reaches_the_training_thread(store, tmp_path, monkeypatch, where, error):
    """Any exception in any line of the work ends training with exit 75, by the next step and at the end,
    and says what and where it was.
    """

    def fail(*_words):
        raise error

    if where == "retain":
        monkeypatch.setattr(checkpoint, "retain", fail)
    bucket = FaultyStore(store, survives=0, error=error) if where == "put" else store
    background = made(bucket, tmp_path, fail if where == "mirror" else lambda _folder: None)
    with pytest.raises(BackgroundError, match=f"committer: failed, {type(error).__name__}.*py:") as raised, background:
        background.submit(Snapshot(1, error=error if where == "write" else None))
        settle(background)
        with pytest.raises(BackgroundError):
            background.check()
        with pytest.raises(BackgroundError):
            background.submit(Snapshot(2))
    assert (raised.value.exit_code, raised.value.__cause__) == (75, error)


@pytest.mark.usefixtures("run")
def test_a_disk_that_is_full_is_the_machines_fault(store, tmp_path):
    """A snapshot that cannot be written ends training with exit 78 and the system's reason."""
    with pytest.raises(MachineError, match="No space left") as raised, made(store, tmp_path) as background:
        background.submit(Snapshot(1, error=OSError(28, "No space left on device")))
    assert raised.value.exit_code == 78


@pytest.mark.usefixtures("run")
def test_a_disk_that_is_full_for_the_copy_is_the_machines_fault(store, tmp_path):
    """Files for people that cannot be written are no failure of the bucket, which would be logged and ignored."""

    def fail(_folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="No space left"), made(store, tmp_path, fail) as background:
        background.submit(Snapshot(1))


@pytest.mark.usefixtures("run")
def test_an_error_of_the_network_is_not_called_a_full_disk(store, tmp_path):
    """An error of the network that the store lets through is unexpected, though it is an `OSError` like a full disk."""
    lost = ConnectionResetError(104, "Connection reset by peer")
    with pytest.raises(BackgroundError), made(FaultyStore(store, survives=0, error=lost), tmp_path) as background:
        background.submit(Snapshot(1))


@pytest.mark.usefixtures("run")
def test_the_last_commit_that_fails_is_an_error_at_the_end(store, tmp_path):
    """A training whose last commit failed does not end well, though no later step looks at that commit."""
    with (
        pytest.raises(StoreError),
        made(FaultyStore(store, survives=0, error=StoreError("no")), tmp_path) as background,
    ):
        background.submit(Snapshot(1))


@pytest.mark.usefixtures("run")
def test_a_last_commit_that_fails_is_logged_beside_another_error(store, tmp_path, caplog):
    """If training ends by an error of its own, that one is raised, and what was not committed is logged."""
    failing = FaultyStore(store, survives=0, error=StoreError("bucket: no permission"))
    with pytest.raises(ValueError, match="training"), made(failing, tmp_path) as background:
        background.submit(Snapshot(1))
        raise ValueError("training")
    assert "not committed: bucket: no permission" in caplog.text


def test_a_superseded_attempt_is_stopped(store, run, tmp_path):
    """A commit after another machine's claim ends this one's training, and makes no checkpoint."""
    run.claim({})
    with pytest.raises(SupersededError), made(store, tmp_path) as background:
        background.submit(Snapshot(1))
    assert committed(run) == []


def test_what_waits_is_committed_when_training_fails(store, run, tmp_path):
    """An error in training does not cost the epoch that was complete before it."""
    with pytest.raises(ValueError, match="training"), made(store, tmp_path) as background:
        background.submit(Snapshot(1))
        raise ValueError("training")
    assert [identity.epoch for identity in committed(run)] == [1]


def test_before_a_deadline_nothing_follows_the_commit(store, run, tmp_path):
    """Before a deadline the copy for people is left out; else it is made."""
    copied, gate, writing = [], threading.Event(), threading.Event()
    with pytest.raises(ValueError, match="training"), made(store, tmp_path, copied.append) as background:
        background.submit(Snapshot(1, gate, writing))
        assert writing.wait(30)
        threading.Timer(0.0, wait_for_hurry, (background, gate)).start()
        raise ValueError("training")
    assert ([identity.epoch for identity in committed(run)], copied) == ([1], [])
    with made(store, tmp_path, copied.append) as background:
        background.submit(Snapshot(2))
    assert len(copied) == 1


def test_a_deadline_during_the_copy_deletes_no_old_checkpoint(store, run, tmp_path):
    """Old checkpoints are left for later if a deadline is set while the copy for people is made."""
    for epoch in (1, 2, 3):
        commit(run, CheckpointId(epoch, 0, 1), Snapshot(epoch).write(tmp_path), {}, None)
    done = threading.Event()

    def mirror(_folder):
        background.hurried = True
        done.set()

    with pytest.raises(ValueError, match="training"), made(store, tmp_path, mirror) as background:
        background.submit(Snapshot(4))
        assert done.wait(30)
        raise ValueError("training")
    assert [identity.epoch for identity in committed(run)] == [1, 2, 3, 4]


def wait_for_hurry(background, gate):
    """Let a snapshot be written once its committer closes."""
    with background._changed:
        background._changed.wait_for(lambda: background._closing, 30)
    gate.set()


def test_a_failing_mirror_costs_no_checkpoint(store, run, tmp_path, caplog):
    """A copy for people that cannot be made is logged and does not end training."""

    def mirror(_folder):
        raise StoreError("bucket: no permission to overwrite")

    with made(store, tmp_path, mirror) as background:
        background.submit(Snapshot(1))
    assert [identity.epoch for identity in committed(run)] == [1]
    assert "no permission to overwrite" in caplog.text


def test_the_copy_for_people_is_made_after_the_commit_and_is_no_part_of_it(store, run, tmp_path):
    """The mirror gets what a snapshot publishes, of which no checkpoint has anything."""
    mirrored = []

    def mirror(folder):
        mirrored.append(((folder / "last.pt").read_text(), [identity.epoch for identity in committed(run)]))

    with made(store, tmp_path, mirror) as background:
        background.submit(Snapshot(1))
    assert mirrored == [("epoch 1 for people", [1])]
    assert not [stored.key for stored in store.list("runs/") if stored.key.endswith("last.pt")]


@pytest.mark.parametrize("num_failures", [0, 1])
def test_a_slow_bucket_keeps_no_epoch_from_people(store, run, tmp_path, num_failures):
    """A checkpoint within an epoch that takes the place of the end of the one before, which waits or has failed, is
    committed in its stead, and people get that end; after it the newest end alone.
    """
    gate, writing, mirrored = threading.Event(), threading.Event(), []

    def mirror(folder):
        path = folder / "last.pt"
        mirrored.append(path.read_text() if path.exists() else None)

    error = TransientStoreError("bucket: kept failing")
    failing = FaultyStore(store, survives=0, error=error, num_failures=num_failures)
    with made(failing, tmp_path, mirror) as background:
        background.submit(Snapshot(1, gate, writing))
        assert writing.wait(30)
        for epoch, batch in ((1, 5), (1, 9)) if num_failures else ((1, 5), (2, 0), (2, 5), (2, 9)):
            background.submit(Snapshot(epoch, batch=batch))
        gate.set()
    if num_failures:
        assert [identity.position for identity in committed(run)] == [(1, 9)]
        assert mirrored == ["epoch 1 for people"]
    else:
        assert [identity.position for identity in committed(run)] == [(1, 0), (2, 9)]
        assert mirrored == ["epoch 1 for people", "epoch 2 for people"]


@pytest.mark.usefixtures("run")
def test_only_the_files_of_one_snapshot_are_copied(store, tmp_path):
    """Files of an earlier snapshot in the folder for uploads are gone when the next one is copied."""
    mirrored = []

    class Plain(Snapshot):
        def publish(self, folder):
            """Publish nothing."""

    def mirror(folder):
        mirrored.append(sorted(path.name for path in folder.iterdir()))
        done.set()

    done = threading.Event()
    with made(store, tmp_path, mirror) as background:
        background.submit(Snapshot(1))
        assert done.wait(30)
        background.submit(Plain(2))
    assert mirrored == [["last.pt", "state.pt"], ["state.pt"]]


def test_bytes_that_did_not_change_are_stored_once(store, run, tmp_path):
    """A file with the bytes of the commit before is not uploaded again."""
    done = threading.Event()

    class Same(Snapshot):
        def write(self, folder):
            (folder / "best.pt").write_text("the best so far")
            return [folder / "best.pt"]

    with made(store, tmp_path, lambda _folder: done.set()) as background:
        background.submit(Same(1))
        assert done.wait(30)
        background.submit(Same(2))
    keys = [file.key for identity in committed(run) for file in checkpoint.read_manifest(run, identity).files]
    assert keys == ["runs/zebra/checkpoints/0001-000000.a0001/best.pt"] * 2


def test_a_preemption_names_what_its_last_commit_lost(store, run, tmp_path, caplog):
    """A commit that fails on a preemption is not hidden by it: the error names what is not committed."""
    refusing = FaultyStore(store, survives=0, error=StoreError("bucket: no permission"))
    notice = PreemptionError("SIGTERM: asked to stop", "preempted")
    with pytest.raises(PreemptionError) as raised, made(refusing, tmp_path) as background:
        background.submit(Snapshot(3))
        raise notice
    assert raised.value is notice
    assert str(notice) == "SIGTERM: asked to stop; epoch 3 is not committed, StoreError: bucket: no permission"
    assert "not committed: bucket: no permission" in caplog.text
    assert committed(run) == []


def test_a_notice_whose_last_commit_is_there_has_lost_nothing(store, run, tmp_path):
    """A preemption after which everything is committed names its sender alone."""
    with pytest.raises(PreemptionError) as raised, made(store, tmp_path) as background:
        background.submit(Snapshot(3))
        raise PreemptionError("SIGTERM: asked to stop", "preempted")
    assert str(raised.value) == "SIGTERM: asked to stop"
    assert [identity.epoch for identity in committed(run)] == [3]


def test_an_extension_shares_no_file_with_the_run_that_it_extends(store, run, tmp_path):
    """Files of another run may be deleted with it, so that equal ones are stored again."""
    earlier = Run(store, "gnu")
    earlier.claim({})
    (tmp_path / "gnu").mkdir()
    end = commit(earlier, CheckpointId(1, 0, 1), Snapshot(1).write(tmp_path / "gnu"), {}, None)
    with AsyncCommitter(Claim(run, 1), tmp_path / "staging", end, lambda _folder: None) as background:
        assert background.newest is None
        background.submit(Snapshot(1))
    (newest,) = committed(run)
    keys = [file.key for file in checkpoint.read_manifest(run, newest).files]
    assert keys == [f"runs/zebra/checkpoints/{newest}/state.pt"]
