"""Promises of a push, for every store: versions never change, and no object is replaced."""

import hashlib
import json
import shutil

import pytest

from job.datasets.lockfile import dataset_digest, read_version, split_digest, version_lock
from job.datasets.push import plan_push
from job.errors import DataError, TransientStoreError
from job.storage import checksums
from job.storage.transfer import pull
from tests.support.faulty_store import FaultyStore
from tests.support.old_locks import first_lock
from tests.support.tiny_dataset import make_tiny_dataset

LABEL = "labels/train/001.txt"

NUM_FILES = 25

OLD_FORMAT = "dataset.lock.json"


@pytest.fixture
def folder(tmp_path):
    """A dataset of 12 images and 12 labels."""
    return make_tiny_dataset(tmp_path / "wild")


def content(folder):
    """Return the bytes of a dataset's files."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def pulled(store, version, folder):
    """Pull a version, and return the bytes of its files."""
    pull(store, version.files, folder)
    return content(folder)


def other_class(folder):
    """Correct a label so that its size stays."""
    before = (folder / LABEL).read_text()
    (folder / LABEL).write_text("".join(f"{1 - int(row[0])}{row[1:]}\n" for row in before.splitlines()))
    assert len(before) == len((folder / LABEL).read_text())


def put_by_hand(store, folder):
    """Copy a dataset's files into the store, without a lock."""
    for name, data in content(folder).items():
        store.put(f"datasets/wild/{name}", data)


def test_a_push_is_version_1_with_a_complete_lock(store, folder, tmp_path):
    """The lock of a first push has each file's size, SHA-256 and CRC-32C, and a pull has the same bytes."""
    before = content(folder)
    pushed = plan_push(store, folder, "wild").send()
    assert (pushed.version, pushed.num_total, pushed.num_sent) == (1, NUM_FILES, NUM_FILES)
    lock = json.loads(store.read("datasets/wild/versions/0001.lock.json"))
    assert (lock["schema"], lock["version"]) == (2, 1)
    assert {name: (entry["size"], entry["sha256"]) for name, entry in lock["files"].items()} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in before.items()
    }
    assert [entry for entry in lock["files"].values() if "at" in entry] == []
    version = read_version(store, "wild")
    assert (version.number, version.digest) == (1, lock["digest"])
    assert pulled(store, version, tmp_path / "pulled") == before


def test_a_second_push_sends_and_reads_nothing(store, folder, monkeypatch):
    """A second push makes no version, sends no file, and reads none for its checksum."""
    plan_push(store, folder, "wild").send()
    keys = store.list()

    def refuse(_opened):
        raise AssertionError("a file was read")

    monkeypatch.setattr(checksums, "read_chunks", refuse)
    monkeypatch.setattr(hashlib, "file_digest", refuse)
    pushed = plan_push(store, folder, "wild").send()
    assert (pushed.version, pushed.num_total, pushed.num_sent, pushed.bytes_sent) == (1, NUM_FILES, 0, 0)
    assert [stored.key for stored in store.list()] == [stored.key for stored in keys]


def test_the_same_size_with_other_bytes_is_another_version(store, folder, tmp_path):
    """A label that is corrected without a change of its size is noticed, pushed and pulled."""
    plan_push(store, folder, "wild").send()
    first, old = read_version(store, "wild"), content(folder)
    other_class(folder)
    plan = plan_push(store, folder, "wild")
    assert plan.changes == "1 changed"
    pushed = plan.send()
    assert (pushed.version, pushed.num_sent) == (2, 1)
    second = read_version(store, "wild")
    assert (
        second.files[LABEL].key == f"datasets/wild/objects/{hashlib.sha256((folder / LABEL).read_bytes()).hexdigest()}"
    )
    assert pulled(store, second, tmp_path / "pulled") == content(folder)
    assert pulled(store, read_version(store, "wild", [first.digest]), tmp_path / "pulled") == old


def test_versions_never_change(store, folder, tmp_path):
    """After changes, additions and removals, and back again, a pull of each version has its bytes."""
    versions = {}

    def push():
        plan_push(store, folder, "wild").send()
        version = read_version(store, "wild")
        versions[version.number] = (version.digest, content(folder))

    push()
    other_class(folder)
    push()
    for kind in ("images/train/001.jpg", LABEL):
        (folder / kind).unlink()
    push()
    shutil.copy(folder / "images/val/000.jpg", folder / "images/train/001.jpg")
    (folder / "images/val/000.jpg").unlink()
    (folder / "labels/val/000.txt").unlink()
    (folder / LABEL).write_text("0 0.5 0.5 0.2 0.2\n")
    push()
    assert list(versions) == [1, 2, 3, 4]
    for digest, before in versions.values():
        shutil.rmtree(tmp_path / "pulled", ignore_errors=True)
        assert pulled(store, read_version(store, "wild", [digest]), tmp_path / "pulled") == before


