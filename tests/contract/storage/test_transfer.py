"""Promises of a pull, for every store."""

import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from job.errors import MachineError, StoreError
from job.storage import checksums
from job.storage.atomic_file import write_atomically
from job.storage.object_store import StoredObject
from job.storage.transfer import PULLED, PUSHED, TransferProgress, mark_replaceable, pull

NUM_FILES = 30


@pytest.fixture
def source(tmp_path):
    """Make a folder of small files, in folders of their own."""
    for number in range(NUM_FILES):
        path = tmp_path / "source" / f"images/{number % 3}/wild {number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (100 + number))
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path):
    """Name a folder that does not exist."""
    return tmp_path / "new" / "target"


@pytest.fixture
def pushed(store, source):
    """Put the files into an empty store."""
    store.put_many([(source / name, f"data/{name}") for name in names(source)])
    return store


def names(folder):
    """Return the names of the files that are not hidden."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not path.name.startswith("."))


def content(folder):
    """Return the bytes of the files that are not hidden."""
    return {name: (folder / name).read_bytes() for name in names(folder)}


def listed(store):
    """List what the store has, by name."""
    return {stored.key.removeprefix("data/"): stored for stored in store.list("data/", checksums=True)}


def pull_all(store, folder, on_progress=lambda _: None):
    """Pull what the store has."""
    return pull(store, listed(store), folder, on_progress)


def refuse_to_read(_opened):
    """Stand in for reading a file to compute its checksum."""
    raise AssertionError("a file was read")


def test_there_and_back(pushed, source, target):
    """A pull has the bytes that were put."""
    done = pull_all(pushed, target)
    assert content(target) == content(source)
    assert (done.num_total, done.num_transferred) == (NUM_FILES, NUM_FILES)
    assert done.bytes_transferred == sum(map(len, content(source).values()))
    assert list(done.objects) == pushed.list("data/", checksums=True)


def test_second_pull_transfers_and_reads_nothing(pushed, target, monkeypatch):
    """A second pull transfers no object, and reads no file."""
    pull_all(pushed, target)
    objects = listed(pushed)
    monkeypatch.setattr(checksums, "read_chunks", refuse_to_read)
    done = pull(pushed, objects, target)
    assert (done.num_total, done.num_transferred, done.bytes_transferred) == (NUM_FILES, 0, 0)


@pytest.mark.parametrize("damage", [b"", b"\x00\xff garbage\n\n\t\t\t", None])
def test_lost_index_costs_no_transfer(pushed, target, damage):
    """Without the remembered checksums, or with nonsense in their place, nothing is transferred again."""
    pull_all(pushed, target)
    index = target / PULLED
    index.write_bytes(damage if damage is not None else index.read_bytes()[7:-9])
    assert pull_all(pushed, target).num_transferred == 0


def test_a_cut_pull_is_resumed(pushed, source, target, monkeypatch):
    """A pull that was cut transfers only what had not arrived."""
    monkeypatch.setattr(type(pushed), "num_downloads", 4)
    stopped = threading.Event()

    class Cut(BaseException):
        pass

    def cut(done: TransferProgress) -> None:
        if done.num_objects == 5:
            raise Cut
        if done.num_objects > 5:  # in another thread, which may not begin a further object
            stopped.wait(60)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr("job.storage.base.threading", SimpleNamespace(Event=lambda: stopped, Lock=threading.Lock))
        pull_all(pushed, target, cut)
    num_arrived = len(names(target))
    assert 5 <= num_arrived < 5 + 4
    assert sorted(checksums.ChecksumIndex(target / PULLED).names()) == names(target)  # so that none is read again
    assert pull_all(pushed, target).num_transferred == NUM_FILES - num_arrived
    assert content(target) == content(source)


def test_what_changed_on_either_side_is_pulled(pushed, source, target):
    """A pull brings what the store has replaced, and what was changed or deleted here."""
    pull_all(pushed, target)
    replaced, changed, deleted = names(source)[:3]
    (source / replaced).write_bytes(b"new")
    pushed.put(f"data/{replaced}", b"new", overwrite=True)
    (target / changed).write_bytes(bytes(len((target / changed).read_bytes())))
    (target / deleted).unlink()
    edited = (target / changed).read_bytes()
    assert pull_all(pushed, target).num_transferred == 3
    assert content(target) == content(source)
    assert content(target.with_name("target.edited")) == {changed: edited}


def test_what_was_changed_here_is_kept(pushed, source, target, caplog):
    """A file that was edited after a pull is named and moved, each time to a free name."""
    pull_all(pushed, target)
    name = names(source)[0]
    for number, kept in ((1, name), (2, f"{name}.2")):
        (target / name).write_bytes(b"mine %d" % number)
        caplog.clear()
        pull_all(pushed, target)
        assert (target.with_name("target.edited") / kept).read_bytes() == b"mine %d" % number
        assert f"had 1 file that changed after a pull, now in {target}.edited:\n  - {name}" in caplog.text
    assert len(names(target.with_name("target.edited"))) == 2
    assert content(target) == content(source)


def test_what_the_job_changed_is_not_kept(pushed, source, target):
    """A file of a pulled folder that the job has written anew is replaced like a pulled one."""
    pull_all(pushed, target)
    name = names(source)[0]
    (target / name).write_bytes(b"struck")
    mark_replaceable(target, [name])
    pull_all(pushed, target)
    assert content(target) == content(source)
    assert not target.with_name("target.edited").exists()


def test_a_folder_of_the_users_own_is_not_touched(pushed, source, target):
    """Where no pull was before, files of other content are all named and nothing is changed or fetched."""
    shutil.copytree(source, target)
    changed = names(source)[:12]
    for name in changed:
        (target / name).write_bytes(b"mine")
    (target / names(source)[-1]).unlink()
    before = content(target)
    with pytest.raises(MachineError, match=r"has 12 files unlike those.*no pull brought; move the folder") as caught:
        pull_all(pushed, target)
    assert caught.value.problems == (*changed[:10], "... 2 more")
    assert content(target) == before
    assert sorted(path.name for path in target.iterdir()) == ["images"]


def test_what_a_pull_has_not_brought_is_neither_replaced_nor_removed(pushed, source, target):
    """Files of the user's own that were equal once stay when the store has others, or has them no longer."""
    shutil.copytree(source, target)
    replaced, gone = names(source)[:2]
    assert pull_all(pushed, target).num_transferred == 0
    pushed.delete(f"data/{gone}")
    pull_all(pushed, target)
    assert content(target) == content(source)
    pushed.put(f"data/{replaced}", b"new", overwrite=True)
    with pytest.raises(MachineError, match="has 1 file unlike those") as caught:
        pull_all(pushed, target)
    assert caught.value.problems == (replaced,)
    assert content(target) == content(source)


