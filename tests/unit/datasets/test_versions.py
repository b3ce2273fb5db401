"""Versions of datasets: listed with the runs on them, deleted without harm to others, named in commands."""

import json
import logging
import re
import shutil

import pytest

from job.cli.app import main
from job.datasets import lockfile, upload
from job.datasets.lockfile import moved_files, read_version
from job.datasets.prepare import find_dataset
from job.datasets.push import plan_push
from job.datasets.versions import dataset_names, list_versions, plan_deletion
from job.errors import DataError, OversizedObjectError, TransientStoreError
from job.runs.listing import RunListing
from job.runs.run import Run
from job.session.console import say_newer_data
from job.storage.local import FolderStore
from job.storage.open_store import open_store
from job.storage.transfer import pull
from tests.support.bucket_records import put_recorded, recorded
from tests.support.counting_store import CountingStore
from tests.support.faulty_store import FaultyStore
from tests.support.tiny_dataset import make_tiny_dataset

LABEL = "labels/train/001.txt"


@pytest.fixture
def folder(tmp_path):
    """A dataset of 25 files."""
    return make_tiny_dataset(tmp_path / "wild")


@pytest.fixture
def store(tmp_path, folder):
    """A bucket with three versions: a label is corrected, then a picture and its label are gone."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    plan_push(store, folder, "wild").send()
    (folder / LABEL).write_text("0 0.5 0.5 0.2 0.2\n")
    plan_push(store, folder, "wild").send()
    for name in ("images/train/003.jpg", "labels/train/003.txt"):
        (folder / name).unlink()
    plan_push(store, folder, "wild").send()
    return store


def content(store, reference, folder):
    """Pull a version into an empty folder, and return the bytes of its files."""
    shutil.rmtree(folder, ignore_errors=True)
    pull(store, read_version(store, reference).files, folder)
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if not path.name.startswith(".") and path.is_file()
    }


def put_run(store, name, reference, *, finished=True):
    """Put the records of a run on a version into the bucket."""
    version = read_version(store, reference)
    put_recorded(store, recorded("base", run=name, dataset="wild"))
    key = f"runs/{name}/run.json"
    record = json.loads(store.read(key))
    record["dataset"] |= {"name": "wild", "digest": version.digest, "version": version.number}
    store.put(key, json.dumps(record).encode(), overwrite=True)
    if not finished:
        store.delete(f"runs/{name}/final.json")
    return Run(store, name)


def test_a_reference_names_a_version(store):
    """A plain name is the newest version, NAME@2 the second; one that does not exist is answered."""
    assert [read_version(store, name).number for name in ("wild", "wild@3", "wild@2", "wild@1")] == [3, 3, 2, 1]
    assert [find_dataset(store, name) for name in (None, "wild", "wild@1")] == ["wild", "wild", "wild@1"]
    with pytest.raises(DataError, match="has no version 4, there is 1, 2, 3"):
        find_dataset(store, "wild@4")


def test_a_list_tells_sizes_and_differences(store):
    """Each version has its size, the bytes that it alone holds, and its differences from the one before."""
    first, second, third = list_versions(store, "wild")
    assert [version.num_files for version in (first, second, third)] == [25, 25, 23]
    assert [version.changes for version in (first, second, third)] == ["", "1 changed", "2 gone"]
    old_label = read_version(store, "wild@1").files[LABEL].size_bytes
    assert (first.own_bytes, second.own_bytes, third.own_bytes) == (old_label, 0, 0)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_deletion_frees_what_no_other_version_holds(store, tmp_path, number):
    """The other versions stay as they are, and a number does not come back."""
    others = {name: content(store, name, tmp_path / "pulled") for name in ("wild@1", "wild@2", "wild@3")}
    gone = others.pop(f"wild@{number}")
    num_freed, _ = plan_deletion(store, f"wild@{number}").carry_out()
    assert num_freed == {1: 1, 2: 0, 3: 0}[number]
    for name, before in others.items():
        assert content(store, name, tmp_path / "pulled") == before
    with pytest.raises(DataError, match=f"has no version {number}"):
        find_dataset(store, f"wild@{number}")
    assert gone
    again = make_tiny_dataset(tmp_path / "again", seed=1)
    assert plan_push(store, again, "wild").send().version == 4


@pytest.fixture
def packed(tmp_path, folder, monkeypatch):
    """A bucket with three versions: all labels in one shard, then one corrected, then all in another shard."""
    monkeypatch.setattr(upload, "LEAST_LABELS", 4)
    store = FolderStore.create(str(tmp_path / "bucket"))
    for text in (None, "0 0.5 0.5 0.2 0.2\n"):
        (folder / LABEL).write_text(text or (folder / LABEL).read_text())
        plan_push(store, folder, "wild").send()
    for number, path in enumerate(sorted(folder.glob("labels/*/*.txt"))):
        path.write_text(f"0 0.5 0.5 0.{number + 1} 0.3\n")
    plan_push(store, folder, "wild").send()
    return store


def shard_bytes(store):
    """Return the size of each shard, by key."""
    return {stored.key: stored.size_bytes for stored in store.list("datasets/wild/shards/")}


def test_a_shard_stays_while_a_version_holds_a_file_in_it(packed, tmp_path):
    """A shard that two versions share is freed with the second of them; the third keeps its own."""
    others = {name: content(packed, name, tmp_path / "pulled") for name in ("wild@2", "wild@3")}
    before = shard_bytes(packed)
    first, third = read_version(packed, "wild@1").files[LABEL].key, read_version(packed, "wild@3").files[LABEL].key
    assert before.keys() == {first, third}
    assert plan_deletion(packed, "wild@1").carry_out() == (0, 0)
    assert shard_bytes(packed) == before
    for name, files in others.items():
        assert content(packed, name, tmp_path / "pulled") == files
    size_of_label = read_version(packed, "wild@2").files[LABEL].size_bytes
    assert plan_deletion(packed, "wild@2").carry_out() == (2, before[first] + size_of_label)
    assert shard_bytes(packed).keys() == {third}
    assert content(packed, "wild@3", tmp_path / "pulled") == others["wild@3"]


def test_a_list_counts_a_shard_once_and_whole(packed):
    """Bytes that a version alone holds are those of its shard, which a deletion frees, however many labels use it."""
    sizes = shard_bytes(packed)
    third = read_version(packed, "wild@3").files[LABEL].key
    label = read_version(packed, "wild@2").files[LABEL].size_bytes
    assert [version.own_bytes for version in list_versions(packed, "wild")] == [0, label, sizes[third]]
    plan_deletion(packed, "wild@1").carry_out()
    freed = list_versions(packed, "wild")[0].own_bytes
    assert plan_deletion(packed, "wild@2").carry_out()[1] == freed == label + sum(sizes.values()) - sizes[third]


def test_a_deletion_frees_the_shard_of_a_push_that_was_cut(packed):
    """A shard that no lock names goes with the next deletion."""
    left = f"datasets/wild/shards/{'0' * 64}"
    packed.put(left, b"half")
    assert plan_deletion(packed, "wild@1").carry_out() == (1, 4)
    assert left not in shard_bytes(packed)
    plan_deletion(packed, "wild").carry_out()
    assert shard_bytes(packed) == {}


def test_files_in_shards_have_no_key_of_their_own(packed, folder):
    """Readers of single files are led to pictures that lie elsewhere, and never to the bytes of many labels."""
    image = "images/train/001.jpg"
    shutil.copy(make_tiny_dataset(folder.with_name("other"), seed=1) / image, folder / image)
    plan_push(packed, folder, "wild").send()
    version = read_version(packed, "wild")
    moved = moved_files(packed, "wild", version.digest)
    assert moved == {image: version.files[image].key}
    assert packed.read(moved[image]) == (folder / image).read_bytes()


@pytest.mark.parametrize("reference", ["wild@1", "wild"])
@pytest.mark.parametrize("survives", [0, 1, 2, 3, 5, 20])
def test_a_deletion_that_is_cut_off_leaves_the_others_whole(store, folder, tmp_path, reference, survives):
    """After a death at any write the versions that remain are whole, no push goes on, and the same call ends it."""
    before = content(store, "wild@3", tmp_path / "pulled")
    faulty = FaultyStore(store, survives=survives, error=TransientStoreError("bucket: gone"))
    try:
        plan_deletion(faulty, reference).carry_out()
    except TransientStoreError:
        half = [stored.key for stored in store.list("datasets/wild/versions/") if stored.key.endswith(".deleted")]
        if half:
            with pytest.raises(DataError, match="is half deleted; repeat"):
                plan_push(store, folder, "wild").send()
        if reference == "wild@1":
            assert content(store, "wild", tmp_path / "pulled") == before
        plan_deletion(store, reference).carry_out()
    assert dataset_names(store) == ([] if reference == "wild" else ["wild"])
    left = [stored.key for stored in store.list("datasets/") if not stored.key.endswith(".deleted")]
    assert bool(left) == (reference == "wild@1")
    assert plan_push(store, folder, "wild").send().version == (4 if reference == "wild" else 3)
    assert content(store, "wild", tmp_path / "pulled") == before


def test_a_folder_that_was_copied_in_by_hand_is_version_1(tmp_path, folder):
    """It is listed, named and deleted like any other."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    for path in folder.rglob("*.*"):
        if path.is_file() and not path.name.startswith("."):
            store.put(f"datasets/wild/{path.relative_to(folder).as_posix()}", path)
    assert find_dataset(store, "wild@1") == "wild@1"
    assert [(version.number, version.num_files) for version in list_versions(store, "wild")] == [(1, 25)]
    assert plan_deletion(store, "wild").carry_out()[0] == 25
    assert dataset_names(store) == []


