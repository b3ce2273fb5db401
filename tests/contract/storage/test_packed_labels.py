"""Promises of packed labels, for every store: few requests, versions that never change, nothing sent twice."""

import hashlib
import json
import shutil

import pytest
from PIL import Image

from job.datasets import upload
from job.datasets.lockfile import dataset_digest, moved_files, read_version
from job.datasets.push import plan_push
from job.errors import CorruptObjectError, DataError, TransientStoreError
from job.storage import shards
from job.storage.transfer import pull
from tests.support.faulty_store import FaultyStore
from tests.support.noted_requests import note_fetches, note_puts
from tests.support.old_locks import first_lock
from tests.support.tiny_dataset import make_tiny_dataset

LABEL = "labels/train/001.txt"

NUM_IMAGES, NUM_FILES = 12, 25

LOCK = "datasets/wild/versions/0001.lock.json"

SHARDS = "datasets/wild/shards/"


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Pack four labels and more."""
    monkeypatch.setattr(upload, "LEAST_LABELS", 4)


@pytest.fixture
def folder(tmp_path):
    """A dataset of 12 images and 12 labels."""
    return make_tiny_dataset(tmp_path / "wild")


def push(store, folder):
    """Push the folder."""
    return plan_push(store, folder, "wild").send()


def content(folder):
    """Return the bytes of a dataset's files."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def pulled(store, reference, folder):
    """Pull a version into an empty folder, and return the bytes of its files."""
    shutil.rmtree(folder, ignore_errors=True)
    pull(store, read_version(store, reference).files, folder)
    return content(folder)


def label(folder, number):
    """Return the path of a label of the training split."""
    return folder / f"labels/train/{number:03}.txt"


def half_of_labels(folder):
    """Return a little less than half of the bytes of all labels: it takes three shards of that size."""
    return sum(path.stat().st_size for path in folder.glob("labels/*/*.txt")) // 2 - 1


def listed(store, prefix=SHARDS):
    """Return the keys below a prefix."""
    return [stored.key for stored in store.list(prefix)]


def test_labels_are_one_object_and_one_request(store, folder, tmp_path, monkeypatch):
    """A pushed dataset has its images under their names and its labels in one shard, which a pull fetches once."""
    before = content(folder)
    pushed = push(store, folder)
    assert (pushed.version, pushed.num_total, pushed.num_sent) == (1, NUM_FILES, NUM_FILES)
    assert pushed.bytes_sent == sum(map(len, before.values()))
    assert listed(store, "datasets/wild/labels/") == []
    (shard,) = listed(store)
    assert shard == SHARDS + hashlib.sha256(store.read(shard)).hexdigest()
    lock = json.loads(store.read(LOCK))
    assert lock["schema"] == 3
    for name, entry in lock["files"].items():
        bytes_of_it, key = store.read("datasets/wild/" + entry.get("at", name)), entry.get("at", "")
        assert (key == shard.removeprefix("datasets/wild/")) == name.startswith("labels/")
        start = entry.get("offset", 0)
        assert bytes_of_it[start : start + entry["size"]] == before[name]
        assert entry["sha256"] == hashlib.sha256(before[name]).hexdigest()
    fetched = note_fetches(store, monkeypatch)
    assert pulled(store, "wild", tmp_path / "pulled") == before
    assert sorted(key for key in fetched if "/versions/" not in key) == sorted(
        [shard, *(f"datasets/wild/{name}" for name in before if not name.startswith("labels/"))]
    )


def test_a_version_without_shards_is_locked_as_before(store, folder, monkeypatch):
    """Few labels are objects of their own, and the lock has the bytes that earlier versions of the job wrote."""
    monkeypatch.setattr(upload, "LEAST_LABELS", NUM_IMAGES + 1)
    push(store, folder)
    stored = read_version(store, "wild").files
    files = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "crc32c": stored[name].crc32c}
        for name, data in sorted(content(folder).items())
    }
    lock = {"schema": 2, "version": 1, "digest": dataset_digest(stored), "files": files}
    assert store.read(LOCK) == (json.dumps(lock, indent=0) + "\n").encode()
    assert listed(store) == []


