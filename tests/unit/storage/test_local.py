"""Promises of `FolderStore` beyond those of every store."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from job.errors import CorruptObjectError, ObjectNotFoundError, PreconditionError, StoreError, UsageError
from job.storage import local
from job.storage.cache_file import CacheFile
from job.storage.checksums import ChecksumIndex
from job.storage.local import INTERNAL, FolderStore
from tests.support.cli_process import ROOT, TIMEOUT_S

HEADER_BYTES = 100
"""Of an SQLite database."""


@pytest.fixture
def root(tmp_path) -> Path:
    """Name the folder of the store."""
    return tmp_path / "bucket"


@pytest.fixture
def store(root) -> FolderStore:
    """Make an empty store."""
    return FolderStore.create(str(root))


def partials(root):
    """Return the partial files."""
    return list((root / INTERNAL / "partial").glob("*"))


def test_open_makes_nothing(root):
    """Opening a folder that is not there fails with advice, and does not make it."""
    with pytest.raises(StoreError, match=f"bucket {root}: no such folder; create it or correct --bucket") as caught:
        FolderStore.open(str(root))
    assert caught.value.exit_code == 74
    assert not root.exists()


def test_create_makes_and_keeps(root):
    """Creating makes the folder with its parents, and keeps one that is there."""
    location = str(root / "deep" / "er")
    FolderStore.create(location).put("key", b"x")
    assert FolderStore.create(location).read("key") == b"x"


def test_an_object_that_another_process_deletes_first_is_deleted(store, root, monkeypatch):
    """Two machines that delete the last object of a folder at once both succeed, though its folder is gone too."""
    store.put("a/b", b"x")
    locked = store._locked

    @contextlib.contextmanager
    def overtaken():
        FolderStore.open(str(root)).delete("a/b")
        with locked():
            yield

    monkeypatch.setattr(store, "_locked", overtaken)
    store.delete("a/b")
    assert store.list() == []
    assert not (root / "a").exists()


def test_a_file_is_no_bucket(root):
    """A file in the place of the folder is refused."""
    root.write_bytes(b"")
    with pytest.raises(StoreError, match="a file where a folder is needed"):
        FolderStore.open(str(root))
    with pytest.raises(StoreError, match="a file where a folder is needed"):
        FolderStore.create(str(root))


def test_a_folder_that_goes_away_is_not_an_empty_one(root, store):
    """When the folder disappears, nothing is taken for absent and nothing is made anew."""
    root.rename(root.with_name("elsewhere"))
    for use in (
        store.list,
        lambda: store.stat("key"),
        lambda: store.read("key"),
        lambda: store.put("key", b"x"),
    ):
        with pytest.raises(StoreError, match="no such folder") as caught:
            use()
        assert not isinstance(caught.value, ObjectNotFoundError)
    assert not root.exists()


def test_files_that_were_put_by_hand_are_objects(root, store):
    """A file copied into the folder is an object; an edited one is a new version."""
    (root / "by").mkdir()
    (root / "by" / "hand").write_bytes(b"one")
    before = store.stat("by/hand")
    assert store.list(checksums=True) == [before]
    (root / "by" / "hand").write_bytes(b"other")
    assert store.read("by/hand") == b"other"
    assert store.stat("by/hand").version != before.version
    assert store.stat("by/hand").crc32c != before.crc32c


@pytest.mark.parametrize("known_from", ["put", "an earlier process"])
def test_rotten_bytes_are_noticed(root, store, tmp_path, known_from):
    """Bytes that rotted on the disk are not returned."""
    store.put("key", b"wild")
    status = (root / "key").stat()
    (root / "key").write_bytes(b"mild")
    os.utime(root / "key", ns=(status.st_atime_ns, status.st_mtime_ns))
    if known_from == "an earlier process":
        store = FolderStore.open(str(root))
    with pytest.raises(CorruptObjectError, match="its bytes are not those that were stored"):
        store.read("key")
    with pytest.raises(CorruptObjectError):
        store.get("key", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_damaged_index_is_not_believed(root, store):
    """An index in which a byte of the header or of a row was damaged does not make good objects look rotten."""
    store.put("key", b"wild")
    index = root / INTERNAL / "checksums"
    whole = index.read_bytes()
    for position in (position for position, byte in enumerate(whole) if byte or position < HEADER_BYTES):
        index.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert FolderStore.open(str(root)).read("key") == b"wild"


def test_versions_have_a_fine_clock(root, store, monkeypatch):
    """The time in a version is the process's, finer than a file system's own, within whose ticks inodes come again."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_456_789)
    store.put("key", b"x")
    assert (root / "key").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_a_program_that_knows_no_lock_is_not_overwritten(root, store, monkeypatch):
    """A file that another program makes at the last moment is kept, and the put fails."""
    make_folders = local._make_folders

    def make_folders_and_file(top, path):
        make_folders(top, path)
        if path == root:
            (root / "key").write_bytes(b"theirs")

    monkeypatch.setattr(local, "_make_folders", make_folders_and_file)
    with pytest.raises(PreconditionError):
        store.put("key", b"mine")
    assert store.read("key") == b"theirs"


