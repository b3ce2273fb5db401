"""The commit protocol under faults: a store that dies at any write, damaged bytes, two machines at once."""

import contextlib
import json
import logging
import os
from pathlib import Path

import pytest

from job.errors import (
    CorruptObjectError,
    PreconditionError,
    SupersededError,
    TransientStoreError,
    UnreadableRecordError,
    WeightsError,
)
from job.runs import checkpoint
from job.runs.checkpoint import commit, committed, read_manifest, restore, retain, set_aside, verify
from job.runs.records import CheckpointId
from job.runs.run import Run
from job.storage.local import FolderStore
from tests.support.counting_store import CountingStore
from tests.support.faulty_store import ABSENT, DAMAGED, WHOLE, Died, FaultyStore, FlakyStore


@pytest.fixture
def store(tmp_path):
    """An empty bucket in a folder."""
    return FolderStore.create(str(tmp_path / "bucket"))


@pytest.fixture
def run(store):
    """A run that attempt 1 has claimed."""
    run = Run(store, "zebra")
    run.claim({})
    return run


@pytest.fixture
def files(tmp_path):
    """A function that makes the files of an epoch: a state and results that change, best weights that may not."""

    def make(epoch, best="first"):
        folder = tmp_path / f"files-{epoch}"
        folder.mkdir()
        (folder / "state.pt").write_bytes(b"state %d" % epoch * 100)
        (folder / "best.pt").write_text(best)
        (folder / "results.csv").write_text("\n".join(map(str, range(epoch + 1))))
        return sorted(folder.iterdir())

    return make


def restored(run, folder):
    """Restore into a fresh folder and return the epoch and the state."""
    folder.mkdir()
    manifest = restore(run, folder)
    return (manifest.epoch, (folder / "state.pt").read_bytes()) if manifest else None


def all_whole(run, scratch):
    """Whether every checkpoint that counts is whole, the newest and those before it."""
    scratch.mkdir(exist_ok=True)
    return {str(identity): verify(run, identity, scratch) for identity in committed(run)} == {
        str(identity): [] for identity in committed(run)
    }


def resealed(store, key, **changes):
    """Change a manifest, and seal it again."""
    content = json.loads(store.read(key)) | changes
    del content["seal"]
    store.put(key, checkpoint._sealed(content), overwrite=True)


def keys(store, part="checkpoints/"):
    """Return the names below a run's checkpoints."""
    return [stored.key.removeprefix("runs/zebra/checkpoints/") for stored in store.list(f"runs/zebra/{part}")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("survives", range(9))
def test_a_process_that_dies_at_any_write_leaves_a_restorable_run(store, run, files, tmp_path, survives, when):
    """After a death at any write of a commit and its retention, before or after it happened, the newest
    committed checkpoint is whole.
    """
    first = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    second = commit(run, CheckpointId(2, 0, 1), files(2), {}, first)
    dying = Run(FaultyStore(store, survives=survives, when=when), "zebra")
    third = files(3, best="second")
    died = False
    try:
        commit(dying, CheckpointId(3, 0, 1), third, {}, second)
        retain(dying)
    except Died:
        died = True
    assert died or survives > 4
    newest = committed(run)[-1]
    assert len(committed(run)) >= 2
    assert all_whole(run, tmp_path / "scratch")
    assert restored(run, tmp_path / "restored") == (newest.epoch, b"state %d" % newest.epoch * 100)
    # and the next attempt goes on from there
    attempt = run.claim({}).attempt
    commit(run, CheckpointId(4, 0, attempt), files(4), {}, read_manifest(run, newest))
    assert restored(run, tmp_path / "again") == (4, b"state 4" * 100)


def test_the_number_of_writes_is_covered(store, run, files):
    """A commit with retention makes fewer writes than the test above has cases for, so that none is left out."""
    first = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    second = commit(run, CheckpointId(2, 0, 1), files(2), {}, first)
    counting = FaultyStore(store, survives=1000)
    commit(Run(counting, "zebra"), CheckpointId(3, 0, 1), files(3, best="second"), {}, second)
    retain(Run(counting, "zebra"))
    assert 4 < counting.num_writes < 9


def test_nothing_is_visible_before_the_manifest(store, run, files):
    """Files that were stored without their manifest are no checkpoint."""
    dying = Run(FaultyStore(store, survives=3), "zebra")
    with pytest.raises(Died):
        commit(dying, CheckpointId(1, 0, 1), files(1), {}, None)
    assert len(keys(store)) == 3
    assert committed(run) == []


def test_a_failed_upload_commits_nothing(store, run, files):
    """A store that fails a file leaves no manifest behind."""
    failing = Run(FaultyStore(store, survives=1, error=TransientStoreError("bucket: kept failing")), "zebra")
    with pytest.raises(TransientStoreError):
        commit(failing, CheckpointId(1, 0, 1), files(1), {}, None)
    assert committed(run) == []


@pytest.mark.parametrize("name", ["state.pt", "best.pt", "results.csv", "manifest.json"])
def test_a_changed_byte_is_named_and_the_checkpoint_before_it_restored(store, run, files, tmp_path, caplog, name):
    """After one byte of the newest checkpoint changed, verifying names the file, and restoring takes the one
    before and says why.
    """
    first = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2, best="second"), {}, first)
    key = f"runs/zebra/checkpoints/{newest.id}/{name}"
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data), overwrite=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (problem,) = verify(run, newest.id, scratch)
    assert key in problem
    with caplog.at_level(logging.WARNING):
        assert restored(run, tmp_path / "restored") == (1, b"state 1" * 100)
    assert key in caplog.text
    assert "is skipped" in caplog.text
    # It no longer counts, so that retention keeps two whole ones, and nothing of it was deleted.
    assert key in {stored.key for stored in store.list()}
    assert set_aside(run) == {newest.id: [problem]} if name == "manifest.json" else newest.id in set_aside(run)
    attempt = run.claim({}).attempt
    manifest = commit(run, CheckpointId(2, 0, attempt), files(12), {}, first)
    retain(run)
    assert [(identity.epoch, identity.attempt) for identity in committed(run)] == [(1, 1), (2, attempt)]
    assert verify(run, manifest.id, scratch) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("survives", range(14))