def test_what_a_loss_of_power_left_is_fetched_again(pushed, source, target):
    """A pull marks its folder before the first file comes, so that files without bytes or record are not the user's."""

    def cut(_done: TransferProgress) -> None:
        assert (target / PULLED).is_file()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pull_all(pushed, target, cut)
    (target / names(source)[0]).parent.mkdir(parents=True)
    (target / names(source)[0]).write_bytes(b"")
    pull_all(pushed, target)
    assert content(target) == content(source)


def test_the_mark_of_a_pull_is_durable_before_its_first_file(pushed, target, monkeypatch):
    """The checksum index and its name are synced before any file is fetched."""
    synced, get_many, fsync = [], pushed.get_many, os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def get_after(*args):
        assert synced[:2] == [target / PULLED, target]
        return get_many(*args)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(pushed, "get_many", get_after)
    assert pull_all(pushed, target).num_transferred == NUM_FILES


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
@pytest.mark.parametrize("name", [PULLED, PUSHED])
def test_an_index_that_is_no_file_costs_time_only(pushed, source, target, name, make):
    """A pipe, a device or a folder in the place of a file with checksums does not stop a pull."""
    target.mkdir(parents=True)
    make(target / name)
    pull_all(pushed, target)
    assert content(target) == content(source)


def test_a_pipe_in_the_place_of_a_file_ends_a_pull(pushed, source, target):
    """A pipe, which would be waited for, is named."""
    target.mkdir(parents=True)
    name = names(source)[0]
    (target / name).parent.mkdir(parents=True)
    os.mkfifo(target / name)
    with pytest.raises(MachineError, match=f"{name}: cannot be used, is no regular file"):
        pull_all(pushed, target)


def test_what_vanished_is_removed(pushed, source, target):
    """A pull removes what an earlier one brought and the store no longer has, and nothing else."""
    pull_all(pushed, target)
    gone, gone_and_edited = names(source)[:2]
    pushed.delete(f"data/{gone}")
    pushed.delete(f"data/{gone_and_edited}")
    (target / gone_and_edited).write_bytes(b"mine")
    (target / "own.txt").write_bytes(b"mine")
    (target / ".hidden").write_bytes(b"mine")
    (target / "labels.cache").write_bytes(b"mine")
    pull_all(pushed, target)
    assert set(names(target)) == {*names(source), "own.txt", "labels.cache"} - {gone}
    assert (target / ".hidden").exists()


def test_what_was_pushed_from_here_is_not_removed(pushed, source):
    """A pull into the folder that was pushed keeps files that have vanished from the store."""
    for stored in pushed.list():
        pushed.delete(stored.key)
    pull_all(pushed, source)
    assert len(names(source)) == NUM_FILES


def test_leftovers_are_removed(pushed, target):
    """A pull removes what a killed one was writing, and only that."""
    (target / "images").mkdir(parents=True)
    (target / "images" / ".0123456789abcdef.part").write_bytes(b"half")
    (target / "images" / ".own.part").write_bytes(b"mine")
    (target / "images" / "own.part").write_bytes(b"mine")
    pull_all(pushed, target)
    assert not (target / "images" / ".0123456789abcdef.part").exists()
    assert (target / "images" / "own.part").exists()
    assert (target / "images" / ".own.part").exists()