@pytest.mark.parametrize("schema", [1, 2])
def test_a_dataset_that_was_pushed_before_keeps_its_objects(store, folder, tmp_path, monkeypatch, schema):
    """Labels of an older lock are not sent again, new ones are packed, and both versions are whole."""
    if schema == 1:
        for name, data in content(folder).items():
            store.put(f"datasets/wild/{name}", data)
        store.put("datasets/wild/dataset.lock.json", first_lock(read_version(store, "wild").files))
    else:
        with monkeypatch.context() as patch:
            patch.setattr(upload, "LEAST_LABELS", NUM_FILES)
            push(store, folder)
    old = content(folder)
    assert (push(store, folder).num_sent, read_version(store, "wild").number) == (0, 1)
    for number in range(5):
        label(folder, number).write_text(f"0 0.5 0.5 0.{number + 1} 0.2\n")
    assert (push(store, folder).num_sent, len(listed(store))) == (5, 1)
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)
    assert pulled(store, "wild@1", tmp_path / "pulled") == old


def test_only_what_is_new_is_sent(store, folder, tmp_path, monkeypatch):
    """A second version sends the labels that were changed or added, and none that the first one has in a shard."""
    push(store, folder)
    old, before = content(folder), listed(store)
    label(folder, 1).write_text("0 0.5 0.5 0.25 0.25\n")
    added = make_tiny_dataset(tmp_path / "more", num_train=4, num_val=0, seed=1)
    for number in range(4):
        shutil.copy(added / f"images/train/{number:03}.jpg", folder / f"images/train/new{number}.jpg")
        shutil.copy(added / f"labels/train/{number:03}.txt", folder / f"labels/train/new{number}.txt")
    (folder / "labels/train/007.txt").rename(folder / "labels/val/007.txt")
    (folder / "images/train/007.jpg").rename(folder / "images/val/007.jpg")
    keys = note_puts(store, monkeypatch)
    pushed = push(store, folder)
    assert (pushed.version, pushed.num_sent, pushed.changes) == (2, 9, "10 new, 1 changed, 2 gone")
    (shard,) = set(listed(store)) - set(before)
    assert {key for key in keys if key.startswith(SHARDS)} == {shard}
    new = [data for name, data in sorted(content(folder).items()) if "labels/train/new" in name]
    assert store.read(shard) == b"".join([label(folder, 1).read_bytes(), *new])
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)
    assert pulled(store, "wild@1", tmp_path / "pulled") == old


def test_a_changed_label_alone_is_an_object_of_its_own(store, folder, tmp_path):
    """One label that is corrected, twice, is no shard, and each version has its own bytes."""
    texts = ["", "0 0.5 0.5 0.25 0.25\n", "0 0.5 0.5 0.125 0.125\n"]
    for text in texts:
        label(folder, 1).write_text(text)
        push(store, folder)
    assert len(listed(store)) == 1
    for number, text in enumerate(texts, 1):
        assert pulled(store, f"wild@{number}", tmp_path / "pulled")[LABEL] == text.encode()


def test_a_second_push_makes_and_sends_nothing(store, folder, monkeypatch):
    """A push of what the newest version has in shards makes no version and puts no object."""
    push(store, folder)
    keys = note_puts(store, monkeypatch)
    pushed = push(store, folder)
    assert (pushed.version, pushed.num_sent, pushed.bytes_sent, keys) == (1, 0, 0, [])


def test_equal_labels_are_sent_once(store, folder, tmp_path):
    """Pictures without an object share the range of no bytes, also those that a later version adds."""
    for path in folder.glob("labels/*/*.txt"):
        path.write_text("0 0.5 0.5 0.25 0.25\n" if path.stem == "000" else "")
    push(store, folder)
    assert [stored.size_bytes for stored in store.list(SHARDS)] == [len("0 0.5 0.5 0.25 0.25\n")]
    added = make_tiny_dataset(tmp_path / "more", num_train=6, num_val=0, seed=1)
    for number in range(6):
        shutil.copy(added / f"images/train/{number:03}.jpg", folder / f"images/train/new{number}.jpg")
        (folder / f"labels/train/new{number}.txt").write_text("")
    assert push(store, folder).num_sent == 6
    assert len(listed(store)) == 1
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)


