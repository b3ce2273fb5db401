"""The dataset of a run: the newest version for a new run, its own version for a resumed one."""

import fcntl
import logging
import os
import shutil
from contextlib import ExitStack, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import yaml

from job.cli.app import main
from job.datasets import prepare as prepare_module
from job.datasets import upload
from job.datasets.check import set_aside
from job.datasets.lockfile import dataset_digest, read_version
from job.datasets.prepare import prepare_data, pull_dataset
from job.datasets.push import plan_push
from job.datasets.subset import take_subset
from job.errors import DataError, MachineError, RunConflictError, StoreError, TransientStoreError
from job.goodput import PhaseTimer
from job.runs.request import TrainRequest
from job.session import demo
from job.storage.checksums import file_version, sha256_of
from job.storage.local import FolderStore
from tests.support.counting_store import CountingStore
from tests.support.faulty_store import FaultyStore
from tests.support.old_locks import first_lock
from tests.support.tiny_dataset import make_tiny_dataset

IMAGE, LABEL = "images/train/001.jpg", "labels/train/001.txt"


@pytest.fixture
def folder(tmp_path):
    """A sound dataset."""
    (tmp_path / "bucket").mkdir(exist_ok=True)
    return make_tiny_dataset(tmp_path / "wild")


@pytest.fixture
def store(tmp_path):
    """An empty bucket."""
    return FolderStore.create(str(tmp_path / "bucket"))


@pytest.fixture
def prepare(store, tmp_path):
    """Prepare the dataset as a session does."""

    def prepare(pinned=None, held=None, store=store, **options):
        options = {"quarantine": False} | options
        with nullcontext(held) if held else ExitStack() as holding:
            return prepare_data(
                *(store, "wild", tmp_path / "work", tmp_path / "data.yaml", PhaseTimer()),
                held=holding,
                pinned=pinned,
                subject="run a",
                **options,
            )

    return prepare


def push(store, folder, **options):
    """Push the folder, replacing any other version."""
    return plan_push(store, folder, "wild", **options).send()


@pytest.mark.parametrize(
    "others",
    [["images/train/mine.jpg"], ["labels/train/004.txt"], ["images/val/mine.png", "labels/val/mine.txt"]],
    ids=["an image", "a label", "both, in val"],
)
def test_files_of_the_users_own_are_not_trained_on(store, folder, prepare, tmp_path, others):
    """Files in the folder of a pulled dataset that no version has are refused by name; other files do not matter."""
    (folder / "labels/train/004.txt").unlink()
    push(store, folder)
    first = prepare()
    pulled = tmp_path / "work/datasets/wild"
    for name in ("notes.txt", "images/train/.hidden.jpg", "images/unused/mine.jpg", "labels/train.cache"):
        (pulled / name).parent.mkdir(exist_ok=True)
        (pulled / name).write_bytes(b"mine")
    assert prepare() == first
    for name in others:
        source = folder / ("images/train/000.jpg" if name.startswith("images") else "labels/train/000.txt")
        shutil.copyfile(source, pulled / name)
    for pinned in (None, first.pinned):
        with pytest.raises(MachineError, match="not in the dataset, which training would read") as caught:
            prepare(pinned)
        assert caught.value.problems == tuple(others)
    for name in others:
        (pulled / name).unlink()
    assert prepare() == first


def test_training_is_left_two_gigabytes_beside_the_data(store, folder, prepare, monkeypatch):
    """A disk that has room for the data and little more is refused before anything is fetched."""
    push(store, folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_900_000_000))
    with pytest.raises(MachineError, match=r"the disk is too full, 2\.0 GB are needed and 1\.9 GB are free"):
        prepare()


def test_a_shard_has_room_beside_its_files(store, folder, prepare, monkeypatch):
    """Until the files of a shard are written, both take room on the disk: with a byte less, nothing is fetched."""
    monkeypatch.setattr(upload, "LEAST_LABELS", 4)
    push(store, folder)
    shard_bytes = sum(stored.size_bytes for stored in store.list("datasets/wild/shards/"))
    needed = sum(stored.size_bytes for stored in read_version(store, "wild").files.values()) + shard_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=prepare_module.SPARE_BYTES + needed - 1))
    with pytest.raises(MachineError, match="the disk is too full"):
        prepare()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=prepare_module.SPARE_BYTES + needed))
    prepare()