def test_a_process_that_dies_in_retention_leaves_whole_checkpoints(store, run, files, tmp_path, survives, when):
    """After a death at any deletion, before or after it happened, every checkpoint that counts is whole: its
    manifest goes before its files.
    """
    for epoch in range(1, 6):
        commit(run, CheckpointId(epoch, 0, 1), files(epoch, best=f"{epoch}"), {}, None)
    with contextlib.suppress(Died):
        retain(Run(FaultyStore(store, survives=survives, when=when), "zebra"))
    assert len(committed(run)) >= 2
    assert all_whole(run, tmp_path / "scratch")
    retain(run)
    assert {key.split("/")[0] for key in keys(store)} == {"0004-000000.a0001", "0005-000000.a0001"}


def test_one_bad_read_condemns_no_checkpoint(store, run, files, tmp_path):
    """A byte that changes on the way once, or a file that is not found once, costs a second read and nothing else."""
    commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2), {}, None)
    before = store.list(checksums=True)
    for number, fault in enumerate((DAMAGED, ABSENT)):
        flaky = FlakyStore(store, {f"runs/zebra/checkpoints/{newest.id}/state.pt": [fault]})
        assert restored(Run(flaky, "zebra"), tmp_path / f"restored{number}") == (2, b"state 2" * 100)
    assert store.list(checksums=True) == before


@pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
def test_bad_reads_of_a_sound_checkpoint_are_no_damage(store, run, files, tmp_path, name):
    """A checkpoint that cannot be fetched, though the bucket describes it as it was committed, is neither set aside nor
    passed over for an older one: the attempt ends, and is tried again later.
    """
    commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2), {}, None)
    before = store.list(checksums=True)
    key = f"runs/zebra/checkpoints/{newest.id}/{name}"
    for number, faults in enumerate(([ABSENT] * 9, [DAMAGED] * 9 if name == "state.pt" else [ABSENT] * 9)):
        with pytest.raises(TransientStoreError, match="is intact in the bucket"):
            restored(Run(FlakyStore(store, {key: faults}), "zebra"), tmp_path / f"restored{number}")
    assert store.list(checksums=True) == before
    assert restored(run, tmp_path / "restored") == (2, b"state 2" * 100)


def test_one_wrong_description_condemns_no_checkpoint(store, run, files, tmp_path):
    """A checkpoint whose description in the bucket contradicts its manifest once, and not twice, is not set aside."""
    newest = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    key = f"runs/zebra/checkpoints/{newest.id}/state.pt"
    flaky = FlakyStore(store, {key: [DAMAGED] * 9}, {key: 1})
    with pytest.raises(TransientStoreError):
        restored(Run(flaky, "zebra"), tmp_path / "restored")
    assert set_aside(run) == {}


