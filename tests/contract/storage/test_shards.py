"""Promises of shards, for every store: small files in few objects, each verified by itself when it is pulled."""

import io
from dataclasses import replace

import pytest

from job.errors import CorruptObjectError
from job.storage import shards
from job.storage.atomic_file import partial_files
from job.storage.checksums import CHUNK_BYTES, file_version
from job.storage.shards import pack, read_packed
from job.storage.transfer import PULLED, TransferProgress, is_pulled, pull
from tests.support.noted_requests import note_fetches

NUM_FILES = 40

FOLDER = "data/shards/"


@pytest.fixture
def small(monkeypatch):
    """Limit shards to ten files."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 1_000)


@pytest.fixture
def content():
    """Bytes of small files in two folders, by name."""
    return {f"labels/{number % 2}/{number:03}.txt": b"%03d " % number * 25 for number in range(NUM_FILES)}


@pytest.fixture
def target(tmp_path):
    """Name a folder that does not exist."""
    return tmp_path / "new" / "target"


def put_packed(store, content):
    """Pack files into the store, and return them as it lists them."""
    packed = {}
    for shard in pack(content, content.__getitem__, FOLDER):
        there = store.put(shard.stored.key, shard.data)
        packed |= {name: replace(file, version=there.version, shard=there) for name, file in shard.files.items()}
    return packed


def found(folder):
    """Return the bytes of the files that are not hidden, by name."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_each_shard_is_fetched_once_for_all_its_files(small, store, content, target, monkeypatch):
    """A pull of files in several shards makes a request for each shard, brings every file, and is not repeated."""
    packed = put_packed(store, content)
    fetched, arrived, seen = note_fetches(store, monkeypatch), [], []
    done = pull(store, packed, target, seen.append, on_fetched=arrived.append)
    assert found(target) == content
    assert len(store.list(FOLDER)) == 4
    assert sorted(fetched) == [stored.key for stored in store.list(FOLDER)]
    assert sorted(arrived) == sorted(content)
    size = sum(map(len, content.values()))
    assert (done.num_transferred, done.bytes_transferred) == (NUM_FILES, size)
    assert [each.num_objects for each in seen] == list(range(NUM_FILES + 1))
    assert seen[-1] == TransferProgress(NUM_FILES, size)
    assert partial_files(target) == []
    assert is_pulled(target, packed)
    fetched.clear()
    assert pull(store, packed, target).num_transferred == 0
    assert fetched == []


def test_the_same_files_make_the_same_shards(small, content):
    """Shards follow from names and bytes, whatever the order in which the names are given."""
    first, again = (list(pack(names, content.__getitem__, FOLDER)) for names in (content, sorted(content)[::-1]))
    assert first == again
    assert len(first) == 4
    assert max(len(shard.data) for shard in first) == 1_000


def test_equal_files_are_packed_once(store, target):
    """Files with the same bytes, or with none, share a range, and each comes out."""
    content = {f"{number:03}.txt": (b"", b"0 0.5 0.5 0.1 0.1\n")[number % 2] for number in range(NUM_FILES)}
    (shard,) = pack(content, content.__getitem__, FOLDER)
    assert shard.data == content["001.txt"]
    pull(store, put_packed(store, content), target)
    assert found(target) == content


def test_files_without_bytes_are_packed(store, target):
    """A shard of empty files alone is empty, and each of them comes out."""
    content = {f"{number}.txt": b"" for number in range(3)}
    packed = put_packed(store, content)
    assert [stored.size_bytes for stored in store.list(FOLDER)] == [0]
    pull(store, packed, target)
    assert found(target) == content


def test_only_the_files_that_are_missing_are_written(store, content, target):
    """Of a shard whose files are in the folder but for one, that one is written and the others stay untouched."""
    packed, arrived = put_packed(store, content), []
    pull(store, packed, target)
    missing, *others = sorted(content)
    (target / missing).unlink()
    before = {name: file_version((target / name).stat()) for name in others}
    assert pull(store, packed, target, on_fetched=arrived.append).num_transferred == 1
    assert arrived == [missing]
    assert found(target) == content
    assert {name: file_version((target / name).stat()) for name in others} == before