def test_the_data_file_is_fetched_first_and_then_the_shards(store, folder, prepare, monkeypatch):
    """Files are checked by the data file, and labels come out of a shard while images arrive."""
    monkeypatch.setattr(upload, "LEAST_LABELS", 4)
    push(store, folder)
    asked, get_many = [], store.get_many

    def noted(objects, on_done):
        asked.extend(stored.key.split("/")[2] for stored, _ in objects)
        get_many(objects, on_done)

    monkeypatch.setattr(store, "get_many", noted)
    prepare()
    assert asked == ["data.yaml", "shards", *["images"] * 12]


def test_prepared_pixels_give_way_to_data_that_are_pulled(store, folder, prepare, tmp_path, monkeypatch):
    """Pixels that earlier trainings prepared are deleted where the data would not fit beside them."""
    push(store, folder)
    pixels = tmp_path / "work" / "pixels" / "64-abc" / "00" / f"{'0' * 64}-64x64"
    pixels.parent.mkdir(parents=True)
    pixels.touch()
    os.truncate(pixels, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_500_000_000 - 10**9 * pixels.exists()))
    prepare()
    assert not pixels.exists()


def test_images_have_the_digests_of_their_files_under_the_paths_that_ultralytics_reads(store, folder, prepare):
    """Prepared pixels are looked up by the content of each image of every split."""
    push(store, folder)
    data = prepare()
    pulled = os.path.realpath("work/datasets/wild")
    expected = {
        f"{pulled}/images/{split}/{number:03}.jpg": sha256_of(folder / f"images/{split}/{number:03}.jpg")
        for split, num_images in (("train", 8), ("val", 4))
        for number in range(num_images)
    }
    assert (data.pixels.path.parts[-2:], data.pixels.digests) == (("work", "pixels"), expected)


def labels_read(data):
    """Return the rows that Ultralytics reads for training."""
    from ultralytics.data.dataset import YOLODataset  # noqa: PLC0415 -- imports torch
    from ultralytics.data.utils import check_det_dataset  # noqa: PLC0415 -- imports torch

    read = check_det_dataset(data.yaml, autodownload=False)
    return [row for label in YOLODataset(img_path=read["train"], data=read, imgsz=64).labels for row in label["cls"]]


def warnings_of(caplog):
    """Return the messages of warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_unfinished_run_keeps_its_version(store, folder, prepare, tmp_path):
    """After a push of other content a run gets the version that it was started on, and a new run the new one."""
    push(store, folder)
    first = prepare()
    old = (folder / LABEL).read_text()
    (folder / LABEL).write_text("1 0.5 0.5 0.2 0.2\n")
    push(store, folder)
    for pinned, text, digest in ((first.pinned, old, first.digest), (None, "1 0.5 0.5 0.2 0.2\n", None)) * 2:
        again = prepare(pinned)
        assert (tmp_path / "work/datasets/wild" / LABEL).read_text() == text
        assert (again.digest == first.digest) == (digest is not None)
    assert again.val == first.val


@pytest.mark.parametrize("on_disk", [False, True])
def test_files_that_a_training_reads_do_not_change(store, folder, prepare, monkeypatch, on_disk):
    """While a training holds its dataset, which it has pulled or found on the disk, another of the same version starts
    beside it, and one whose files differ is refused; after its end the files change.
    """
    monkeypatch.setattr("job.datasets.prepare.READERS_S", 0)
    push(store, folder)
    if on_disk:
        prepare()
    with ExitStack() as held:
        first = prepare(held=held)
        pulled = first.yaml.parent / "work/datasets/wild" / LABEL
        old = pulled.read_text()
        with ExitStack() as beside:
            assert prepare(held=beside) == first
        (folder / LABEL).write_text("1 0.5 0.5 0.2 0.2\n")
        push(store, folder)
        for attempt in (prepare, lambda: pull_dataset(store, "wild", first.yaml.parent / "work")):
            with pytest.raises(MachineError, match="a training on this machine reads these files"):
                attempt()
        assert prepare(first.pinned, held=held) == first
        assert pulled.read_text() == old
    prepare()
    assert pulled.read_text() == "1 0.5 0.5 0.2 0.2\n"


def test_one_process_at_a_time_looks_into_a_dataset(store, folder, tmp_path, monkeypatch):
    """While files are pulled, the folder's lock is held by that process alone."""
    push(store, folder)
    locked, get_many = [], store.get_many

    def get_while_another_asks(*args):
        with (tmp_path / "work/datasets/.wild.lock").open("a") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(True)
        return get_many(*args)

    monkeypatch.setattr(store, "get_many", get_while_another_asks)
    pull_dataset(store, "wild", tmp_path / "work")
    assert locked == [True]


