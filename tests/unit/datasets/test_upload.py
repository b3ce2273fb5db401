"""Which files of a push go into shards."""

import pytest

from job.datasets.lockfile import DatasetListing
from job.datasets.upload import Upload
from job.storage.checksums import crc32c, encode_crc32c
from job.storage.local import FolderStore
from job.storage.object_store import StoredObject
from job.storage.shards import PackedFile

PREFIX = "datasets/wild/"


@pytest.fixture
def store(tmp_path):
    """An empty bucket."""
    return FolderStore.create(str(tmp_path / "bucket"))


@pytest.fixture
def send(store, tmp_path):
    """Upload files, by path, beside an image for each label of some stems, which are in the bucket."""

    def send(content, stems):
        paths = {path: tmp_path / "wild" / path for path in content}
        for path, data in content.items():
            paths[path].parent.mkdir(parents=True, exist_ok=True)
            paths[path].write_bytes(data)
        files = {
            path: StoredObject(PREFIX + path, len(data), "", encode_crc32c(crc32c(data)))
            for path, data in content.items()
        }
        images = {path: StoredObject(PREFIX + path, 9, "", "AAAAAA==") for path in map("images/{}.jpg".format, stems)}
        there = {stored.key: stored for stored in images.values()}
        upload = Upload(DatasetListing(store, "wild", there), files | images, paths, {})
        upload.send()
        return upload

    return send


def some_labels(num_labels):
    """Return the bytes of as many labels, by path."""
    return {f"labels/{number:03}.txt": b"0 0.5 0.5 0.%03d 0.1\n" % number for number in range(num_labels)}


@pytest.mark.parametrize(("num_labels", "num_objects"), [(255, 255), (256, 1)])
def test_many_labels_are_packed_and_few_are_not(store, send, num_labels, num_objects):
    """From 256 labels on, one shard is sent in their place, of which each file has its range."""
    content = some_labels(num_labels)
    sent = send(content, [path[7:10] for path in content])
    stored = store.list(PREFIX)
    assert len(stored) == num_objects
    assert (sent.num_sent, sent.bytes_sent) == (num_labels, sum(map(len, content.values())))
    packed = {path: file for path, file in sent.files.items() if isinstance(file, PackedFile)}
    assert len(packed) == (num_labels if num_objects == 1 else 0)
    for path, file in packed.items():
        assert store.read(file.key)[file.offset : file.offset + file.size_bytes] == content[path]


def test_only_small_labels_are_packed(store, send):
    """Large labels, lists, class names, other texts and the data file lie under their own names."""
    labels = some_labels(256) | {"labels/long.txt": bytes(64_000)}
    others = {
        "labels/longer.txt": bytes(64_001),
        "labels/orphan.txt": b"0 0.5 0.5 0.1 0.1\n",
        "train.txt": b"images/000.jpg\n",
        "classes.txt": b"cow\n",
        "data.yaml": b"names: [cow]\n",
    }
    sent = send(labels | others, [path[7:-4] for path in labels | {"labels/longer.txt": b""}])
    assert {path for path, file in sent.files.items() if isinstance(file, PackedFile)} == labels.keys()
    assert {stored.key for stored in store.list(PREFIX) if "/shards/" not in stored.key} == {
        PREFIX + path for path in others
    }