def test_a_lock_of_before_is_version_1(store, folder, tmp_path):
    """A dataset with the older lock keeps its digest, needs no push, and stays available beside a second version."""
    put_by_hand(store, folder)
    files = read_version(store, "wild").files
    store.put(f"datasets/wild/{OLD_FORMAT}", first_lock(files))
    first, old = read_version(store, "wild"), content(folder)
    assert (first.number, first.digest) == (1, dataset_digest(files))
    assert (plan_push(store, folder, "wild").send().version, store.list("datasets/wild/versions/")) == (1, [])
    other_class(folder)
    assert plan_push(store, folder, "wild").send().version == 2
    assert read_version(store, "wild").number == 2
    assert pulled(store, read_version(store, "wild", [first.digest]), tmp_path / "pulled") == old


def test_what_was_copied_by_hand_stays_available(store, folder, tmp_path):
    """A dataset without a lock works as it lies there, and is version 1 from the first push of other content on."""
    put_by_hand(store, folder)
    by_hand, old = read_version(store, "wild"), content(folder)
    assert by_hand.number == 0
    other_class(folder)
    plan = plan_push(store, folder, "wild")
    assert (plan.changes, plan.send().version) == ("1 changed", 2)
    first = read_version(store, "wild", [by_hand.digest])
    assert (first.number, first.digest) == (1, by_hand.digest)
    assert pulled(store, first, tmp_path / "pulled") == old


def test_what_was_copied_by_hand_is_locked_as_it_is(store, folder):
    """A push of files that were copied by hand sends none of them, and makes version 1."""
    put_by_hand(store, folder)
    digest = read_version(store, "wild").digest
    pushed = plan_push(store, folder, "wild").send()
    assert (pushed.version, pushed.num_sent, read_version(store, "wild").digest) == (1, 0, digest)


@pytest.mark.parametrize("survives", [0, 1, 7, NUM_FILES, NUM_FILES + 1, NUM_FILES + 2])
def test_a_push_that_is_cut_is_resumed(store, folder, tmp_path, survives):
    """After a death at any write an incomplete push is no dataset, and the next push sends only what is missing."""
    faulty = FaultyStore(store, survives=survives, when="before", error=TransientStoreError("bucket: gone"))
    cut = False
    try:
        plan_push(faulty, folder, "wild").send()
    except TransientStoreError:
        cut = True
    num_arrived = len([stored for stored in store.list() if "/versions/" not in stored.key])
    if store.list() and not store.list("datasets/wild/" + version_lock(1)):
        with pytest.raises(DataError, match="its first push was cut"):
            read_version(store, "wild")
    pushed = plan_push(store, folder, "wild").send()
    assert cut or survives > NUM_FILES
    assert (pushed.version, pushed.num_sent) == (1, NUM_FILES - num_arrived)
    assert [stored.key for stored in store.list() if stored.key.endswith(".begun")] == []
    assert pulled(store, read_version(store, "wild"), tmp_path / "pulled") == content(folder)


def test_a_second_version_that_is_cut_leaves_the_first(store, folder, tmp_path):
    """Until the lock of the second version exists, the first one is the newest."""
    plan_push(store, folder, "wild").send()
    old = content(folder)
    other_class(folder)
    shutil.copy(folder / LABEL, folder / "labels/train/new.txt")
    shutil.copy(folder / "images/train/001.jpg", folder / "images/train/new.jpg")
    faulty = FaultyStore(store, survives=2, when="before", error=TransientStoreError("bucket: gone"))
    with pytest.raises(TransientStoreError):
        plan_push(faulty, folder, "wild").send()
    assert pulled(store, read_version(store, "wild"), tmp_path / "pulled") == old
    assert plan_push(store, folder, "wild").send().version == 2
    shutil.rmtree(tmp_path / "pulled")
    assert pulled(store, read_version(store, "wild"), tmp_path / "pulled") == content(folder)


