"""Images that machines need not decode, since another one has recorded them in the bucket."""

import json
import logging
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
from PIL import Image

from job.datasets import decoded_images, image
from job.datasets.check import check_dataset
from job.datasets.decoded_images import DecodedImages
from job.datasets.prepare import prepare_data
from job.datasets.push import plan_push
from job.datasets.versions import plan_deletion
from job.errors import DataError, StoreError
from job.goodput import PhaseTimer
from tests.support.counting_store import CountingStore
from tests.support.faulty_store import FaultyStore
from tests.support.tiny_dataset import make_tiny_dataset

DIGEST, HASH = "0" * 64, "f" * 128
NUM_IMAGES = 12
PICTURE = "images/train/001.jpg"


@pytest.fixture
def store(tmp_path):
    """A bucket with a dataset of 12 images, of which nothing is recorded."""
    (tmp_path / "bucket").mkdir()
    store = CountingStore(tmp_path / "bucket")
    push(store, make_tiny_dataset(tmp_path / "wild", num_train=8, num_val=4))
    return store


def push(store, folder, *, force=False):
    """Push the folder, as a version of the job did that recorded nothing."""
    before = records(store)
    plan_push(store, folder, "wild", force=force).send()
    for key in set(records(store)) - set(before):
        store.delete(key)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images that are decoded."""
    names, decode = [], image.decode
    monkeypatch.setattr(image, "decode", lambda *args, **options: names.append(args[1]) or decode(*args, **options))
    return names


@pytest.fixture
def prepare(tmp_path):
    """Prepare the dataset on a machine of a name, which is empty the first time."""

    def prepare(store, machine, *, record_images=True, **options):
        (tmp_path / machine).mkdir(exist_ok=True)
        with ExitStack() as held:
            data = prepare_data(
                *(store, "wild", tmp_path / machine / "work", tmp_path / machine / "data.yaml", PhaseTimer()),
                held=held,
                quarantine=False,
                record_images=record_images,
                **options,
            )
        return data.pinned

    return prepare


def records(store):
    """Return the keys of the records."""
    return [stored.key for stored in store.list("scans/")]


def test_a_new_machine_decodes_nothing_again(store, prepare, decoded):
    """What one machine has decoded, no other one does, and both find the same."""
    first = prepare(store, "one")
    assert len(decoded) == NUM_IMAGES
    assert prepare(store, "two") == first
    assert len(decoded) == NUM_IMAGES


def test_of_another_version_the_new_images_alone_are_decoded(store, prepare, decoded, tmp_path):
    """A machine that has neither version decodes the one image that is new, and records it beside the others."""
    prepare(store, "one")
    picture = tmp_path / "wild" / PICTURE
    picture.write_bytes(picture.read_bytes() + b"\0")
    push(store, tmp_path / "wild")
    decoded.clear()
    prepare(store, "two")
    assert decoded == [PICTURE]
    assert len(records(store)) == 2
    prepare(store, "three")
    assert decoded == [PICTURE]


def test_a_kept_disk_asks_the_bucket_for_no_record(store, prepare):
    """What the disk's own cache knows is not looked up."""
    prepare(store, "one")
    store.requests.clear()
    prepare(store, "one")
    assert [key for _, key in store.requests if key.startswith("scans/")] == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"mine",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema": 1}',
        json.dumps({"schema": 2, "hashes": {DIGEST: HASH}}).encode(),
        json.dumps({"schema": 1, "hashes": {DIGEST: "\x1b[2J"}}).encode(),
        json.dumps({"schema": 1, "hashes": {DIGEST: {"problems": []}}}).encode(),
        json.dumps({"schema": 1, "hashes": [HASH]}).encode(),
        "half",
    ],
    ids=["empty", "text", "bytes", "deep", "a part", "newer", "no hash", "findings", "a list", "half"],
)
def test_a_record_that_cannot_be_read_costs_time_alone(store, prepare, decoded, caplog, content):
    """A damaged record, or one of a newer version, is left out with a note; what it recorded is decoded again."""
    first = prepare(store, "one")
    (key,) = records(store)
    whole = store.read(key)
    store.put(key, whole[: len(whole) // 2] if content == "half" else content, overwrite=True)
    with caplog.at_level(logging.WARNING):
        assert prepare(store, "two", record_images=False) == first
    assert len(decoded) == 2 * NUM_IMAGES
    assert f"{key}: is not used, so its images are decoded again" in caplog.text


@pytest.mark.parametrize(
    ("name", "make"),
    [
        (PICTURE, lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")),
        (PICTURE, lambda path: Image.fromarray(np.zeros((64, 64), np.uint8)).save(path, "GIF")),
        (PICTURE, lambda path: Image.fromarray(np.zeros((9, 64, 3), np.uint8)).save(path, "JPEG")),
        ("labels/train/001.txt", lambda path: path.write_text("7 0.5 0.5 0.1 0.1\n")),
    ],
    ids=["PostScript", "a GIF", "9 px", "a label"],
)
def test_a_record_vouches_for_pixels_alone(tmp_path, name, make):
    """A record that was made to let anything pass hides no format, size or label that training must not see."""
    folder = make_tiny_dataset(tmp_path / "wild")
    make(folder / name)
    honest = check_dataset(folder)
    assert {problem.path for problem in honest.problems} == {name}
    asked = []

    class Everything(dict):
        def get(self, digest):
            asked.append(digest)
            return HASH

    assert check_dataset(folder, known_hashes=Everything).problems == honest.problems
    assert len(asked) == NUM_IMAGES


def test_pixels_are_limited_whatever_a_record_says(monkeypatch):
    """An image that is too large is refused before its hash is taken from a record."""
    monkeypatch.setattr(image, "MAX_PIXELS", 64 * 64 - 1)
    data = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    assert [problem[1] for problem in image.check_image(data, "a.png", known_hash=HASH).problems] == ["large"]


def test_problems_are_found_on_each_machine(store, prepare, decoded, tmp_path):
    """A record has no problems: an image that cannot be decoded is decoded, and refused, on every machine."""
    picture = tmp_path / "wild" / PICTURE
    picture.write_bytes(picture.read_bytes()[:-200])
    push(store, tmp_path / "wild", force=True)
    for machine in ("one", "two"):
        decoded.clear()
        with pytest.raises(DataError, match="1 problem found"):
            prepare(store, machine)
        assert len(decoded) == (NUM_IMAGES if machine == "one" else 1)
    assert len(records(store)) == 1


def test_another_decoder_decodes_for_itself(store, prepare, decoded, monkeypatch):
    """What one version of the decoding libraries has read says nothing of another's, and both are recorded."""
    prepare(store, "one")
    monkeypatch.setattr(decoded_images, "DECODER", "pillow-0_opencv-0_ultralytics-0")
    prepare(store, "two")
    assert len(decoded) == 2 * NUM_IMAGES
    assert len(records(store)) == 2


def test_records_are_bounded(store, prepare, decoded, monkeypatch, caplog):
    """Records that are too large together are not read."""
    prepare(store, "one")
    monkeypatch.setattr(decoded_images, "MAX_BYTES", 100)
    prepare(store, "two", record_images=False)
    assert len(decoded) == 2 * NUM_IMAGES
    assert "has more than 100 bytes, and the rest is not read" in caplog.text


def test_nothing_is_recorded_unasked(store, prepare, decoded):
    """Work that writes no run records nothing, and takes what others have recorded."""
    prepare(store, "one", record_images=False)
    assert records(store) == []
    prepare(store, "two")
    decoded.clear()
    prepare(store, "three", record_images=False)
    assert decoded == []


def test_a_bucket_that_may_not_be_written_is_no_failure(store, prepare, caplog):
    """A refused record is a note."""
    prepare(FaultyStore(store, survives=0, error=StoreError("bucket: no permission")), "one")
    assert records(store) == []
    assert "was not stored, so other machines decode these images again: bucket: no permission" in caplog.text


def test_a_bucket_that_lists_no_records_is_no_failure(store, prepare, decoded, monkeypatch, caplog):
    """Where the records cannot be listed, every image is decoded."""
    listed = store.list

    def list_(prefix="", **options):
        if prefix.startswith("scans/"):
            raise StoreError("bucket: no permission")
        return listed(prefix, **options)

    monkeypatch.setattr(store, "list", list_)
    prepare(store, "one")
    assert len(decoded) == NUM_IMAGES
    assert "cannot be listed, so every image is decoded: bucket: no permission" in caplog.text


def test_machines_that_start_at_once_record_the_same(store):
    """Two that knew of no record write one object, and a third adds what is new to it."""
    one, two = DecodedImages(store, "wild"), DecodedImages(store, "wild")
    assert (one.hashes(), two.hashes()) == ({}, {})
    one.add({DIGEST: HASH})
    two.add({DIGEST: HASH})
    assert len(records(store)) == 1
    three = DecodedImages(store, "wild")
    assert three.hashes() == {DIGEST: HASH}
    three.add({DIGEST: "0" * 128, "1" * 64: HASH})
    assert DecodedImages(store, "wild").hashes() == {DIGEST: HASH, "1" * 64: HASH}


def test_a_push_records_what_it_has_decoded(store, prepare, decoded, tmp_path):
    """The first machine that trains decodes nothing that the push of the version has decoded."""
    picture = tmp_path / "wild" / PICTURE
    picture.write_bytes(picture.read_bytes() + b"\0")
    plan_push(store, tmp_path / "wild", "wild").send()
    decoded.clear()
    prepare(store, "one")
    assert decoded == []


@pytest.mark.parametrize(("reference", "num_left"), [("wild@1", 1), ("wild", 0)])
def test_records_go_with_the_dataset(store, prepare, tmp_path, reference, num_left):
    """They are deleted with the last version of a dataset."""
    prepare(store, "one")
    (tmp_path / "wild/labels/train/001.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    push(store, tmp_path / "wild")
    plan_deletion(store, reference).carry_out()
    assert len(records(store)) == num_left