def test_a_refused_change_sets_nothing_aside(folder, tmp_path):
    """Files stay where they are if they may not change now."""

    def refuse():
        raise MachineError("a training reads these files")

    with pytest.raises(MachineError):
        set_aside(folder, [IMAGE, LABEL], tmp_path / "away", refuse)
    assert (folder / IMAGE).exists()
    assert (folder / LABEL).exists()


def test_broken_files_are_not_set_aside_under_a_training(store, folder, prepare, monkeypatch):
    """A training that sets files aside keeps them so: a new one that would pull them again is refused; one whose run
    has set aside the same files starts beside it, and so does another rank.
    """
    monkeypatch.setattr("job.datasets.prepare.READERS_S", 0)
    (folder / LABEL).write_text("no label")
    push(store, folder, force=True)
    with ExitStack() as held, ExitStack() as beside, ExitStack() as rank1:
        first = prepare(held=held, quarantine=True)
        assert first.set_aside == (IMAGE, LABEL)
        with pytest.raises(MachineError, match="a training on this machine reads these files"):
            prepare(quarantine=True)
        assert prepare(first.pinned, held=beside) == first
        assert prepare(first.pinned, held=rank1, pulled_already=True) == first
        assert not (first.yaml.parent / "work/datasets/wild" / LABEL).exists()


def test_a_version_that_is_gone_is_a_conflict(store, folder, prepare):
    """A run whose version is not there is refused with both digests."""
    push(store, folder)
    with pytest.raises(RunConflictError, match="was started on other data"):
        prepare({"digest": "0" * 64, "set_aside": []})


def test_an_old_run_resumes_without_copies_of_pictures(store, folder, prepare, tmp_path):
    """A run on data that had .npy files, locked or copied by hand, finds its digest, and these files are not pulled."""
    shutil.copytree(folder, tmp_path / "bucket/datasets/wild")
    (tmp_path / "bucket/datasets/wild/images/train/001.npy").write_bytes(b"stale")
    files = read_version(store, "wild").pinned
    pinned = {"digest": dataset_digest(files), "set_aside": []}
    for _ in ("copied by hand", "locked"):
        assert prepare(pinned).digest == pinned["digest"]
        assert list((tmp_path / "work").rglob("*.npy")) == []
        store.put("datasets/wild/dataset.lock.json", first_lock(files), overwrite=True)


def test_a_run_of_before_is_not_refused_by_a_new_rule(store, folder, prepare, caplog):
    """A rule newer than a run is a warning when it resumes, and stops new runs alone."""
    for label in (folder / "labels/val").iterdir():
        label.unlink()
    push(store, folder, force=True)
    with pytest.raises(DataError, match="pass --quarantine"):
        prepare()
    caplog.clear()
    prepare({"digest": read_version(store, "wild").digest, "set_aside": []})
    assert any("`val` has images, but no labels" in text for text in warnings_of(caplog))


def test_a_resumed_run_sets_the_same_files_aside(confined, store, folder, prepare):
    """Another machine sets the files aside that the run's record names, not those of its own check."""
    (folder / IMAGE).write_bytes(b"text")
    push(store, folder, force=True)
    first = prepare(quarantine=True)
    assert first.set_aside == (IMAGE, LABEL)
    num_rows = len(labels_read(first))
    again = prepare(first.pinned)
    assert (again.set_aside, len(labels_read(again))) == (first.set_aside, num_rows)
    other = {"digest": first.digest, "set_aside": [IMAGE, LABEL, "images/train/002.jpg", "labels/train/002.txt"]}
    fewer = prepare(other, quarantine=True)
    assert (len(fewer.set_aside), len(labels_read(fewer)) < num_rows) == (4, True)


