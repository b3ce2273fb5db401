"""Copies of a run's newest files for people."""

import pytest

from job.runs.artifacts import ArtifactPublisher
from job.runs.run import Run
from job.storage.local import FolderStore
from tests.support.faulty_store import FaultyStore


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder, which counts its writes."""
    return FaultyStore(FolderStore.create(str(tmp_path / "bucket")))


@pytest.fixture
def publisher(store):
    """A publisher of run zebra."""
    return ArtifactPublisher(Run(store, "zebra"))


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of a commit, and a folder of plots."""
    (tmp_path / "staging/plots").mkdir(parents=True)
    for name in ("best.pt", "last.pt", "results.csv", "state.pt"):
        (tmp_path / "staging" / name).write_text(name)
    return tmp_path / "staging"


def test_files_lie_where_ultralytics_has_them(store, publisher, folder):
    """Weights lie in a folder of their own; the state and folders are not copied."""
    publisher.copy(folder)
    keys = [stored.key.removeprefix("runs/zebra/") for stored in store.list("runs/")]
    assert keys == ["results.csv", "weights/best.pt", "weights/last.pt"]


def test_a_changed_file_replaces_its_copy_and_no_other_is_sent_again(store, publisher, folder):
    """Of the files of the next commit only those with other bytes are written."""
    publisher.copy(folder)
    (folder / "results.csv").write_text("another epoch")
    publisher.copy(folder)
    assert (store.num_writes, store.read("runs/zebra/results.csv")) == (4, b"another epoch")


def test_a_deadline_ends_copying_between_two_files(store, publisher, folder):
    """The file that is being copied is copied to its end, and no other is begun."""
    publisher.copy(folder, lambda: store.num_writes > 0)
    assert [stored.key for stored in store.list("runs/")] == ["runs/zebra/weights/best.pt"]