def test_a_checkpoint_of_an_older_version_is_restored_and_condemned_by_its_bytes(store, run, files, tmp_path):
    """Manifests without CRC-32C are read; of what they list two verified reads with other bytes are damage."""
    first = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2), {}, None)
    for manifest in (first, newest):
        names = ("name", "key", "size_bytes", "sha256")
        old = [{name: getattr(file, name) for name in names} for file in manifest.files]
        resealed(store, f"runs/zebra/checkpoints/{manifest.id}/manifest.json", files=old)
    assert restored(run, tmp_path / "whole") == (2, b"state 2" * 100)
    key = f"runs/zebra/checkpoints/{newest.id}/state.pt"
    flaky = FlakyStore(store, {key: [DAMAGED, WHOLE]})
    assert restored(Run(flaky, "zebra"), tmp_path / "again") == (2, b"state 2" * 100)
    assert set_aside(run) == {}
    store.put(key, b"state 3" * 100, overwrite=True)
    assert restored(run, tmp_path / "damaged") == (1, b"state 1" * 100)
    assert list(set_aside(run)) == [newest.id]


def test_rotten_bytes_are_damage(store, run, files, tmp_path):
    """A file whose bytes changed on the disk, under the same description, sets its checkpoint aside."""
    commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2), {}, None)
    path = Path(store.uri) / f"runs/zebra/checkpoints/{newest.id}/state.pt"
    status = path.stat()
    path.write_bytes(b"state 3" * 100)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert restored(run, tmp_path / "restored") == (1, b"state 1" * 100)
    assert list(set_aside(run)) == [newest.id]


def test_what_was_set_aside_is_not_looked_at_again(store, run, files, tmp_path, caplog):
    """A checkpoint that was set aside stays so, is not restored, and is reported with what is wrong with it."""
    commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2), {}, None)
    key = f"runs/zebra/checkpoints/{newest.id}/state.pt"
    store.delete(key)
    restored(run, tmp_path / "first")
    caplog.clear()
    assert restored(run, tmp_path / "second") == (1, b"state 1" * 100)
    assert caplog.text == ""
    assert set_aside(run) == {newest.id: [f"{key}: is gone"]}


def test_retention_keeps_two_that_were_not_set_aside(store, run, files, tmp_path):
    """A checkpoint that was set aside is none of the two that are kept, and goes when it is older than those."""
    for epoch in (1, 2, 3):
        newest = commit(run, CheckpointId(epoch, 0, 1), files(epoch, best=f"{epoch}"), {}, None)
    store.delete(f"runs/zebra/checkpoints/{newest.id}/state.pt")
    restored(run, tmp_path / "restored")
    retain(run)
    assert [identity.epoch for identity in committed(run)] == [1, 2]
    for epoch in (4, 5):
        commit(run, CheckpointId(epoch, 0, 1), files(epoch, best=f"{epoch}"), {}, None)
        retain(run)
    assert [identity.epoch for identity in committed(run)] == [4, 5]
    assert {key.split("/")[0] for key in keys(store)} == {"0004-000000.a0001", "0005-000000.a0001"}


def test_a_run_whose_checkpoints_were_all_set_aside_does_not_begin_again(store, run, files, tmp_path):
    """Also at a later start, a run without a whole checkpoint is an error and not an empty run."""
    newest = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    store.delete(f"runs/zebra/checkpoints/{newest.id}/state.pt")
    for number in range(2):
        with pytest.raises(CorruptObjectError, match="has no intact checkpoint, found 1 set aside"):
            restored(run, tmp_path / f"restored{number}")


def test_nothing_of_a_damaged_checkpoint_is_left_in_the_folder(store, run, files, tmp_path):
    """After a checkpoint was passed over, the folder has the files of the one before it, and no other."""
    first = commit(run, CheckpointId(1, 0, 1), files(1)[:1], {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2, best="second"), {}, None)
    store.delete(f"runs/zebra/checkpoints/{newest.id}/state.pt")
    (tmp_path / "restored").mkdir()
    assert restore(run, tmp_path / "restored") == first
    assert {path.name for path in (tmp_path / "restored").iterdir()} == {file.name for file in first.files}


@pytest.mark.parametrize(
    "changes",
    [{"run": "gnu"}, {"epoch": 7}, {"batch": 7}, {"attempt": 7}],
    ids=str,
)
def test_a_manifest_of_another_checkpoint_is_refused(store, run, files, changes):
    """A manifest whose seal is right, and which is that of another run or position, is not believed."""
    manifest = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    resealed(store, f"runs/zebra/checkpoints/{manifest.id}/manifest.json", **changes)
    with pytest.raises(CorruptObjectError, match="is not the manifest of this checkpoint"):
        read_manifest(run, manifest.id)