def test_progress_ends_at_the_total(pushed, source, target):
    """Progress starts with the objects in the folder, grows by each object, and ends with all."""
    pull_all(pushed, target)
    size = sum(map(len, content(source).values()))
    lost = names(source)[:4]
    lost_bytes = sum(len((target / name).read_bytes()) for name in lost)
    for name in lost:
        (target / name).unlink()
    seen: list[TransferProgress] = []
    pull_all(pushed, target, seen.append)
    assert seen[0] == TransferProgress(NUM_FILES - 4, size - lost_bytes)
    assert [done.num_objects for done in seen] == list(range(NUM_FILES - 4, NUM_FILES + 1))
    assert seen[-1] == TransferProgress(NUM_FILES, size)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "a//b", PULLED, PUSHED])
def test_names_do_not_lead_out(store, target, name):
    """Objects whose names lead out of the folder, or to its index, are refused before anything is transferred."""
    objects = {name: StoredObject("data/fine", 1, "1", "AAAAAA==") for name in ("fine", name)}
    with pytest.raises(StoreError, match="has 1 name that no folder can have") as caught:
        pull(store, objects, target)
    assert len(caught.value.problems) == 1
    assert list(target.iterdir()) == []


def test_every_bad_name_is_listed(store, target):
    """All invalid names are listed at once, or the first of many."""
    objects = {f"../{number}": StoredObject("data/fine", 1, "1", "AAAAAA==") for number in range(12)}
    with pytest.raises(StoreError) as caught:
        pull(store, objects, target)
    assert len(caught.value.problems) == 11
    assert caught.value.problems[-1] == "... 2 more"


def test_links_are_not_followed(pushed, source, target, tmp_path):
    """A pull does not go through a symbolic link."""
    (tmp_path / "outside").mkdir()
    target.mkdir(parents=True)
    (target / "images").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="that no folder can have") as caught:
        pull_all(pushed, target)
    assert "symbolic link" in caught.value.problems[0]
    assert list((tmp_path / "outside").iterdir()) == []


def test_unusable_folder_is_the_machines_fault(pushed, tmp_path):
    """A folder that cannot be made, or has a folder where a file belongs, ends with the machine's exit code."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError):
        pull_all(pushed, tmp_path / "file" / "target")
    (tmp_path / "target" / pushed.list("data/")[0].key.removeprefix("data/")).mkdir(parents=True)
    with pytest.raises(MachineError, match="cannot be used, is no regular file"):
        pull_all(pushed, tmp_path / "target")


def test_full_disk_is_the_machines_fault(pushed, target, monkeypatch):
    """A disk that is full ends a pull with what to do, and the machine's exit code."""
    monkeypatch.setattr("job.storage.atomic_file._create", lambda _: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(MachineError, match="No space left on device; free some space"):
        pull_all(pushed, target)


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    """A system that takes a part of the bytes at a time gets all of them."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    write_atomically(tmp_path / "target", [b"wild cats", b" and dogs"])
    assert (tmp_path / "target").read_bytes() == b"wild cats and dogs"


def test_what_breaks_off_leaves_nothing(tmp_path):
    """Bytes that stop coming leave neither a file of that name nor the part that came."""

    def chunks():
        yield b"wild"
        raise StoreError("bucket: broke")

    with pytest.raises(StoreError, match="broke"):
        write_atomically(tmp_path / "folder" / "target", chunks())
    assert list((tmp_path / "folder").iterdir()) == []


def test_what_is_wrong_in_the_store_is_not_pulled(pushed, target, monkeypatch):
    """An object that differs from its listing ends the pull and leaves no file of its name."""
    monkeypatch.setattr("job.storage.gcs.DEADLINE_S", 0)
    objects = listed(pushed)
    name, right = next(iter(objects.items()))
    wrong = StoredObject(right.key, right.size_bytes, right.version, "AAAAAA==")
    with pytest.raises(StoreError, match="bytes"):
        pull(pushed, objects | {name: wrong}, target)
    assert name not in names(target)


def test_two_names_may_share_an_object(pushed, source, target):
    """Files with the same bytes can be one object, which each name gets; a second pull fetches nothing."""
    objects = listed(pushed)
    name, shared = next(iter(objects.items()))
    more = objects | {"copy 1.jpg": shared, "copy 2.jpg": shared}
    seen: list[TransferProgress] = []
    assert pull(pushed, more, target, seen.append).num_transferred == NUM_FILES + 2
    assert [(target / copy).read_bytes() for copy in ("copy 1.jpg", "copy 2.jpg")] == [(source / name).read_bytes()] * 2
    assert seen[-1].num_objects == NUM_FILES + 2
    assert pull(pushed, more, target).num_transferred == 0
