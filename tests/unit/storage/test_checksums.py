"""What the index of checksums promises."""

import os

import pytest

from job.storage import checksums
from job.storage.checksums import NUM_SPARE_LINES, ChecksumIndex, crc32c, encode, version_of


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
    assert encode(crc32c(b"123456789")) == encode(crc32c(b"6789", crc32c(b"12345"))) == "4waSgw=="


def test_unchanged_files_are_not_read_again(path, index_path, monkeypatch):
    """A file that is as it was is not read again, by this process or the next."""
    index = ChecksumIndex(index_path)
    first = index.look("file", path)
    index.save()

    def refuse(_opened):
        raise AssertionError("the file was read")

    monkeypatch.setattr(checksums, "chunks_of", refuse)
    assert index.look("file", path) == ChecksumIndex(index_path).look("file", path) == first


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_changed_files_are_read_again(path, index_path, change):
    """A file whose size, time of change or inode differs is read again."""
    index = ChecksumIndex(index_path)
    _, before = index.look("file", path)
    status = path.stat()
    if change == "inode":
        path.with_name("other").write_bytes(b"987654321")
        path.with_name("other").replace(path)
    else:
        path.write_bytes(b"1234567890" if change == "size" else b"987654321")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (change == "time")))
    assert index.look("file", path)[1] != before


def test_a_file_that_changes_while_it_is_read_is_not_remembered(path, index_path, monkeypatch):
    """The checksum of a file that somebody writes to meanwhile is not kept."""
    chunks_of = checksums.chunks_of

    def write_meanwhile(opened):
        yield from chunks_of(opened)
        path.write_bytes(b"longer than before")

    monkeypatch.setattr(checksums, "chunks_of", write_meanwhile)
    index = ChecksumIndex(index_path)
    index.look("file", path)
    assert index.names() == []


def test_processes_may_append_at_once(index_path):
    """What several processes remember is all there for the next."""
    one, other = ChecksumIndex(index_path), ChecksumIndex(index_path)
    for number in range(10):
        index = one if number % 2 else other
        index.remember(f"{number}", "1", "AAAAAA==")
        index.save()
    assert set(ChecksumIndex(index_path).names()) == {f"{number}" for number in range(10)}


def test_what_is_forgotten_stays_forgotten(index_path):
    """A name that was dropped is not there for the next process either."""
    index = ChecksumIndex(index_path)
    index.remember("file", "1", "AAAAAA==")
    index.save()
    index.forget("file")
    index.save()
    assert index.names() == ChecksumIndex(index_path).names() == []


def test_a_cut_line_costs_two_entries_at_most(index_path):
    """A line that was cut by a crash does not make the rest unreadable."""
    index = ChecksumIndex(index_path)
    index.remember("one", "1", "AAAAAA==")
    index.save()
    with index_path.open("ab") as opened:
        opened.write(b"AAAA\tcut")
    for name in ("two", "three"):
        index.remember(name, "1", "AAAAAA==")
        index.save()
    assert set(ChecksumIndex(index_path).names()) == {"one", "three"}


def test_the_index_does_not_grow_for_ever(index_path):
    """Outdated lines are dropped once there are many."""
    index = ChecksumIndex(index_path)
    for number in range(NUM_SPARE_LINES + 10):
        index.remember("file", f"{number}", "AAAAAA==")
    index.save()
    assert ChecksumIndex(index_path).names() == ["file"]
    assert len(index_path.read_bytes().splitlines()) == 1


def test_an_index_that_cannot_be_kept_is_no_error(path, tmp_path):
    """Where nothing can be written, checksums are computed all the same."""
    index = ChecksumIndex(tmp_path / "absent" / "index")
    status, checksum = index.look("file", path)
    index.save()
    assert (version_of(status), checksum) == (version_of(path.stat()), "4waSgw==")
