"""Promises of every store; see `job.storage.object_store.Store`."""

import contextlib
import os
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job.errors import ObjectNotFoundError, OversizedObjectError, PreconditionError, StoreError, UsageError
from job.storage.open_store import open_store

ROOT = Path(__file__).parents[3]

CLAIM = """
import sys
from job.errors import PreconditionError
from job.storage.open_store import open_store

store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    store.put("claim", sys.argv[2].encode())
    print("won")
except PreconditionError:
    print("lost")
"""

KEYS = [
    "plain.txt",
    "a/b/c.json",
    "with space.txt",
    "100%.jpg",
    "a%20b",
    "q?x=1&y#z",
    "a+b~c*d",
    "Wölfe/狼.png",
    "a/.b",
]

NO_KEYS = [
    "",
    "/etc/passwd",
    "../out",
    "a/../../out",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "a\nb",
    ".",
    "..",
    "x" * 1025,
    "狼" * 342,
]


class TestStore:
    @pytest.mark.parametrize("key", KEYS)
    def test_a_put_object_is_read_and_listed(self, store, tmp_path, key):
        """Bytes that were put are read, fetched, described and listed under every kind of key."""
        stored = store.put(key, b"wild")
        assert store.read(key) == b"wild"
        assert store.get(key, tmp_path / "target") == stored == store.stat(key)
        assert (tmp_path / "target").read_bytes() == b"wild"
        assert store.list(checksums=True) == [stored]

    @pytest.mark.parametrize("size", [0, 1, 9 << 20])
    def test_files_of_any_size_come_back(self, store, tmp_path, size):
        """An empty file and one of several megabytes come back unchanged."""
        source, target = tmp_path / "source", tmp_path / "new" / "folder" / "target"
        source.write_bytes(os.urandom(size))
        assert store.put("file", source).size_bytes == size
        store.get("file", target)
        assert target.read_bytes() == source.read_bytes()

    def test_no_more_is_read_into_memory_than_allowed(self, store):
        """An object over the limit is refused with exit code 65, before it is whole in memory; one at it is read."""
        store.put("key", bytes(9 << 20))
        assert len(store.read("key")) == len(store.read("key", 9 << 20)) == 9 << 20
        tracemalloc.start()
        try:
            with pytest.raises(
                OversizedObjectError, match=r"key: is too large to be read, more than 0\.001 MB"
            ) as caught:
                store.read("key", 1000)
            assert tracemalloc.get_traced_memory()[1] < 5 << 20
        finally:
            tracemalloc.stop()
        assert caught.value.exit_code == 65

    def test_files_land_where_the_process_stands(self, store, tmp_path, monkeypatch):
        """A relative name is a file in the folder that the process is in."""
        monkeypatch.chdir(tmp_path)
        store.put("key", b"x")
        store.get("key", Path("target"))
        assert (tmp_path / "target").read_bytes() == b"x"

    def test_descriptions_have_the_checksum_of_the_cloud(self, store):
        """A CRC-32C is reported as Google Cloud Storage reports it."""
        assert store.put("numbers", b"123456789").crc32c == "4waSgw=="

    def test_put_does_not_replace(self, store):
        """A put to a key that is taken fails and changes nothing."""
        first = store.put("key", b"first")
        with pytest.raises(PreconditionError):
            store.put("key", b"second")
        assert store.read("key") == b"first"
        assert store.stat("key") == first

    def test_put_of_the_same_bytes_succeeds(self, store, tmp_path):
        """A put of the same bytes succeeds, from bytes and from a file."""
        first = store.put("key", b"same")
        (tmp_path / "same").write_bytes(b"same")
        assert store.put("key", b"same") == store.put("key", tmp_path / "same") == first

    def test_overwriting_replaces(self, store):
        """A put with `overwrite` replaces the object, and makes another version."""
        first = store.put("key", b"one", overwrite=True)
        second = store.put("key", b"two", overwrite=True)
        assert first.version != second.version
        assert store.read("key") == b"two"

    def test_no_version_comes_twice(self, store):
        """Rewriting the same bytes makes another version each time, so that a stale one never fits again."""
        versions = [store.put("key", b"same", overwrite=True).version for _ in range(20)]
        assert len(set(versions)) == 20

    def test_what_was_deleted_is_absent(self, store, tmp_path):
        """A deleted object is not found by any method, and deleting it again is fine."""
        store.put("a/key", b"x")
        store.delete("a/key")
        store.delete("a/key")
        assert store.list() == []
        for look in (store.stat, store.read, lambda key: store.get(key, tmp_path / "target")):
            with pytest.raises(ObjectNotFoundError):
                look("a/key")

    def test_a_folder_is_no_object(self, store):
        """The beginning of a key is not an object."""
        store.put("a/b/c", b"x")
        for key in ("a", "a/b", "a/b/c/d"):
            with pytest.raises(ObjectNotFoundError):
                store.read(key)
            store.delete(key)
        assert [stored.key for stored in store.list()] == ["a/b/c"]

    def test_folders_are_those_directly_below(self, store):
        """Each folder directly below a prefix is named once, without the objects there and what lies deeper."""
        for key in ("runs/b/x", "runs/a/x", "runs/a/y/z", "runs/note", "other/c/x"):
            store.put(key, b"x")
        assert store.folders("runs/") == ("a", "b")
        assert store.folders("runs/a/") == ("y",)
        assert store.folders("runs/note/") == store.folders("absent/") == ()

    def test_failed_get_leaves_the_target(self, store, tmp_path):
        """A get that fails leaves the file that was there, and no other."""
        target = tmp_path / "folder" / "target"
        target.parent.mkdir()
        target.write_bytes(b"before")
        with pytest.raises(ObjectNotFoundError):
            store.get("absent", target)
        assert list(target.parent.iterdir()) == [target]
        assert target.read_bytes() == b"before"

    def test_listing_is_sorted_and_complete(self, store):
        """A listing has every object once, sorted by key, and nothing of the store's own."""
        keys = [f"{letter}/{number}" for letter in "cab" for number in range(7)]
        store.put_many([(Path(__file__), key) for key in keys])
        assert [stored.key for stored in store.list()] == sorted(keys)

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("", ["runs/a/1", "runs/ab/1", "runs/b", "runs2/a"]),
            ("runs/a", ["runs/a/1", "runs/ab/1"]),
            ("runs/a/", ["runs/a/1"]),
            ("runs", ["runs/a/1", "runs/ab/1", "runs/b", "runs2/a"]),
            ("runs/b", ["runs/b"]),
            ("runs/b/", []),
            ("nothing/here", []),
        ],
    )
    def test_prefixes_are_plain_strings(self, store, prefix, expected):
        """A prefix matches the beginning of a key, whether a folder ends there or not."""
        for key in ("runs/a/1", "runs/ab/1", "runs/b", "runs2/a"):
            store.put(key, b"x")
        assert [stored.key for stored in store.list(prefix)] == expected

    @pytest.mark.parametrize("key", NO_KEYS)
    def test_what_leads_out_is_no_key(self, store, tmp_path, key):
        """A name that could lead out of a folder, or that one of the stores cannot hold, is refused by every method."""
        target = tmp_path / "target"
        for refused in (
            lambda: store.put(key, b"x"),
            lambda: store.read(key),
            lambda: store.get(key, target),
            lambda: store.stat(key),
            lambda: store.delete(key),
            lambda: store.put_many([(Path(__file__), key)]),
        ):
            with pytest.raises(UsageError):
                refused()
        assert store.list() == []
        assert not target.exists()

    def test_many_are_put_and_fetched(self, store, tmp_path):
        """Many files go there and back whole, and each is reported once."""
        files = [(tmp_path / "source" / f"{number}", f"many/{number}") for number in range(40)]
        (tmp_path / "source").mkdir()
        for number, (path, _) in enumerate(files):
            path.write_bytes(bytes([number]) * number)
        put, got = [], []
        store.put_many(iter(files), put.append)
        listing = store.list("many/", checksums=True)
        assert sorted(put, key=lambda stored: stored.key) == listing
        store.get_many([(stored, tmp_path / "target" / stored.key) for stored in listing], got.append)
        assert sorted(got, key=lambda stored: stored.key) == listing
        assert all((tmp_path / "target" / key).read_bytes() == path.read_bytes() for path, key in files)

    def test_putting_many_replaces_nothing(self, store, tmp_path):
        """Putting many files replaces no object."""
        (tmp_path / "new").write_bytes(b"new")
        store.put("key", b"old")
        with pytest.raises(PreconditionError):
            store.put_many([(tmp_path / "new", "key")])
        assert store.read("key") == b"old"
        store.put("same", b"new")
        store.put_many([(tmp_path / "new", "same")])

    def test_first_error_stops_many(self, store, tmp_path):
        """A file that cannot be read, or an object that is gone, ends the transfer with its error."""
        with pytest.raises(StoreError, match="absent"):
            store.put_many([(tmp_path / "absent", "key")])
        store.put("there", b"x")
        store.put("gone", b"x")
        listing = store.list(checksums=True)
        store.delete("gone")
        with pytest.raises(ObjectNotFoundError):
            store.get_many([(stored, tmp_path / stored.key) for stored in listing])
        assert not (tmp_path / "gone").exists()

    def test_what_changed_since_it_was_listed_is_not_fetched(self, store, tmp_path):
        """An object that was replaced after the listing is not passed off as the one that was listed."""
        listed = store.put("key", b"one")
        store.put("key", b"two", overwrite=True)
        with pytest.raises(StoreError):
            store.get_many([(listed, tmp_path / "target")])
        assert list(tmp_path.glob("*target*")) == []

    def test_readers_see_one_version(self, store, tmp_path):
        """A reader gets one whole version while others write, never a mixture."""
        size, stop = 300_000, threading.Event()
        store.put("key", bytes(size))

        def write(byte):
            for _ in range(8):
                store.put("key", bytes([byte]) * size, overwrite=True)

        def read(number):
            num_read = 0
            while not stop.is_set() or num_read == 0:
                store.get("key", tmp_path / f"{number}")
                content = (tmp_path / f"{number}").read_bytes()
                assert content == content[:1] * size
                num_read += 1

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read, number) for number in range(2)]
            try:
                for writer in [pool.submit(write, byte) for byte in (1, 2)]:
                    writer.result()
            finally:
                stop.set()
            for reader in readers:
                reader.result()

    def test_one_of_two_processes_wins(self, location):
        """Of processes that create the same key at once, one wins, and it is its bytes that are there."""
        names = ["one", "two", "three"]
        with contextlib.ExitStack() as stack:
            claimers = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", CLAIM, location, name],
                        env=os.environ | {"PYTHONPATH": str(ROOT)},
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                for name in names
            ]
            assert [claimer.stdout.readline() for claimer in claimers] == ["ready\n"] * len(names)
            for claimer in claimers:
                claimer.stdin.write("go\n")
                claimer.stdin.flush()
            outcomes = [claimer.stdout.readline().strip() for claimer in claimers]
        assert sorted(outcomes) == ["lost", "lost", "won"]
        assert open_store(location).read("claim").decode() == names[outcomes.index("won")]

    def test_uri_names_the_place(self, store, location):
        """The URI of a store is the location by which it was opened."""
        assert store.uri == location

    def test_opening_needs_a_place(self, location):
        """A location that does not exist is refused when it is opened, with advice."""
        wrong = location.replace("gs://", "gs://no-").replace("/bucket", "/absent")
        with pytest.raises(StoreError, match=r"no such .*; create it or correct --bucket"):
            open_store(wrong)


def test_a_source_that_cannot_be_read_is_named(store):
    """A file that opens and then fails to be read is named with the system's reason, and nothing is stored."""
    with pytest.raises(StoreError, match="/proc/self/mem: cannot be stored, Input/output error; check the file"):
        store.put("a", Path("/proc/self/mem"))
    assert store.list() == []


@pytest.mark.parametrize("location", ["s3://bucket", "gs://", "gs://UPPER", "gs://bucket/../x"])
def test_other_addresses_are_refused(location):
    """An address that is neither a bucket's nor a folder's is a usage error."""
    with pytest.raises(UsageError):
        open_store(location)