@pytest.mark.parametrize("survives", [1, 2, 3, 4, 9, NUM_IMAGES + 4])
def test_shards_of_a_push_that_was_cut_are_not_sent_again(store, folder, tmp_path, monkeypatch, survives):
    """The push after one that was killed at any write makes the same shards, and sends those that are not there."""
    monkeypatch.setattr(shards, "SHARD_BYTES", half_of_labels(folder))
    faulty = FaultyStore(store, survives=survives, error=TransientStoreError("bucket: gone"))
    with pytest.raises(TransientStoreError):
        push(faulty, folder)
    there = [key for key in listed(store, "datasets/wild/") if "/versions/" not in key]
    keys = note_puts(store, monkeypatch)
    push(store, folder)
    assert set(there).isdisjoint(keys)
    assert len(listed(store)) == 3
    assert len(keys) == len(set(keys))
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)


@pytest.mark.parametrize(
    "change",
    [lambda data: data.replace(b"0.", b"1.", 1), lambda data: data + b"0 0.5 0.5 0.2 0.2\n", lambda data: data[:-1]],
    ids=["other bytes", "longer", "shorter"],
)
def test_a_label_that_changes_while_it_is_pushed_ends_the_push(store, folder, tmp_path, monkeypatch, change):
    """A label that changes between its plan and its shard is in no lock, and the next push goes on."""
    monkeypatch.setattr(shards, "SHARD_BYTES", half_of_labels(folder))
    last = folder / "labels/val/003.txt"
    wanted = last.read_bytes()

    def change_after(number):
        if number == 2:  # the first shard
            assert len(listed(store)) == 1
            last.write_bytes(change(wanted))

    with pytest.raises(DataError, match=r"003\.txt: was changed while it was pushed"):
        push(FaultyStore(store, after_write=change_after), folder)
    assert listed(store, LOCK) == []
    last.write_bytes(wanted)
    assert push(store, folder).num_sent < NUM_FILES
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)


def test_one_lost_shard_of_several_is_pushed_again(store, folder, tmp_path, monkeypatch):
    """Whichever shard was lost, the labels in it make the same one again."""
    monkeypatch.setattr(shards, "SHARD_BYTES", half_of_labels(folder))
    monkeypatch.setattr(upload, "LEAST_LABELS", 1)
    push(store, folder)
    before = listed(store)
    assert len(before) == 3
    for lost in before:
        store.delete(lost)
        assert (push(store, folder).version, listed(store)) == (1, before)
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)


def test_lost_labels_of_before_are_stored_where_they_were(store, folder, tmp_path, monkeypatch):
    """Many labels that a version has as objects of their own, and that were lost, make that version whole again."""
    with monkeypatch.context() as patch:
        patch.setattr(upload, "LEAST_LABELS", NUM_FILES)
        push(store, folder)
    for key in listed(store, "datasets/wild/labels/"):
        store.delete(key)
    pushed = push(store, folder)
    assert (pushed.version, pushed.num_sent, listed(store)) == (1, NUM_IMAGES, [])
    assert pulled(store, "wild@1", tmp_path / "pulled") == content(folder)


def test_a_packed_label_has_no_object_of_its_own(store, folder):
    """Files that lie elsewhere than under their paths are named by object; those in a shard are in none of them."""
    push(store, folder)
    assert moved_files(store, "wild", read_version(store, "wild").digest) == {}


DAMAGES = {
    "lost": (lambda _: None, "missing"),
    "cut": (lambda data: data[:-1], "changed"),
    "flipped": (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "changed"),
    "longer": (lambda data: data + b"0", "changed"),
}
"""What becomes of a shard's bytes, none if it is lost, and what is said of its labels."""


