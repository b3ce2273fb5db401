"""The context of an attempt: its work folder, on a disk that earlier attempts have used, and what is imported ahead."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from job.runs.records import Price
from job.session import context
from job.session.context import SessionContext
from job.session.preemption import PreemptionWatcher
from tests.support.cli_process import TIMEOUT_S

IN_FOLDER = """
import sys, threading
from pathlib import Path
from types import SimpleNamespace
from job.session.context import SessionContext
from job.session.preemption import PreemptionWatcher
request = SimpleNamespace(workdir=Path(sys.argv[1]), device="cpu")
with SessionContext(store=None, request=request, preemption=PreemptionWatcher()).in_folder("zebra"):
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join()
    assert "torch" in sys.modules
    assert "ultralytics" not in sys.modules
"""


def test_torch_is_imported_while_the_bucket_is_waited_for(tmp_path):
    """An attempt that has its folder imports torch, and nothing that has to be isolated, without being asked to."""
    subprocess.run([sys.executable, "-c", IN_FOLDER, tmp_path], check=True, timeout=TIMEOUT_S)


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
