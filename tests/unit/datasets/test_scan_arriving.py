"""Images and labels that are checked while the files of their dataset arrive."""

import threading
from contextlib import ExitStack

import pytest
import yaml

from job.datasets import image, scan
from job.datasets.check import check_dataset
from job.datasets.decoded_images import DecodedImages
from job.datasets.prepare import prepare_data
from job.datasets.push import plan_push
from job.errors import DataError, StoreError
from job.goodput import PhaseTimer
from job.storage.local import FolderStore
from tests.support.tiny_dataset import make_tiny_dataset

NUM_IMAGES = 12
HANG_S = 1200
"""Only what hangs takes that long."""


class Noted(list):
    """What was done with so many files."""

    def __init__(self, num_files):
        super().__init__()
        self.num_files, self.all_of_them = num_files, threading.Event()

    def append(self, entry):
        super().append(entry)
        if len(self) == self.num_files:
            self.all_of_them.set()


@pytest.fixture
def decoded(monkeypatch):
    """Names and channels of the images that are decoded."""
    decoded, decode = Noted(NUM_IMAGES), image.decode

    def noted(data, name, num_channels, **options):
        decoded.append((name, num_channels))
        return decode(data, name, num_channels, **options)

    monkeypatch.setattr(image, "decode", noted)
    return decoded


@pytest.fixture
def folder(tmp_path):
    """A dataset of 12 images."""
    return make_tiny_dataset(tmp_path / "wild")


def push(folder):
    """Push the dataset into a bucket in which no image is recorded; return that."""
    store = FolderStore.create(str(folder.with_name("bucket")))
    plan_push(store, folder, "wild", force=True).send()
    DecodedImages(store, "wild").forget()
    return store


def prepare(store, folder, *, single_class=False):
    """Prepare the dataset on a machine."""
    with ExitStack() as held:
        return prepare_data(
            *(store, "wild", folder.with_name("work"), folder.with_name("data.yaml"), PhaseTimer()),
            held=held,
            quarantine=False,
            single_class=single_class,
        )


def hold_last_file(store, monkeypatch, noted, error=None):
    """Let the files come one by one, and the last one, a label, only once all are noted, or an error in its place."""
    get_many = store.get_many

    def get_one_by_one(objects, on_done):
        *most, last = objects
        for one in most:
            get_many([one], on_done)
        assert noted.all_of_them.wait(HANG_S)
        if error:
            raise error
        get_many([last], on_done)

    monkeypatch.setattr(store, "get_many", get_one_by_one)


@pytest.mark.parametrize("num_channels", [3, 1])
def test_images_are_decoded_while_others_arrive(folder, monkeypatch, decoded, num_channels):
    """All images are decoded before the last file is there, as its data file says, and none is decoded again."""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump(data | {"channels": num_channels}))
    store = push(folder)
    decoded.clear()
    decoded.all_of_them.clear()
    hold_last_file(store, monkeypatch, decoded)
    prepare(store, folder)
    assert sorted(decoded) == [(name, num_channels) for name in sorted(names_of(folder))]


@pytest.mark.parametrize("single_class", [False, True])
def test_labels_are_read_while_others_arrive(folder, monkeypatch, single_class):
    """All labels but the last are read before that one is there, as the training takes them, and none is read again."""
    store, num_labels, check_label = push(folder), len(list(folder.glob("labels/*/*.txt"))), scan.check_label
    read = Noted(num_labels - 1)

    def noted(data, *rules, **options):
        read.append((data, options))
        return check_label(data, *rules, **options)

    monkeypatch.setattr(scan, "check_label", noted)
    hold_last_file(store, monkeypatch, read)
    prepare(store, folder, single_class=single_class)
    assert len(read) == num_labels > 1
    assert all(options == {"single_class": single_class} for _, options in read)


def names_of(folder):
    """Return the names of the images."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")]


def test_what_a_cut_pull_has_decoded_is_not_decoded_again(folder, monkeypatch, decoded):
    """The next start of the machine knows the images that were checked before a pull failed."""
    store = push(folder)
    decoded.clear()
    decoded.all_of_them.clear()
    with monkeypatch.context() as cut:
        hold_last_file(store, cut, decoded, StoreError("bucket: gone"))
        with pytest.raises(StoreError, match="bucket: gone"):
            prepare(store, folder)
    prepare(store, folder)
    assert len(decoded) == NUM_IMAGES


def test_problems_of_files_that_arrive_are_told_together(folder, monkeypatch, decoded):
    """The check that follows the pull tells what was found of images and labels, and each problem once."""
    (folder / "images/train/001.jpg").write_bytes(b"text")
    (folder / "labels/train/002.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    store = push(folder)
    decoded.clear()
    with pytest.raises(DataError, match="2 problems found") as caught:
        prepare(store, folder)
    assert caught.value.problems == tuple(map(str, check_dataset(folder).problems))
