"""A version that is kept in a folder is known by the folder's state and by its lock, and by nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from job.datasets.kept_version import KEPT, SCHEMA, KeptVersion
from job.storage.cache_file import CacheFile
from job.storage.object_store import StoredObject
from job.storage.transfer import PULLED

VERSION = KeptVersion(number=2, digest="d", digests=frozenset({"d", "e"}), num_files=3, val="v", test=None)

LOCK = StoredObject("datasets/wild/versions/0002.lock.json", 100, "1", "abcd==")

OTHERS = [
    replace(LOCK, key="datasets/wild/versions/0003.lock.json"),
    replace(LOCK, size_bytes=101),
    replace(LOCK, crc32c="abce=="),
]


@pytest.fixture
def folder(tmp_path):
    """A folder that was pulled into."""
    (tmp_path / PULLED).write_text("index")
    return tmp_path


def test_a_version_is_read_by_its_state_and_its_lock(folder):
    """A version is read as it was written, for the same state and lock, also among other locks."""
    VERSION.write(folder, "state", LOCK)
    assert KeptVersion.read(folder, "state", [*OTHERS, replace(LOCK, version="2")]) == VERSION
    assert KeptVersion.read(folder, "state", OTHERS) is None
    assert KeptVersion.read(folder, "other", [LOCK]) is None


def test_the_last_version_alone_is_kept(folder):
    """A folder has one version, that which was written last."""
    for lock in (LOCK, OTHERS[0]):
        VERSION.write(folder, "state", lock)
    assert KeptVersion.read(folder, "state", [LOCK]) is None
    assert KeptVersion.read(folder, "state", [OTHERS[0]]) == VERSION


@pytest.mark.parametrize("change", [lambda index: index.write_text(""), Path.unlink], ids=["emptied", "gone"])
def test_a_pull_that_is_not_known_any_more_is_looked_through(folder, change):
    """Where the index of the pull is damaged or gone, a start makes it anew, before another version is pulled."""
    VERSION.write(folder, "state", LOCK)
    change(folder / PULLED)
    assert KeptVersion.read(folder, "state", [LOCK]) is None
    (folder / KEPT).unlink()
    (folder / PULLED).unlink(missing_ok=True)
    VERSION.write(folder, "state", LOCK)
    assert not (folder / KEPT).exists()


def test_a_folder_without_a_state_keeps_none(folder):
    """Where a file cannot be looked at, nothing says that it has not changed."""
    VERSION.write(folder, "", LOCK)
    assert KeptVersion.read(folder, "", [LOCK]) is None


@pytest.mark.parametrize("row", ["", "{", "{}", '{"number": "2"}'])
def test_a_damaged_record_costs_time_only(folder, row):
    """A damaged record is not read."""
    VERSION.write(folder, "state", LOCK)
    cache = CacheFile(folder / KEPT, SCHEMA)
    cache.write(dict.fromkeys(cache.read(), row))
    assert KeptVersion.read(folder, "state", [LOCK]) is None


def test_a_record_of_another_schema_is_not_read(folder, monkeypatch):
    """What an earlier version of the job recorded may have had another meaning."""
    VERSION.write(folder, "state", LOCK)
    monkeypatch.setattr("job.datasets.kept_version.SCHEMA", "2")
    assert KeptVersion.read(folder, "state", [LOCK]) is None
