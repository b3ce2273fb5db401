"""The work folder of an attempt, on a disk that earlier attempts have used."""

import os
import shutil
from types import SimpleNamespace

import pytest

from job.runs.records import Price
from job.session import context
from job.session.context import SessionContext
from job.session.preemption import PreemptionWatcher


@pytest.mark.parametrize(("free_bytes", "stays"), [(19_000_000_000, False), (21_000_000_000, True)])
def test_prepared_pixels_give_way_before_the_disk_is_judged(tmp_path, monkeypatch, free_bytes, stays):
    """Where less is free than a training leaves free, prepared pixels are deleted before a full disk is refused."""
    pixels = tmp_path / "pixels" / "64-abc" / "00" / f"{'0' * 64}-64x64"
    pixels.parent.mkdir(parents=True)
    pixels.touch()
    os.truncate(pixels, 10**9)
    judged = []
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=free_bytes))
    monkeypatch.setattr(context, "require_fit", lambda *_: judged.append(pixels.exists()))
    monkeypatch.setattr(context, "price_here", Price)
    request = SimpleNamespace(workdir=tmp_path, device="cpu")
    with SessionContext(store=None, request=request, preemption=PreemptionWatcher()).in_folder("zebra"):
        assert judged == [stays]