def test_a_file_that_changes_while_it_is_pushed_ends_the_push(store, folder, tmp_path):
    """Objects match the lock, or there is no lock; the next push completes it."""
    plan_push(store, folder, "wild").send()
    other_class(folder)
    plan = plan_push(store, folder, "wild")
    wanted = (folder / LABEL).read_bytes()
    (folder / LABEL).write_bytes(wanted + b"0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=r"001\.txt: was changed while it was pushed"):
        plan.send()
    assert read_version(store, "wild").number == 1
    (folder / LABEL).write_bytes(wanted)
    assert plan_push(store, folder, "wild").send().version == 2
    assert pulled(store, read_version(store, "wild"), tmp_path / "pulled") == content(folder)


def test_two_pushes_at_once_become_two_versions(store, folder, tmp_path):
    """Of two pushes that were planned at the same time each becomes a version, and neither harms the other."""
    other = make_tiny_dataset(folder.with_name("other"), seed=1)
    plans = [plan_push(store, one, "wild") for one in (folder, other)]
    assert [plan.send().version for plan in plans] == [1, 2]
    for number, one in enumerate((folder, other), 1):
        assert pulled(store, read_version(store, f"wild@{number}"), tmp_path / f"{number}") == content(one)
    assert [stored.key for stored in store.list() if stored.key.endswith(".begun")] == []


@pytest.mark.parametrize("before", ["any object", "the lock"])
def test_a_push_that_another_one_overtakes_begins_again(store, folder, tmp_path, before):
    """A push that finds another one's objects or lock in its way is the version after that one."""
    other = make_tiny_dataset(folder.with_name("other"), seed=1)
    late = 2 if before == "any object" else NUM_FILES + 1

    def overtake(number):
        if number == late:
            plan_push(store, other, "wild").send()

    assert plan_push(FaultyStore(store, after_write=overtake), folder, "wild").send().version == 2
    for number, one in ((1, other), (2, folder)):
        assert pulled(store, read_version(store, f"wild@{number}"), tmp_path / f"{number}") == content(one)


def test_bytes_under_another_path_are_kept_once(store, folder):
    """Pictures that move to another split, or are renamed, are not sent again."""
    plan_push(store, folder, "wild").send()
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        (folder / f"{kind}/train/007.{suffix}").rename(folder / f"{kind}/val/007.{suffix}")
    pushed = plan_push(store, folder, "wild").send()
    assert (pushed.version, pushed.num_sent, pushed.changes) == (2, 0, "2 new, 2 gone")


def test_a_lost_object_is_pushed_again(store, folder):
    """A version of which an object was lost is refused with its path, and whole again after a push."""
    plan_push(store, folder, "wild").send()
    store.delete(f"datasets/wild/{LABEL}")
    with pytest.raises(DataError, match=r"differs from its versions/0001\.lock\.json in 1 file;") as caught:
        read_version(store, "wild")
    assert caught.value.problems == (f"{LABEL}: missing",)
    pushed = plan_push(store, folder, "wild").send()
    assert (pushed.version, pushed.num_sent, read_version(store, "wild").number) == (1, 1, 1)


def test_an_object_that_was_replaced_by_hand_is_noticed(store, folder, tmp_path):
    """Other bytes of the same size under a path are reported, and a push stores the right ones beside them."""
    plan_push(store, folder, "wild").send()
    wanted = (folder / LABEL).read_bytes()
    store.put(f"datasets/wild/{LABEL}", wanted.replace(b"0.", b"1.", 1), overwrite=True)
    with pytest.raises(DataError) as caught:
        read_version(store, "wild")
    assert caught.value.problems == (f"{LABEL}: changed",)
    assert plan_push(store, folder, "wild").send().version == 2
    assert pulled(store, read_version(store, "wild"), tmp_path / "pulled") == content(folder)


def test_copies_of_pictures_are_never_pushed_and_never_used(store, folder, tmp_path):
    """A .npy file beside an image stays where it is, and one that lies in the store is not pulled."""
    (folder / "images/train/001.npy").write_bytes(b"stale")
    plan = plan_push(store, folder, "wild")
    plan.send()
    assert (plan.left_out, len(plan.files)) == (("images/train/001.npy",), NUM_FILES)
    store.put("datasets/wild/images/train/002.npy", b"stale")
    assert [name for name in pulled(store, read_version(store, "wild"), tmp_path / "a") if name.endswith(".npy")] == []


def test_a_lock_of_before_that_lists_copies_of_pictures_keeps_its_digest(store, folder):
    """Runs on a version whose lock lists .npy files find it, and do not see these files, there or not."""
    put_by_hand(store, folder)
    store.put("datasets/wild/images/train/001.npy", b"stale")
    by_hand = read_version(store, "wild")
    legacy = dataset_digest(by_hand.pinned)
    assert by_hand.digests == {by_hand.digest, legacy}
    store.put(f"datasets/wild/{OLD_FORMAT}", first_lock(by_hand.pinned))
    version = read_version(store, "wild", [legacy])
    assert (version.number, version.digest, len(version.files)) == (1, legacy, NUM_FILES)
    store.delete("datasets/wild/images/train/001.npy")
    assert read_version(store, "wild", [legacy]).files.keys() == version.files.keys()
    other_class(folder)
    assert plan_push(store, folder, "wild").send().version == 2
    assert [read_version(store, "wild", [one]).number for one in (legacy, by_hand.digest)] == [1, 1]


def test_folders_called_as_ours_are_pushed(store, tmp_path):
    """A dataset may have folders called objects, shards and versions; only our own names in them are left out."""
    folder = make_tiny_dataset(tmp_path / "wild")
    for name in ("objects", "shards", "versions"):
        (folder / "images" / name).mkdir()
        (folder / name).mkdir()
        (folder / name / "note.txt").write_text("x")
    plan_push(store, folder, "wild").send()
    assert {"objects/note.txt", "shards/note.txt", "versions/note.txt"} < read_version(store, "wild").files.keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda lock: lock | {"schema": 4},
        lambda lock: lock | {"files": {"a": {"size": 1, "crc32c": "x", "sha256": "0", "at": f"shards/{64 * '0'}"}}},
        lambda lock: lock | {"files": {"a": {"size": "1", "crc32c": "x"}}},
        lambda lock: lock | {"files": {"a": [1]}},
        lambda lock: lock | {"files": ["a"]},
        lambda _lock: [],
    ],
    ids=["newer", "a place unknown", "a size of text", "no checksum", "a list", "nothing"],
)
def test_a_lock_that_is_not_understood_is_refused(store, folder, change):
    """A lock of a newer version, or one that is damaged, ends with what to do."""
    plan_push(store, folder, "wild").send()
    key = "datasets/wild/versions/0001.lock.json"
    store.put(key, json.dumps(change(json.loads(store.read(key)))).encode(), overwrite=True)
    with pytest.raises(DataError, match=r"newer version of the job|cannot be read"):
        read_version(store, "wild")