def test_a_packed_label_that_was_set_aside_comes_back(store, folder, prepare, tmp_path, monkeypatch):
    """A pull after a quarantine writes the label that is missing out of its shard, and no other file."""
    monkeypatch.setattr(upload, "LEAST_LABELS", 4)
    (folder / LABEL).write_text("no label")
    push(store, folder, force=True)
    pulled = tmp_path / "work/datasets/wild"
    assert prepare(quarantine=True).set_aside == (IMAGE, LABEL)
    assert not (pulled / LABEL).exists()
    before = {path: file_version(path.stat()) for path in pulled.glob("*/*/*.*")}
    assert pull_dataset(store, "wild", tmp_path / "work").num_transferred == 2
    assert (pulled / LABEL).read_text() == "no label"
    assert (pulled / IMAGE).read_bytes() == (folder / IMAGE).read_bytes()
    assert {path: file_version(path.stat()) for path in before} == before
    assert prepare(quarantine=True).set_aside == (IMAGE, LABEL)


def test_lists_that_were_struck_are_pulled_again(store, folder, prepare, tmp_path):
    """A list of images that lost lines to the quarantine is not taken for one that the user changed."""
    lines = [f"./images/train/00{number}.jpg" for number in range(8)]
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    content = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"train": "train.txt"}))
    (folder / IMAGE).write_bytes(b"text")
    push(store, folder, force=True)
    for _ in range(2):
        prepare(quarantine=True)
        assert lines[1] not in (tmp_path / "work/datasets/wild/train.txt").read_text()
    assert not (tmp_path / "work/datasets/wild.edited").exists()


def test_a_dataset_of_the_users_own_is_not_overwritten(store, folder, tmp_path, capsys):
    """`data pull` and `data check` end before they change files of a folder that no pull made."""
    push(store, folder)
    shutil.copytree(folder, tmp_path / "here/datasets/wild")
    label = tmp_path / "here/datasets/wild" / LABEL
    label.write_text("0 0.5 0.5 0.25 0.25\n")
    for verb in ("pull", "check"):
        words = ["--bucket", str(tmp_path / "bucket"), "--workdir", str(tmp_path / "here")]
        assert main(["data", verb, "wild", *words]) == 78
        said = capsys.readouterr().err
        assert "has 1 file unlike those to be pulled, which no pull brought; move the folder away" in said
        assert f"  - {LABEL}" in said
    assert label.read_text() == "0 0.5 0.5 0.25 0.25\n"


def test_warnings_that_are_not_shown_are_counted(store, folder, prepare, caplog):
    """Of many warnings the first are shown, and how many more there are."""
    for split in ("train", "val"):
        for number in range(4):
            for text in ("0 0.5 0.5 0 0.1\n", "0 1.005 0.5 0.1 0.1\n", "0 0.5 0.5 0.1 0.1\n" * 2):
                with (folder / f"labels/{split}/00{number}.txt").open("a") as opened:
                    opened.write(text)
    content = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"path": "zoo", "test": "images/test"}))
    for number in (4, 5):
        (folder / f"labels/train/00{number}.txt").unlink()
    push(store, folder)
    caplog.clear()
    prepare()
    assert len(warnings_of(caplog)) == 6
    assert warnings_of(caplog)[-1] == "dataset wild: and 1 more of this kind; see `job data check wild`"


@pytest.mark.parametrize("pinned", [False, True])
def test_a_kept_disk_looks_up_no_file(store, folder, prepare, tmp_path, pinned):
    """On a machine that has a version, a start lists the locks of the dataset and reads none of its objects; once a
    file is gone from the disk, it is fetched again.
    """
    push(store, folder)
    first = prepare()
    counting = CountingStore.open(store.uri)
    start = partial(prepare, first.pinned if pinned else None, store=counting)
    assert start() == first
    assert set(counting.requests) == {("list", "datasets/wild/versions/"), ("list", "datasets/wild/dataset.lock.json")}
    image = tmp_path / "work/datasets/wild" / IMAGE
    image.unlink()
    assert start() == first
    assert image.read_bytes() == (folder / IMAGE).read_bytes()


