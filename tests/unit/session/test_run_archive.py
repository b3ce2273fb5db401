"""Copies of finished runs in an archive, which is a folder here."""

import logging
from types import SimpleNamespace

import pytest

from job.errors import TransientStoreError
from job.runs.run import Run
from job.session import run_archive as module
from job.session.run_archive import archive_prefix, archive_run
from job.storage.local import FolderStore
from job.storage.open_store import open_archive
from tests.support.faulty_store import FaultyStore
from tests.support.run_records import record_run, store_weights


@pytest.fixture
def run(tmp_path):
    """A finished run with its weights, on a dataset that was copied in by hand."""
    run = record_run(tmp_path / "bucket", (0.5, 0.6))
    store_weights(run)
    return run


@pytest.fixture
def request_(tmp_path):
    """A request that names an archive."""
    return SimpleNamespace(archive=str(tmp_path / "archive"), workdir=tmp_path / "work")


def archived(run, request):
    """Copy a run to the archive of a request, and return the objects there."""
    archive_run(run, run.record(), run.final(), request)
    store = FolderStore.create(request.archive)
    return {stored.key: store.read(stored.key) for stored in store.list()}


def test_records_and_weights_are_copied_once(run, request_):
    """Records and final weights lie below a prefix of name and time, and a second time nothing is written."""
    prefix = archive_prefix(run.record())
    assert prefix.startswith("runs/zebra/20261123T08")
    names = ["final.json", "run.json", "weights/best.pt", "weights/last.pt"]
    assert archived(run, request_) == {prefix + name: run.store.read(run.key(name)) for name in names}
    open_archive(request_.archive).delete(f"{prefix}final.json")  # it would come back if it were copied again
    assert len(archived(run, request_)) == 3
    request_.archive += "2"
    assert len(archived(run, request_)) == 4


@pytest.mark.parametrize("lock", ["versions/0001.lock.json", "dataset.lock.json"])
def test_the_lock_of_the_dataset_is_copied(run, request_, lock):
    """The lock of the version that the run was trained on lies beside its records, an old one too."""
    content = b'{"schema": 2, "version": 1, "digest": "", "files": {}}'
    run.store.put(f"datasets/wild/{lock}", content)
    record = run.record()
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no files
    pinned = record.model_copy(update={"dataset": record.dataset.model_copy(update={"digest": digest})})
    archive_run(run, pinned, run.final(), request_)
    assert open_archive(request_.archive).read(f"{archive_prefix(record)}dataset.lock.json") == content


def test_weights_that_were_replaced_are_not_copied(run, request_, caplog):
    """What cannot be corrected later has the weights that the run ended with, or a warning that they are gone."""
    run.store.put(run.key("weights/best.pt"), b"of somebody", overwrite=True)
    assert not [key for key in archived(run, request_) if key.endswith("best.pt")]
    assert "weights/best.pt: is not the file that the run ended with" in caplog.text
    assert not run.store.list(run.key(module.RECORD))


def test_without_an_archive_nothing_is_written(run, tmp_path):
    """A request that names none leaves the run's folder as it was."""
    before = [stored.key for stored in run.store.list()]
    archive_run(run, run.record(), run.final(), SimpleNamespace(archive=None, workdir=tmp_path / "work"))
    assert [stored.key for stored in run.store.list()] == before


def test_a_failure_is_a_warning_and_the_next_attempt_completes_the_copy(run, request_, monkeypatch, caplog):
    """Of an archive that fails after two objects the run hears with the remedy; the same command copies the rest."""
    caplog.set_level(logging.INFO)
    error = TransientStoreError("gs://archive/x: kept failing for 120 s; try again later")
    fails = [FaultyStore(FolderStore.create(request_.archive), survives=2, error=error), open_archive(request_.archive)]
    monkeypatch.setattr(module, "open_archive", lambda _location: fails.pop(0))
    assert len(archived(run, request_)) == 2
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    said = warning.getMessage()
    assert "not in the archive, gs://archive/x: kept failing for 120 s; the same command copies it once" in said
    assert "`make infra-apply` lets the account that trains create objects" in said
    assert len(archived(run, request_)) == 4
    assert caplog.records[-1].levelname == "INFO"


def test_a_run_of_a_name_that_was_used_before_has_its_own_copies(run, request_, tmp_path):
    """The archive outlives a bucket, so that a later run of the same name lies beside the earlier one."""
    archived(run, request_)
    later = Run(FolderStore.create(str(tmp_path / "later")), "zebra")
    record = run.record().model_copy(update={"created_at": "2027-01-01T00:00:00.000+00:00"})
    for stored in run.store.list(run.key("")):
        if not stored.key.endswith(("run.json", "archived.json")):
            later.store.put(stored.key, run.store.read(stored.key))
    later.create(record)
    assert len(archived(later, request_)) == 8