def test_other_names_of_classes_are_another_measure(store, folder):
    """Metrics are comparable on the same pictures and labels with the same classes in the same order alone."""
    plan_push(store, folder, "wild").send()
    files = read_version(store, "wild").files
    split = [LABEL, LABEL.replace("labels", "images").replace("txt", "jpg")]
    digest = split_digest(files, split, ["cow", "deer"])
    assert split_digest(files, reversed(split), ["cow", "deer"]) == digest
    assert split_digest(files, split, ["deer", "cow"]) != digest
    assert split_digest(files, split[:1], ["cow", "deer"]) != digest


def test_names_that_no_bucket_takes_are_refused_before_anything_is_sent(store, folder):
    """A file whose name is no key is refused by the check, and by a forced push."""
    (folder / "back\\slash.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(DataError) as caught:
            plan_push(store, folder, "wild", force=force)
        assert "slash" in caught.value.problems[0]
    assert store.list() == []


def test_odd_names_come_back(store, folder, tmp_path):
    """Spaces of every width and joiners in names are pushed and pulled."""
    for number, name in enumerate(["9.41\u202fAM", "写真\u30001", "cow\u00a0herd", "deer\u200b1"]):
        (folder / f"images/train/00{number}.jpg").rename(folder / f"images/train/{name}.jpg")
        (folder / f"labels/train/00{number}.txt").rename(folder / f"labels/train/{name}.txt")
    plan_push(store, folder, "wild").send()
    assert pulled(store, read_version(store, "wild"), tmp_path / "pulled") == content(folder)


def test_links_are_pushed_as_what_they_lead_to(store, folder, tmp_path):
    """A linked folder outside is refused by name, and pushed with all its files with `follow_links`."""
    before = content(folder)
    (folder / "images/train").rename(tmp_path / "raw")
    (folder / "images/train").symlink_to(tmp_path / "raw")
    with pytest.raises(DataError, match="--force") as caught:
        plan_push(store, folder, "wild").send()
    assert any("images/train: is a link that leads out" in problem for problem in caught.value.problems)
    assert store.list() == []
    plan_push(store, folder, "wild", follow_links=True).send()
    assert pulled(store, read_version(store, "wild"), tmp_path / "pulled") == before