def test_own_files_are_hidden(root, store):
    """The store's own files are not listed and cannot be reached by a key."""
    store.put("key", b"x")
    assert (root / INTERNAL).exists()
    assert [stored.key for stored in store.list()] == ["key"]
    assert store.list(INTERNAL) == []
    for use in (store.read, store.stat, store.delete, lambda key: store.put(key, b"x")):
        with pytest.raises(UsageError, match="own files"):
            use(f"{INTERNAL}/checksums")


def test_only_the_store_s_own_folder_is_hidden(store):
    """A folder of that name further below is like any other."""
    stored = store.put(f"a/{INTERNAL}/key", b"x")
    assert store.list(checksums=True) == [stored]


def test_links_are_not_followed(root, store, tmp_path):
    """A symbolic link is no object, whether it is a file or a folder on the way."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside" / "secret")
    assert store.list() == []
    for key in ("folder/secret", "file"):
        for use in (store.read, store.stat, store.delete, lambda key: store.put(key, b"x", overwrite=True)):
            with pytest.raises(UsageError, match="symbolic link"):
                use(key)
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"


def test_a_link_to_the_folder_is_fine(root, store, tmp_path):
    """The folder itself may be reached by a symbolic link."""
    store.put("key", b"x")
    (tmp_path / "link").symlink_to(root)
    assert FolderStore.open(str(tmp_path / "link")).read("key") == b"x"


def test_a_key_cannot_be_file_and_folder(store):
    """A key that is a file and a folder at once is refused, in either order."""
    store.put("a/b", b"x")
    with pytest.raises(StoreError, match="a folder where a file is needed"):
        store.put("a", b"x")
    with pytest.raises(StoreError, match="a folder where a file is needed"):
        store.put("a", b"x", overwrite=True)
    with pytest.raises(StoreError, match="a file where a folder is needed"):
        store.put("a/b/c", b"x")
    assert [stored.key for stored in store.list()] == ["a/b"]


def test_empty_folders_go_away(root, store):
    """Deleting the last object of a folder removes the folder, so that its name is free."""
    store.put("a/b/c", b"x")
    store.put("a/d", b"x")
    store.delete("a/b/c")
    assert not (root / "a" / "b").exists()
    store.delete("a/d")
    store.put("a", b"x")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error; check the disk"),
    ],
)
def test_refusals_of_the_file_system(root, store, monkeypatch, code, said):
    """A refusal of the file system has advice, changes no object and leaves no partial file."""
    store.put("key", b"before")

    def refuse(_descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=said) as caught:
        store.put("key", b"after", overwrite=True)
    assert caught.value.exit_code == 74
    assert store.read("key") == b"before"
    assert partials(root) == []


def test_source_that_cannot_be_read_is_named(root, store, tmp_path):
    """A missing source is named, and is no `ObjectNotFoundError`."""
    with pytest.raises(StoreError, match=f"{tmp_path / 'absent'}: cannot be stored, No such file") as caught:
        store.put("key", tmp_path / "absent")
    assert not isinstance(caught.value, ObjectNotFoundError)
    assert partials(root) == []


def test_a_put_is_durable_before_it_is_seen(root, store, monkeypatch):
    """A put syncs the bytes, then lets them appear, then syncs the folder."""
    seen = []
    fsync = os.fsync

    def note(descriptor):
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink(), (root / "a" / "key").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    store.put("a/key", b"x")
    bytes_synced = next(number for number, (path, _) in enumerate(seen) if path.parent.name == "partial")
    assert seen[bytes_synced][1] is False
    assert (root, False) in seen[bytes_synced:]
    assert seen[-1] == (root / "a", True)


def test_a_deletion_is_durable(root, store, monkeypatch):
    """A delete syncs the folder after the object is gone, before it returns."""
    store.put("a/key", b"x")
    store.put("a/other", b"x")
    seen, fsync = [], os.fsync

    def note(descriptor):
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink(), (root / "a" / "key").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    store.delete("a/key")
    assert (root / "a", False) in seen


def test_the_checksum_of_a_deleted_object_is_forgotten(root, store):
    """The checksum of a deleted object is dropped, for this process and the next."""
    store.put("key", b"x")
    store.delete("key")
    assert ChecksumIndex(root / INTERNAL / "checksums").names() == []


def test_one_object_takes_its_part_of_the_index_and_many_take_it_once(root, store, monkeypatch):
    """A look at an object reads its checksum alone, of perhaps a hundred thousand; after a hundred looks it has all."""
    for name in ("a", "ab", "b"):
        store.put(name, b"x")
    seen, read = [], CacheFile.read
    monkeypatch.setattr(CacheFile, "read", lambda cache, prefix="": seen.append(prefix) or read(cache, prefix))
    store = FolderStore.open(str(root))
    assert store.stat("a").crc32c == store.stat("b").crc32c
    assert [each.key for each in store.list("a", checksums=True)] == ["a", "ab"]
    assert seen == ["a", "b", "a"]
    seen.clear()
    for _ in range(300):
        store.stat("b")
    assert seen == ["b"] * (local.NUM_PARTS - 3) + [""]


def test_a_reader_gets_the_version_that_it_opened(store):
    """An object that is replaced during a read is read to the end of the old version."""
    old, new = bytes(3 << 20), b"\1" * (3 << 20)
    chunks = store._stream(store.put("key", old))
    first = next(chunks)
    store.put("key", new, overwrite=True)
    assert first + b"".join(chunks) == old
    assert store.read("key") == new


def test_a_bad_read_is_read_again(root, store, monkeypatch):
    """Bytes that a disk reads wrong once are read again; wrong twice is corrupt."""
    store.put("key", b"wild")
    wrong = [b"mild"]
    read_chunks = local.read_chunks
    monkeypatch.setattr(local, "read_chunks", lambda opened: iter([wrong.pop()]) if wrong else read_chunks(opened))
    assert store.read("key") == b"wild"
    wrong[:] = [b"mild", b"mild"]
    with pytest.raises(CorruptObjectError):
        store.read("key")


def test_a_killed_put_leaves_no_object(root, store, tmp_path):
    """A process that is killed in the middle of a put leaves nothing that is listed, and the key free."""
    os.mkfifo(tmp_path / "source")
    program = "import sys, pathlib; from job.storage.local import FolderStore; "
    program += "FolderStore.open(sys.argv[1]).put('key', pathlib.Path(sys.argv[2]))"
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "source")]
    with (
        subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process,
        (tmp_path / "source").open("wb", buffering=0) as source,
    ):
        source.write(bytes(200_000))  # more than a pipe holds: the other side is reading
        assert len(partials(root)) == 1
        process.kill()
        process.wait()
    assert store.list() == []
    store.put("key", b"x")
    assert len(partials(root)) == 1


def test_a_process_forked_during_a_put_keeps_no_lock(root, store):
    """A loader's worker that is forked while another thread puts does not keep later puts waiting for it."""
    program = """if True:
        import os, signal, sys
        from job.storage.local import FolderStore
        store = FolderStore.open(sys.argv[1])
        store.put("first", b"x")
        with store._locked():
            forked = os.fork()
            if not forked:
                signal.pause()
        store.put("key", b"x")
        os.kill(forked, signal.SIGKILL)
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(root)], env=environment, start_new_session=True
    ) as process:
        try:
            assert process.wait(TIMEOUT_S) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert store.read("key") == b"x"


def test_old_leftovers_are_removed(root, store):
    """Opening removes what processes that died long ago were writing, and nothing that may still be written."""
    store.put("key", b"x")
    for name, age_s in (("old", 25 * 3600), ("young", 23 * 3600)):  # an upload of a day is no leftover
        (root / INTERNAL / "partial" / name).write_bytes(b"half")
        os.utime(root / INTERNAL / "partial" / name, (time.time() - age_s,) * 2)
    FolderStore.open(str(root))
    assert [path.name for path in partials(root)] == ["young"]


def test_a_file_that_is_being_written_outlives_a_clock_that_leaps(root, store, tmp_path, monkeypatch):
    """Opening removes nothing that a process writes, however old the clock makes it, and removes it once it died."""
    os.mkfifo(tmp_path / "source")
    program = "import sys, pathlib; from job.storage.local import FolderStore; "
    program += "FolderStore.open(sys.argv[1]).put(sys.argv[2], pathlib.Path(sys.argv[3]))"
    now = time.time()
    for key, dies in (("finished", False), ("cut", True)):
        command = [sys.executable, "-c", program, str(root), key, str(tmp_path / "source")]
        with (
            subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process,
            (tmp_path / "source").open("wb", buffering=0) as source,
        ):
            source.write(bytes(200_000))  # more than a pipe holds: the other side is reading
            with monkeypatch.context() as patched:
                patched.setattr(time, "time", lambda: now + 10 * local.STALE_S)
                FolderStore.open(str(root))
            assert len(partials(root)) == 1
            if dies:
                process.kill()
        assert len(partials(root)) == dies
    monkeypatch.setattr(time, "time", lambda: now + 10 * local.STALE_S)
    FolderStore.open(str(root))
    assert partials(root) == []
    assert [stored.key for stored in store.list()] == ["finished"]


def test_own_files_that_are_no_files_are_no_wait(root, store, tmp_path):
    """A pipe in place of an internal or partial file does not block."""
    store.put("key", b"x")
    for name in ("checksums", "lock", "partial/old"):
        (root / INTERNAL / name).unlink(missing_ok=True)
        os.mkfifo(root / INTERNAL / name)
    os.utime(root / INTERNAL / "partial/old", (0, 0))
    again = FolderStore.open(str(root))
    assert again.read("key") == b"x"
    with pytest.raises(StoreError, match="is no regular file"):
        again.put("other", b"x")