@pytest.mark.parametrize(("damage", "told"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_noticed_and_put_right(store, folder, tmp_path, damage, told):
    """A shard that is lost, or has other bytes, is refused with its labels before a pull; a push stores it again."""
    push(store, folder)
    (shard,) = listed(store)
    damaged = damage(store.read(shard))
    store.delete(shard)
    if damaged is not None:
        store.put(shard, damaged)
    with pytest.raises(DataError, match=r"differs from its versions/0001\.lock\.json in 12 files;") as caught:
        read_version(store, "wild")
    assert f"{LABEL}: {told}" in caught.value.problems
    pushed = push(store, folder)
    assert (pushed.version, pushed.num_sent, listed(store)) == (1, NUM_IMAGES, [shard])
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)


def test_a_lost_shard_of_few_labels_is_pushed_again(store, folder, tmp_path, monkeypatch):
    """A shard is stored again under its name, also if it has fewer labels than are packed otherwise."""
    push(store, folder)
    (shard,) = listed(store)
    store.delete(shard)
    monkeypatch.setattr(upload, "LEAST_LABELS", NUM_FILES)
    assert (push(store, folder).version, listed(store)) == (1, [shard])
    assert pulled(store, "wild@1", tmp_path / "pulled") == content(folder)


@pytest.mark.parametrize("rows", ["0 0.5 0.5 0.25 0.25\n", ""], ids=["rows", "no row"])
def test_a_lost_shard_with_a_label_of_two_pictures_is_pushed_again(store, folder, tmp_path, rows):
    """A label that came later under an earlier name, with bytes that the shard has, changes nothing of the shard."""
    max(folder.glob("labels/val/*.txt")).write_text(rows)
    push(store, folder)
    (shard,) = listed(store)
    Image.new("RGB", (64, 64), "green").save(folder / "images/train/000b.jpg")
    (folder / "labels/train/000b.txt").write_text(rows)
    assert push(store, folder).version == 2
    store.delete(shard)
    assert (push(store, folder).version, listed(store)) == (2, [shard])
    assert push(store, folder).num_sent == 0
    assert pulled(store, "wild@2", tmp_path / "pulled") == content(folder)
    read_version(store, "wild@1")


def test_labels_of_a_shard_that_cannot_be_made_again_are_sent_elsewhere(store, folder, tmp_path):
    """Where the folder lacks a label of a lost shard, the newest version is whole again as the next one."""
    push(store, folder)
    (folder / LABEL).write_text("0 0.5 0.5 0.25 0.25\n")
    push(store, folder)
    for shard in listed(store):
        store.delete(shard)
    assert push(store, folder).version == 3
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)


def test_a_damaged_shard_in_the_way_of_a_push_is_replaced(store, folder, tmp_path):
    """What lies under the name of a shard with other bytes than the name says does not stop a push."""
    plan = plan_push(store, folder, "wild")
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("labels/*/*.txt")))
    store.put(SHARDS + hashlib.sha256(data).hexdigest(), b"half")
    plan.send()
    assert pulled(store, "wild", tmp_path / "pulled") == content(folder)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"offset": -1}, "cannot be read"),
        ({"size": -1}, "cannot be read"),
        ({"offset": 1.0}, "cannot be read"),
        ({"offset": "1"}, "cannot be read"),
        ({"offset": True}, "cannot be read"),
        ({"offset": None}, "cannot be read"),
        ({"at": None}, "cannot be read"),
        ({"at": "labels/train/002.txt"}, "cannot be read"),
        ({"at": f"shards/../../other/shards/{64 * '0'}"}, "cannot be read"),
        ({"at": f"shards/{64 * 'g'}"}, "cannot be read"),
        ({"at": f"shards/{64 * '0'}\n"}, "cannot be read"),
        ({"at": f"shards/{64 * '0'}"}, "cannot be read"),
        ({"offset": 10**30}, "cannot be read"),
        ({"size": 10**30}, "cannot be read"),
    ],
)
def test_a_lock_is_not_trusted(store, folder, entry, told):
    """A range that cannot be, or a shard by another name, ends with what to do, before anything is fetched."""
    push(store, folder)
    lock = json.loads(store.read(LOCK))
    lock["files"][LABEL] |= entry
    store.put(LOCK, json.dumps(lock).encode(), overwrite=True)
    with pytest.raises(DataError, match=told):
        read_version(store, "wild")


def test_a_range_of_other_labels_is_refused(store, folder, tmp_path):
    """A lock that leads to the bytes of another label ends the pull, and no label has them."""
    push(store, folder)
    lock = json.loads(store.read(LOCK))
    lock["files"][LABEL]["offset"] += 1
    store.put(LOCK, json.dumps(lock).encode(), overwrite=True)
    with pytest.raises(CorruptObjectError, match=LABEL):
        pulled(store, "wild", tmp_path / "pulled")
    assert LABEL not in content(tmp_path / "pulled")