def test_packed_and_other_files_come_together(store, content, target):
    """Files of their own, one of them under two names, come with those of a shard."""
    single = store.put("data/images/a.jpg", b"wild")
    objects = {"a.jpg": single, **put_packed(store, content), "b.jpg": single}
    assert pull(store, objects, target).num_transferred == NUM_FILES + 2
    assert found(target) == content | {"a.jpg": b"wild", "b.jpg": b"wild"}


@pytest.mark.parametrize("num_before", [0, 1, 17])
def test_a_pull_that_is_cut_within_a_shard_is_resumed(store, content, target, num_before):
    """Files that had come out of a shard stay, nothing else does, and the next pull writes the rest."""
    packed = put_packed(store, content)

    class Cut(BaseException):
        pass

    def cut(done):
        if done.num_objects == num_before + 1:
            raise Cut

    with pytest.raises(Cut):
        pull(store, packed, target, cut)
    assert len(found(target)) == num_before + 1
    assert partial_files(target) == []
    assert pull(store, packed, target).num_transferred == NUM_FILES - num_before - 1
    assert found(target) == content


def test_a_shard_that_a_killed_pull_has_fetched_is_removed(store, content, target, monkeypatch):
    """What a pull leaves that is killed between a shard and its files is a partial file, which the next one removes."""
    packed = put_packed(store, content)

    class Killed(BaseException):
        pass

    def kill(objects, _on_done):
        for stored, path in objects:
            store.get(stored.key, path)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(store, "get_many", kill)
        pull(store, packed, target)
    assert [path.parent for path in partial_files(target)] == [target]
    pull(store, packed, target)
    assert partial_files(target) == []
    assert found(target) == content


@pytest.mark.parametrize(
    "wrong",
    [
        lambda file: replace(file, crc32c="AAAAAA=="),
        lambda file: replace(file, offset=file.offset + 1),
        lambda file: replace(file, size_bytes=file.size_bytes - 1),
        lambda file: replace(file, offset=file.shard.size_bytes - 1),
        lambda file: replace(file, offset=10**30),
        lambda file: replace(file, size_bytes=10**30),
        lambda file: replace(file, size_bytes=10**30, crc32c="AAAAAA=="),
    ],
    ids=[
        *("checksum", "offset", "size", "past the end", "an offset beyond any file", "a size beyond any file"),
        "a size beyond any file with the checksum of no bytes",
    ],
)
def test_a_range_with_other_bytes_is_never_a_file(store, content, target, wrong):
    """A file whose range has not its bytes ends the pull and is absent; the next pull of the right ranges is whole."""
    packed = put_packed(store, content)
    name = sorted(content)[20]
    with pytest.raises(CorruptObjectError, match=rf"are not those of {name}; delete it, and push") as caught:
        pull(store, packed | {name: wrong(packed[name])}, target)
    assert packed[name].shard.key in caught.value.message
    assert found(target).items() <= content.items()
    assert name not in found(target)
    assert partial_files(target) == []
    pull(store, packed, target)
    assert found(target) == content


def test_a_large_range_is_read_in_pieces():
    """Memory for a file does not follow the size that is claimed for it."""
    data, sizes = bytes(2 * CHUNK_BYTES + 5), []

    class Opened(io.BytesIO):
        def read(self, size=-1):
            sizes.append(size)
            return super().read(size)

    (shard,) = pack(["large"], lambda _name: data, FOLDER)
    assert b"".join(read_packed(Opened(shard.data), shard.files["large"], "large", "bucket")) == data
    assert max(sizes) == CHUNK_BYTES
    assert min(sizes) > 0


def test_the_index_of_a_pull_has_packed_files(store, content, target):
    """A file out of a shard that is edited after the pull counts as the user's edit, as any other."""
    packed, name = put_packed(store, content), min(content)
    pull(store, packed, target)
    (target / name).write_bytes(b"mine")
    pull(store, packed, target)
    assert (target.with_name("target.edited") / name).read_bytes() == b"mine"
    assert found(target) == content
    assert (target / PULLED).is_file()
