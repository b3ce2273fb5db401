"""Locations of the stores under test."""

from collections.abc import Iterator

import pytest

from job.storage.object_store import Store
from job.storage.open_store import open_store
from tests.support.fault_proxy import Proxy, running_proxy


@pytest.fixture(params=["folder", "gcs"])
def location(request, tmp_path, monkeypatch) -> str:
    """Make an empty place for a store, of each kind."""
    if request.param == "folder":
        (tmp_path / "bucket").mkdir()
        return str(tmp_path / "bucket")
    running = request.getfixturevalue("emulator")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
    return f"{running.make_bucket()}/below/this"


@pytest.fixture
def store(location) -> Store:
    """Open an empty store, of each kind."""
    return open_store(location)


@pytest.fixture
def proxy(emulator, monkeypatch) -> Iterator[Proxy]:
    """Stand between Google's client and the emulator."""
    with running_proxy(emulator.url) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def proxied(emulator, proxy) -> Store:
    """Open an empty bucket through the proxy."""
    store = open_store(emulator.make_bucket())
    proxy.requests.clear()
    return store