def test_a_manifest_of_a_newer_version_is_no_damage(store, run, files, tmp_path):
    """A sealed manifest of a newer schema ends the start: nothing is passed over for it."""
    commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2), {}, None)
    resealed(store, f"runs/zebra/checkpoints/{newest.id}/manifest.json", schema=2)
    with pytest.raises(UnreadableRecordError, match=r"written by a newer version of the job \(schema 2\)"):
        restored(run, tmp_path / "restored")
    assert set_aside(run) == {}


def test_a_commit_that_came_through_unheard_is_not_a_conflict(store, run, files):
    """A commit whose manifest was written, and whose answer was lost, can be repeated; one with other files cannot."""
    lost = FaultyStore(store, survives=3, when="after", error=TransientStoreError("bucket"), num_failures=1)
    paths = files(1)
    with pytest.raises(TransientStoreError):
        commit(Run(lost, "zebra"), CheckpointId(1, 0, 1), paths, {}, None)
    assert len(committed(run)) == 1
    manifest = commit(run, CheckpointId(1, 0, 1), paths, {}, None)
    assert manifest == read_manifest(run, CheckpointId(1, 0, 1))
    paths[0].write_text("second")
    with pytest.raises(PreconditionError):
        commit(run, CheckpointId(1, 0, 1), paths, {}, None)
    with pytest.raises(PreconditionError, match=r"manifest\.json"):
        commit(run, CheckpointId(1, 0, 1), paths[1:], {}, None)
    assert read_manifest(run, CheckpointId(1, 0, 1)) == manifest


def test_a_missing_file_is_skipped_and_reported(store, run, files, tmp_path, caplog):
    """A committed checkpoint that lost a file is skipped by name, not silently."""
    first = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    newest = commit(run, CheckpointId(2, 0, 1), files(2), {}, first)
    store.delete(f"runs/zebra/checkpoints/{newest.id}/state.pt")
    with caplog.at_level(logging.WARNING):
        assert restored(run, tmp_path / "restored") == (1, b"state 1" * 100)
    assert "state.pt" in caplog.text


def test_a_run_without_a_whole_checkpoint_is_an_error_and_not_a_fresh_start(store, run, files, tmp_path):
    """If every checkpoint is damaged, restoring fails instead of beginning again as if there had been none."""
    newest = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    store.delete(f"runs/zebra/checkpoints/{newest.id}/state.pt")
    with pytest.raises(CorruptObjectError, match="has no intact checkpoint, found 1 set aside"):
        restored(run, tmp_path / "restored")


def test_a_store_that_fails_to_list_is_not_an_empty_run(store, run, files, tmp_path):
    """A failing listing is an error and never means that there is nothing to restore."""
    commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    failing = Run(FaultyStore(store, failing_reads=True), "zebra")
    with pytest.raises(TransientStoreError):
        restored(failing, tmp_path / "restored")


def test_bytes_that_did_not_change_are_stored_once(store, run, files, tmp_path):
    """Best weights that stay the same are kept where they are, through retention, until no kept checkpoint uses
    them.
    """
    manifest = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    for epoch in range(2, 6):
        manifest = commit(run, CheckpointId(epoch, 0, 1), files(epoch), {}, manifest)
        retain(run)
    assert [key for key in keys(store) if key.endswith("best.pt")] == ["0001-000000.a0001/best.pt"]
    assert restored(run, tmp_path / "restored") == (5, b"state 5" * 100)
    for epoch in range(6, 8):
        manifest = commit(run, CheckpointId(epoch, 0, 1), files(epoch, best="second"), {}, manifest)
        retain(run)
    assert [key for key in keys(store) if key.endswith("best.pt")] == ["0006-000000.a0001/best.pt"]


def test_two_committed_checkpoints_are_kept(store, run, files):
    """Retention leaves exactly two."""
    manifest = None
    for epoch in range(1, 5):
        manifest = commit(run, CheckpointId(epoch, 0, 1), files(epoch), {}, manifest)
    retain(run)
    assert [checkpoint.epoch for checkpoint in committed(run)] == [3, 4]


def test_a_superseded_attempt_commits_nothing(store, run, files):
    """Once another machine has claimed the run, the first one's commit is refused and leaves no manifest."""
    run.claim({})
    with pytest.raises(SupersededError):
        commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    assert keys(store) == []


def test_an_attempt_superseded_during_its_upload_does_not_commit(store, run, files):
    """A claim that arrives while files are uploaded keeps the manifest from being written."""
    claiming = FaultyStore(store, after_write=lambda number: run.claim({}) if number == 1 else None)
    with pytest.raises(SupersededError):
        commit(Run(claiming, "zebra"), CheckpointId(1, 0, 1), files(1), {}, None)
    assert committed(run) == []


