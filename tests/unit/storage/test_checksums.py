"""Promises of the checksum index and its cache file."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from job.storage import checksums
from job.storage.cache_file import TABLE
from job.storage.checksums import ChecksumIndex, crc32c, encode_crc32c, file_version

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path):
    """Make a file."""
    (tmp_path / "file").write_bytes(b"123456789")
    return tmp_path / "file"


@pytest.fixture
def index_path(tmp_path):
    """Name the index."""
    return tmp_path / "index"


def test_checksums_are_those_of_the_standard():
    """The CRC-32C of the standard's example is right, in one piece and in two."""
    assert encode_crc32c(crc32c(b"123456789")) == encode_crc32c(crc32c(b"6789", crc32c(b"12345"))) == "4waSgw=="


def test_unchanged_files_are_not_read_again(path, index_path, monkeypatch):
    """An unchanged file is not read again, by this process or the next."""
    index = ChecksumIndex(index_path)
    first = index.read("file", path)
    index.save()

    def refuse(_opened):
        raise AssertionError("the file was read")

    monkeypatch.setattr(checksums, "read_chunks", refuse)
    assert index.read("file", path) == ChecksumIndex(index_path).read("file", path) == first


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_changed_files_are_read_again(path, index_path, change):
    """A file whose size, time of change or inode differs is read again."""
    index = ChecksumIndex(index_path)
    _, before = index.read("file", path)
    status = path.stat()
    if change == "inode":
        path.with_name("other").write_bytes(b"987654321")
        path.with_name("other").replace(path)
    else:
        path.write_bytes(b"1234567890" if change == "size" else b"987654321")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (change == "time")))
    assert index.read("file", path)[1] != before


def test_a_file_that_changes_while_it_is_read_is_not_remembered(path, index_path, monkeypatch):
    """The checksum of a file that changes during the read is not in the index."""
    read_chunks = checksums.read_chunks

    def write_meanwhile(opened):
        yield from read_chunks(opened)
        path.write_bytes(b"longer than before")

    monkeypatch.setattr(checksums, "read_chunks", write_meanwhile)
    index = ChecksumIndex(index_path)
    index.read("file", path)
    assert index.names() == []


def test_processes_may_append_at_once(index_path):
    """Entries of several processes are all there for the next."""
    one, other = ChecksumIndex(index_path), ChecksumIndex(index_path)
    for number in range(10):
        index = one if number % 2 else other
        index.add(f"{number}", "1", "AAAAAA==")
        index.save()
    assert set(ChecksumIndex(index_path).names()) == {f"{number}" for number in range(10)}


def test_a_removed_entry_stays_removed(index_path):
    """A removed name is absent for the next process, too."""
    index = ChecksumIndex(index_path)
    index.add("file", "1", "AAAAAA==")
    index.save()
    index.remove("file")
    index.save()
    assert index.names() == ChecksumIndex(index_path).names() == []


@pytest.mark.parametrize("damage", [b"", b"AAAA\tof an earlier version\n", b"SQLite format 3\0", None])
def test_a_damaged_index_starts_anew(index_path, damage):
    """An index that is cut, or is no database, is empty and takes new entries."""
    index = ChecksumIndex(index_path)
    for number in range(1000):
        index.add(f"{number}", "1", "AAAAAA==")
    index.save()
    whole = index_path.read_bytes()
    index_path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    index = ChecksumIndex(index_path)
    assert index.names() == []
    index.add("new", "1", "AAAAAA==")
    index.save()
    assert ChecksumIndex(index_path).names() == ["new"]


def test_a_killed_process_loses_nothing_that_it_saved(index_path):
    """Of a process that is killed while it saves, all earlier saves are there for the next."""
    program = """if True:
        import sys
        from pathlib import Path
        from job.storage.checksums import ChecksumIndex
        index = ChecksumIndex(Path(sys.argv[1]))
        for number in range(10**9):
            for name in ("one", "other"):
                index.add(name, f"{number}", "AAAAAA==")
            index.save()
            print(number, flush=True)
    """
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(index_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            for _ in range(20):
                saved = process.stdout.readline()
            process.kill()
            saved = [saved, *process.stdout][-1].strip()
        index = ChecksumIndex(index_path)
        versions = {index._entries[name][0] for name in ("one", "other")}
        assert len(versions) == 1
        assert int(versions.pop()) >= int(saved)


def test_processes_that_save_at_the_same_time_lose_nothing(index_path):
    """Entries that several processes save at once are all there for the next."""
    program = """if True:
        import sys
        from pathlib import Path
        from job.storage.checksums import ChecksumIndex
        index = ChecksumIndex(Path(sys.argv[1]))
        for number in range(100):
            index.add(f"{sys.argv[2]} {number}", "1", "AAAAAA==")
            index.save()
    """
    command = [sys.executable, "-c", program, str(index_path)]
    processes = [subprocess.Popen([*command, name], env=os.environ | {"PYTHONPATH": str(ROOT)}) for name in "abc"]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert set(ChecksumIndex(index_path).names()) == {f"{name} {number}" for name in "abc" for number in range(100)}


def test_the_index_does_not_grow_for_ever(index_path):
    """A file has one entry, however often it changes."""
    index, sizes = ChecksumIndex(index_path), []
    for number in range(300):
        index.add("file", f"{number:03}", "AAAAAA==")
        index.save()
        sizes.append(index_path.stat().st_size)
    assert ChecksumIndex(index_path).names() == ["file"]
    assert sizes[0] == sizes[-1]


@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_file_is_no_index(index_path, path, make, suffix):
    """A pipe, a device or a folder in the place of the database, or of a file of SQLite's beside it, is not opened."""
    make(Path(f"{index_path}{suffix}"))
    index = ChecksumIndex(index_path)
    assert index.read("file", path)[1] == "4waSgw=="
    index.save()
    assert ChecksumIndex(index_path).names() == []


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE VIEW cache AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 1, 2, i FROM n",
        f"{TABLE}; CREATE TRIGGER harm BEFORE INSERT ON cache BEGIN SELECT raise(FAIL, 'harm'); END",
        "CREATE TABLE cache (key, value, seal)",
    ],
    ids=["a view without end", "a trigger", "another table"],
)
def test_a_database_of_a_stranger_runs_nothing(index_path, schema):
    """A database with anything but the cache's own table is no index, and is made anew."""
    with contextlib.closing(sqlite3.connect(index_path)) as database:
        database.executescript(schema)
    index = ChecksumIndex(index_path)
    assert index.names() == []
    index.add("file", "1", "AAAAAA==")
    index.save()
    assert ChecksumIndex(index_path).names() == ["file"]


def test_an_index_in_a_folder_that_is_read_only_is_read(index_path, path):
    """An index in a read-only folder is used."""
    index = ChecksumIndex(index_path)
    expected = index.read("file", path)
    index.save()
    index_path.chmod(0o400)
    index_path.parent.chmod(0o500)
    try:
        index = ChecksumIndex(index_path)
        assert (index.names(), index.read("file", path)) == (["file"], expected)
        index.add("other", "1", "AAAAAA==")
        index.save()
    finally:
        index_path.parent.chmod(0o700)


def test_an_index_that_cannot_be_kept_is_no_error(path, tmp_path):
    """Without a writable folder, checksums are computed."""
    index = ChecksumIndex(tmp_path / "absent" / "index")
    status, checksum = index.read("file", path)
    index.save()
    assert (file_version(status), checksum) == (file_version(path.stat()), "4waSgw==")