def test_a_deletion_waits_for_a_push(store):
    """A push that has begun may hold what the deletion would free."""
    store.put("datasets/wild/versions/0123456789abcdef.begun", b"{}")
    before = [stored.key for stored in store.list()]
    with pytest.raises(DataError, match="a push has begun"):
        plan_deletion(store, "wild@1").carry_out()
    assert [stored.key for stored in store.list()] == before
    plan_deletion(store, "wild@1").carry_out(force=True)
    assert [version.number for version in list_versions(store, "wild")] == [2, 3]


def test_a_deletion_waits_for_a_first_push(tmp_path):
    """Before its first version, a push has objects that a deletion would free."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    for name in ("versions/0123456789abcdef.begun", "images/train/000.jpg"):
        store.put(f"datasets/wild/{name}", b"{}")
    before = [stored.key for stored in store.list()]
    with pytest.raises(DataError, match="a push has begun"):
        plan_deletion(store, "wild").carry_out()
    assert [stored.key for stored in store.list()] == before
    plan_deletion(store, "wild").carry_out(force=True)
    assert dataset_names(store) == []


def test_what_an_unfinished_run_needs_is_not_deleted(store, tmp_path, capfd):
    """The refusal names the run; the version of a finished one is deleted with a warning."""
    bucket = str(tmp_path / "bucket")
    put_run(store, "zebra", "wild@1")
    put_run(store, "going", "wild@2", finished=False)
    assert main(["data", "list", "--bucket", bucket]) == 0
    listed = capfd.readouterr().out.splitlines()
    assert listed[0].split() == ["dataset", "files", "size", "alone", "differences", "runs"]
    assert [line.split()[0] for line in listed[1:]] == ["wild@1", "wild@2", "wild@3"]
    assert [line.split()[-1] for line in listed[1:3]] == ["zebra", "going"]
    assert max(map(len, listed)) <= 80
    for name in ("wild@2", "wild"):
        assert main(["data", "delete", name, "--bucket", bucket]) == 65
        assert "unfinished runs need it" in capfd.readouterr().err
    assert main(["data", "delete", "wild@1", "--bucket", bucket]) == 0
    told = capfd.readouterr()
    assert "cannot be extended: zebra" in told.err
    assert "deleted wild@1; 1 object freed" in told.out


@pytest.mark.parametrize(
    ("version", "dataset", "finished", "told"),
    [
        ("wild@1", "wild", True, "trained on version 1; to train on the newer:\n  .*job train .*--dataset wild@3"),
        ("wild@2", "wild", False, "has version 3 now, run zebra stays on version 2"),
        ("wild@3", "wild", True, None),
        ("wild@1", "wild@1", True, None),
    ],
    ids=["finished", "unfinished", "on the newest", "on a certain one"],
)
def test_a_run_says_that_a_newer_version_exists(store, caplog, version, dataset, finished, told):
    """A run stays on its version; of a finished one the command for the newer version is named."""
    run = put_run(store, "zebra", version)
    record = run.record()
    with caplog.at_level(logging.INFO):
        say_newer_data(run, record, {**record.request, "dataset": dataset}, finished=finished)
    if told is None:
        assert caplog.text == ""
    else:
        assert re.search(told, caplog.text), caplog.text


def test_the_names_of_datasets_are_known_without_a_list_of_their_files(store):
    """However many files a dataset has, its name costs one request, and one more for all names."""
    counting = CountingStore.open(store.uri)
    assert dataset_names(counting) == ["wild"]
    assert counting.requests == {("folders", "datasets/"): 1, ("list", "datasets/wild/versions/"): 1}


def test_marks_of_empty_folders_are_no_dataset(emulator, monkeypatch):
    """A dataset of which only the console's marks of folders are left is not there."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    store = open_store(emulator.make_bucket())
    store._bucket.blob("datasets/photos/images/").upload_from_string(b"")
    assert store.folders("datasets/") == ("photos",)
    assert dataset_names(store) == []
    store.put("datasets/photos/images/val/a.jpg", b"a")
    assert dataset_names(store) == ["photos"]


def test_a_run_that_was_reopened_keeps_its_dataset(store, capfd):
    """Before data is freed, each run is listed: a bundle that says that a run has ended may be older than the run."""
    run = put_run(store, "zebra", "wild@1")
    RunListing(run).write_bundle()
    store.delete(run.key("final.json"))
    assert main(["data", "delete", "wild@1", "--bucket", store.uri]) == 65
    assert "unfinished runs need it" in capfd.readouterr().err


def test_a_lock_over_the_limit_is_neither_read_nor_written(store, folder, monkeypatch):
    """A lock that is too large ends a command with exit code 65; no push leaves one that could not be read again."""
    size_bytes = len(store.read("datasets/wild/versions/0003.lock.json"))
    (folder / "labels/train/002.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    monkeypatch.setattr(lockfile, "LOCK_BYTES", size_bytes)
    assert read_version(store, "wild").number == 3
    with pytest.raises(DataError, match="has 23 files, too many for one lock"):
        plan_push(store, folder, "wild").send()
    monkeypatch.setattr(lockfile, "LOCK_BYTES", size_bytes - 1)
    with pytest.raises(OversizedObjectError, match=r"lock\.json: is too large to be read") as caught:
        read_version(store, "wild")
    assert caught.value.exit_code == 65