def test_a_later_claim_forbids_the_commit_though_the_next_one_is_gone(store, run, files):
    """The fence is the newest claim: that of another machine counts after the one before it was deleted by hand."""
    for _ in range(2):
        run.claim({})
    store.delete(run.key("attempts/0002.json"))
    with pytest.raises(SupersededError, match="by attempt 3"):
        commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    assert committed(run) == []


def test_a_commit_lists_the_attempts_once(tmp_path, files):
    """However many attempts came before, their claims are listed once, after the last file and before the manifest."""
    counting = CountingStore.create(str(tmp_path / "counted"))
    run = Run(counting, "zebra")
    claim = run.claim({})
    counting.requests.clear()
    manifest = commit(run, CheckpointId(1, 0, claim.attempt), files(1), {}, None)
    asked = list(counting.requests)
    assert counting.requests["list", "runs/zebra/attempts/"] == 1
    assert asked[-2:] == [
        ("list", "runs/zebra/attempts/"),
        ("put", f"runs/zebra/checkpoints/{manifest.id}/manifest.json"),
    ]


def test_two_attempts_never_share_a_key(store, run, files):
    """The same position committed by two attempts lies under two prefixes, the later attempt's sorting last."""
    first = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    second = run.claim({}).attempt
    folder = files(11)
    later = commit(run, CheckpointId(1, 0, second), folder, {}, None)
    assert {file.key for file in first.files}.isdisjoint(file.key for file in later.files)
    assert committed(run)[-1].attempt == second


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/b", "..", ".", "", "a\0b"])
def test_a_manifest_cannot_write_outside_its_folder(store, run, files, name):
    """A manifest whose seal is right, and which names a file elsewhere, is refused."""
    manifest = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    key = f"runs/zebra/checkpoints/{manifest.id}/manifest.json"
    content = json.loads(store.read(key))
    content["files"][0]["name"] = name
    resealed(store, key, files=content["files"])
    with pytest.raises(CorruptObjectError, match="is not the manifest of this checkpoint"):
        read_manifest(run, manifest.id)


def test_a_manifest_without_an_end_is_damage(store, run, files, tmp_path):
    """A manifest of brackets alone, too deep for any reader, is set aside, and the checkpoint before it restored."""
    first = commit(run, CheckpointId(1, 0, 1), files(1), {}, None)
    second = commit(run, CheckpointId(2, 0, 1), files(2), {}, first)
    store.put(f"runs/zebra/checkpoints/{second.id}/manifest.json", b"[" * 100_000, overwrite=True)
    assert restored(run, tmp_path / "restored") == (1, b"state 1" * 100)
    assert list(set_aside(run)) == [second.id]


def test_names_sort_by_age():
    """The name of a checkpoint sorts as its position does, and is read back unchanged."""
    ids = [CheckpointId(0, 0, 1), CheckpointId(1, 7, 2), CheckpointId(9, 0, 3), CheckpointId(10, 0, 1)]
    assert sorted(map(str, ids)) == list(map(str, ids))
    assert [CheckpointId.parse(str(identity)) for identity in ids] == ids
    assert CheckpointId.parse("0001-000000.a0001.tmp") is None


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        ("gs://bucket/a b", "| gcloud storage cp - 'gs://bucket/a b/runs/zebra/checkpoints/{}/set-aside.json'"),
        ("/tmp/bucket", "> /tmp/bucket/runs/zebra/checkpoints/{}/set-aside.json"),  # noqa: S108 -- a name
    ],
)
@pytest.mark.parametrize("kind", [CorruptObjectError, WeightsError])
def test_a_refusal_names_the_checkpoint_before_and_the_command(run, files, monkeypatch, kind, uri, command):
    """If a whole checkpoint is refused, the error keeps its exit code and names the command that continues."""
    older, newest = (commit(run, CheckpointId(epoch, 0, 1), files(epoch), {}, None) for epoch in (1, 2))
    monkeypatch.setattr(FolderStore, "uri", uri)
    with pytest.raises(kind) as raised, checkpoint.refusal_explained(run, newest):
        raise kind("state.pt: does not fit")
    begin = (
        f"run zebra: checkpoint {newest.id} is refused, state.pt: does not fit; to resume after epoch 1, set it aside"
    )
    assert str(raised.value).startswith(begin)
    assert command.format(newest.id) in str(raised.value)
    with (
        pytest.raises(kind, match="there is none before it, start a new run"),
        checkpoint.refusal_explained(run, older),
    ):
        raise kind("state.pt: does not fit")