def test_a_kept_dataset_is_not_checked_again(store, folder, prepare, monkeypatch):
    """A folder that is as it was is taken as it was found, and one that has changed is checked."""
    push(store, folder)
    first = prepare(imgsz=64)
    checked = []
    check = prepare_module.check_dataset
    monkeypatch.setattr(
        prepare_module, "check_dataset", lambda *words, **options: checked.append(words) or check(*words, **options)
    )
    assert prepare(imgsz=64) == first
    assert not checked
    assert first.shapes == dict.fromkeys(first.shapes, (64, 64))
    assert len(first.shapes) == 12
    for number, options in enumerate([{"imgsz": 128}, {"tiles": 32}, {"single_class": True}, {}], 1):
        prepare(**options)
        prepare(**options)
        assert len(checked) == number
    checked.clear()
    (folder / LABEL).write_text("0 0.5 0.5 0.1 0.1\n")
    push(store, folder)
    prepare()
    assert len(checked) == 1


def test_a_file_that_is_edited_during_the_pull_comes_back(store, folder, prepare, tmp_path, monkeypatch):
    """A file that was changed between its arrival and the check is not kept as one of the version."""
    push(store, folder)
    pulled, get_many = tmp_path / "work/datasets/wild" / LABEL, store.get_many

    def get_and_edit(*args):
        get_many(*args)
        pulled.write_text("1 0.5 0.5 0.2 0.2\n")

    with monkeypatch.context() as patched:
        patched.setattr(store, "get_many", get_and_edit)
        prepare()
    prepare()
    assert pulled.read_text() == (folder / LABEL).read_text()


def test_a_rank_that_has_verified_nothing_records_nothing(store, folder, prepare, tmp_path):
    """What was changed before another rank on this machine looked at the files is no part of the version afterwards."""
    push(store, folder)
    first, pulled = prepare(), tmp_path / "work/datasets/wild" / LABEL
    pulled.write_text("1 0.5 0.5 0.2 0.2\n")
    prepare(first.pinned, pulled_already=True)
    prepare(first.pinned)
    assert pulled.read_text() == (folder / LABEL).read_text()


def test_a_run_that_set_files_aside_does_so_where_a_sound_version_is_kept(store, folder, prepare, tmp_path):
    """What a run does not read by its record, it does not read either where another run found nothing to set aside."""
    push(store, folder)
    pinned = prepare().pinned
    again = prepare(pinned | {"set_aside": [IMAGE, LABEL]})
    assert again.set_aside == (IMAGE, LABEL)
    assert not (tmp_path / "work/datasets/wild" / IMAGE).exists()


def test_a_damaged_index_of_a_kept_folder_is_made_anew(store, folder, prepare, tmp_path):
    """A version that is pulled after a start with a damaged index removes what it has no more."""
    push(store, folder)
    prepare()
    os.truncate(tmp_path / "work/datasets/wild/.pulled", 0)
    prepare()
    for name in (IMAGE, LABEL):
        (folder / name).unlink()
    push(store, folder)
    prepare()
    assert not (tmp_path / "work/datasets/wild" / IMAGE).exists()


def test_a_link_in_a_kept_folder_is_refused(store, folder, prepare, tmp_path):
    """A file that was moved away and linked to is not taken for the one that was pulled."""
    push(store, folder)
    prepare()
    image = tmp_path / "work/datasets/wild" / IMAGE
    image.symlink_to(image.rename(tmp_path / "moved.jpg"))
    with pytest.raises(StoreError, match="that no folder can have"):
        prepare()


def test_a_new_run_says_what_bounds_its_recall_and_records_it(store, folder, prepare, caplog):
    """The start of a new run has sizes at its own image size, as its record does; a resumed one repeats nothing."""
    caplog.set_level(logging.INFO, logger="job")
    push(store, folder)
    first = prepare(imgsz=32)
    said = [message for message in caplog.messages if message.startswith("dataset wild: sizes: ")]
    assert len(said) == 1
    assert "px at 32 px" in said[0]
    statistics = first.pinned["statistics"]
    assert (statistics["imgsz"], statistics["side_px"]) == (32, 64)
    assert statistics["median_px"] == pytest.approx(statistics["median_in_files_px"] / 2, abs=0.1)
    caplog.clear()
    assert prepare(first.pinned, imgsz=32) == first
    assert [message for message in caplog.messages if "sizes" in message] == []


