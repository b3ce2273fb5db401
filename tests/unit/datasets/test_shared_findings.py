"""Findings of a scan that machines share by the bucket."""

import logging
from contextlib import ExitStack

import pytest

from job.datasets import scan
from job.datasets.prepare import prepare_data
from job.datasets.push import plan_push
from job.errors import StoreError
from job.goodput import PhaseTimer
from job.storage.local import FolderStore
from tests.support.faulty_store import FaultyStore
from tests.support.tiny_dataset import make_tiny_dataset


@pytest.fixture
def store(tmp_path):
    """A bucket with a dataset of 12 pictures."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    plan_push(store, make_tiny_dataset(tmp_path / "wild", num_train=8, num_val=4), "wild").send()
    return store


@pytest.fixture
def decoded(monkeypatch):
    """The pictures that were decoded, by path."""
    paths, check = [], scan.check_image

    def check_image(data, path, num_channels):
        paths.append(path)
        return check(data, path, num_channels)

    monkeypatch.setattr(scan, "check_image", check_image)
    return paths


@pytest.fixture
def prepare(tmp_path):
    """Prepare the dataset on a machine of a name, which knows nothing the first time."""

    def prepare(store, machine, *, share_findings=True):
        (tmp_path / machine).mkdir(exist_ok=True)
        with ExitStack() as held:
            return prepare_data(
                *(store, "wild", tmp_path / machine / "work", tmp_path / machine / "data.yaml", PhaseTimer()),
                held=held,
                quarantine=False,
                share_findings=share_findings,
            )

    return prepare


def shared(store):
    """Return the key of the findings in the bucket."""
    [stored] = store.list("scans/")
    return stored.key


def test_a_new_machine_decodes_nothing_again(store, prepare, decoded):
    """What the first machine decoded, no other one does, and both find the same."""
    first = prepare(store, "one")
    assert len(decoded) == 12
    second = prepare(store, "two")
    assert len(decoded) == 12
    assert (first.pinned, first.class_names) == (second.pinned, second.class_names)


@pytest.mark.parametrize("damage", [b"", b"mine", b"\x1f\x8b\x08\x00", "half"], ids=str)
def test_findings_that_cannot_be_read_cost_time_alone(store, prepare, decoded, caplog, damage):
    """Damaged findings are a warning, and every picture is decoded."""
    first = prepare(store, "one")
    whole = store.read(shared(store))
    store.put(shared(store), whole[: len(whole) // 2] if damage == "half" else damage, overwrite=True)
    with caplog.at_level(logging.WARNING):
        assert prepare(store, "two").pinned == first.pinned
    assert len(decoded) == 24
    assert "so that every file is decoded" in caplog.text


def test_other_bytes_are_decoded(store, prepare, decoded, tmp_path):
    """A version with one other picture has its findings apart, and shares none."""
    prepare(store, "one")
    picture = tmp_path / "wild/images/train/001.jpg"
    picture.write_bytes(picture.read_bytes() + b"\0")
    plan_push(store, tmp_path / "wild", "wild").send()
    decoded.clear()
    prepare(store, "one")
    assert decoded == ["images/train/001.jpg"]
    assert len(store.list("scans/")) == 2


def test_nothing_is_shared_unasked(store, prepare, decoded):
    """A rehearsal writes nothing, takes the findings of others, and a bucket that refuses them stops nothing."""
    prepare(store, "one", share_findings=False)
    assert store.list("scans/") == []
    refusing = FaultyStore(store, survives=0, error=StoreError("bucket: no permission"))
    prepare(refusing, "two")
    assert store.list("scans/") == []
    prepare(store, "three")
    decoded.clear()
    prepare(store, "four", share_findings=False)
    assert decoded == []
