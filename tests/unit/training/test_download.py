"""Published weights are verified before they enter the bucket."""

import hashlib
from pathlib import Path

import pytest

from job.errors import WeightsError
from job.runs.lineage import fetch_start
from job.runs.records import InitialWeights
from job.storage.open_store import open_store
from job.training import download

CONTENT = b"weights"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty bucket on a machine that downloads the same bytes from every address."""
    from ultralytics.utils import downloads  # noqa: PLC0415  # seconds that only running a test needs

    monkeypatch.setattr(downloads, "attempt_download_asset", lambda path: Path(path).write_bytes(CONTENT))
    (tmp_path / "bucket").mkdir()
    return open_store(str(tmp_path / "bucket"))


def fetch(store, name, folder):
    """Fetch published weights as a new run does."""
    return fetch_start(store, InitialWeights("pretrained", f"weights/{name}", None), folder)


def test_weights_that_are_not_the_published_ones_are_not_stored(store, tmp_path):
    """A file of another digest than the pinned one ends with 65, and neither the bucket nor the folder has it."""
    with pytest.raises(WeightsError, match="is not the published file") as refused:
        fetch(store, "yolo11s.pt", tmp_path / "start")
    assert refused.value.exit_code == 65
    assert list(store.list("weights/")) == []
    assert list((tmp_path / "start").iterdir()) == []


def test_weights_of_the_pinned_digest_are_stored(store, tmp_path, monkeypatch, caplog):
    """The file that was published is stored without a word."""
    monkeypatch.setitem(download.PINNED, "yolo11s.pt", hashlib.sha256(CONTENT).hexdigest())
    path, point = fetch(store, "yolo11s.pt", tmp_path / "start")
    assert path.read_bytes() == store.read("weights/yolo11s.pt") == CONTENT
    assert point.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert caplog.records == []


def test_weights_of_no_known_digest_are_stored_with_a_warning(store, tmp_path, caplog):
    """Files that are not listed are accepted, and their digest is logged."""
    fetch(store, "yolo11x.pt", tmp_path / "start")
    assert store.read("weights/yolo11x.pt") == CONTENT
    (warning,) = caplog.records
    assert "its digest is not known here" in warning.getMessage()
    assert hashlib.sha256(CONTENT).hexdigest() in warning.getMessage()


def test_weights_that_were_put_there_meanwhile_are_not_replaced(store, tmp_path, monkeypatch):
    """A file that appears in the bucket during the download is the one that the run takes."""
    from ultralytics.utils import downloads  # noqa: PLC0415  # seconds that only running a test needs

    def download_slowly(path):
        store.put("weights/yolo11x.pt", b"put by hand")
        Path(path).write_bytes(CONTENT)

    monkeypatch.setattr(downloads, "attempt_download_asset", download_slowly)
    path, point = fetch(store, "yolo11x.pt", tmp_path / "start")
    assert path.read_bytes() == store.read("weights/yolo11x.pt") == b"put by hand"
    assert point.sha256 == hashlib.sha256(b"put by hand").hexdigest()


@pytest.mark.parametrize("name", ["yolo11n.pt", "yolo11s.pt", "yolo11m.pt"])
def test_the_sizes_of_the_recipes_are_pinned(name):
    """The weights that the recipes and the guide start from have a digest."""
    assert len(bytes.fromhex(download.PINNED[name])) == 32