def test_jpegs_with_bytes_behind_them_stay_as_they_are(confined, store, folder, prepare, tmp_path):
    """JPEGs of cameras are read unchanged: neither compressed anew for training nor fetched again at each attempt."""
    for image in (folder / "images/train").iterdir():
        image.write_bytes(image.read_bytes() + bytes(64))
    push(store, folder)
    images = tmp_path / "work/datasets/wild/images/train"
    for _ in range(2):
        data = prepare()
        assert len(labels_read(data)) > 0
        assert all(
            (images / path.name).read_bytes() == path.read_bytes() for path in (folder / "images/train").iterdir()
        )


def test_one_class_takes_labels_of_many(store, folder, prepare):
    """With --single-cls, labels of classes that have no name are pushed and trained on."""
    content = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"names": ["animal"]}))
    push(store, folder, single_class=True)
    with pytest.raises(DataError, match="problems found"):
        prepare()
    assert prepare(single_class=True).class_names == ("animal",)


def push_words(folder, tmp_path, *words):
    """Push as a person does, and return the exit code."""
    return main(["data", "push", str(folder), "--dataset", "wild", "--bucket", str(tmp_path / "bucket"), *words])


def test_a_push_of_other_content_says_what_differs(folder, tmp_path, capsys):
    """The result on stdout has the version, its differences from the one before, and what was sent."""
    assert push_words(folder, tmp_path) == 0
    (folder / LABEL).write_text("1 0.5 0.5 0.2 0.2\n")
    capsys.readouterr()
    assert push_words(folder, tmp_path) == 0
    assert "dataset wild: version 2 (1 changed), 25 files, 1 of them sent now" in capsys.readouterr().out


def test_a_push_says_what_it_leaves_out(store, folder, tmp_path, capsys):
    """Files that no training reads are counted."""
    (folder / "images/train/001.npy").write_bytes(b"stale")
    assert push_words(folder, tmp_path) == 0
    assert "1 .npy files are left out" in capsys.readouterr().err


def test_the_check_knows_single_classes_and_links(folder, tmp_path, capsys):
    """`data check` takes the flags that a push takes."""
    (folder / "images/train").rename(tmp_path / "raw")
    (folder / "images/train").symlink_to(tmp_path / "raw")
    content = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(content | {"names": ["animal"]}))
    assert main(["data", "check", f"{folder}"]) == 65
    assert main(["data", "check", f"{folder}", "--single-cls", "--follow-links"]) == 0
    assert "8 images" in capsys.readouterr().out


def test_a_piece_has_a_label_where_the_dataset_has_one(folder, tmp_path):
    """A piece of a dataset that shows something in one image alone has that image, so that it can be trained on."""
    for label in sorted((folder / "labels/train").iterdir())[:-1]:
        label.write_text("")
    take_subset(folder, tmp_path / "piece", {"train": 2, "val": 2})
    labels = [label.read_text() for label in (tmp_path / "piece/labels/train").iterdir()]
    assert sorted(map(bool, labels)) == [False, True]


def test_a_demo_whose_push_was_cut_is_pushed_again(store, monkeypatch, tmp_path):
    """A demo begins with its dataset if a part of it alone is there, and does not push again what is whole."""
    monkeypatch.setattr(demo, "draw_demo_dataset", make_tiny_dataset)
    monkeypatch.setattr(demo, "train", lambda *_, **__: None)
    words = {"recipe": "base", "profile": "demo", "device": "cpu", "workers": "0", "checkpoint_every": "0"}
    request = TrainRequest.parse(words | {"workdir": str(tmp_path / "work")})
    faulty = FaultyStore(store, survives=9, error=TransientStoreError("bucket: gone"))
    with pytest.raises(TransientStoreError):
        demo.train_demo(faulty, request)
    for _ in range(2):
        demo.train_demo(store, request)
        assert len(read_version(store, demo.DATASET).files) == 25
