"""Non-zero ranks before they train."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from job.runs.records import PinnedDataset
from job.session.callbacks import FollowerCallbacks
from job.session.follower import SharedPlan, follow


def test_ultralytics_is_isolated_before_a_plan_imports_it():
    """A plan of rank 0 imports Ultralytics where it is unpickled, which by then reads and writes our folder alone."""
    calls = []
    here = SimpleNamespace(isolate_training=lambda: calls.append("isolated"))
    group = SimpleNamespace(rank=1, broadcast=lambda _none: calls.append("plan"), failure_told=nullcontext)
    follow(SimpleNamespace(group=group, in_folder=lambda _owner: nullcontext(here)))
    assert calls == ["isolated", "plan"]


@pytest.mark.parametrize("files", [{}, {"state.pt": b"a state"}])
def test_it_trains_what_process_zero_sends(tmp_path, monkeypatch, files):
    """Plan, weights and state are those of rank 0, an extended run is reopened, and data, prepared pixels and folder
    are its own.
    """

    @dataclass(frozen=True)
    class Plan:
        data_yaml: str
        folder: Path
        weights: Path | None
        group: object
        pixels: str | None
        shapes: str

    class Training:
        def __init__(self, plan):
            calls.append(
                (plan.data_yaml, plan.pixels, plan.shapes, plan.folder, plan.weights.read_bytes(), plan.group is group)
            )

        def restore(self, folder, *, reopen):
            calls.append(({path.name: path.read_bytes() for path in folder.iterdir()}, reopen))

        def run(self, callbacks):
            calls.append(type(callbacks))

    calls = []
    dataset = PinnedDataset(name="wild", digest="d" * 64, set_aside=[])
    sent = iter(
        [SharedPlan(Plan("theirs", None, None, None, None, "none"), dataset, {"a.pt": b"weights"}), (files, True)]
    )
    group = SimpleNamespace(
        rank=1,
        subject="process 2 of 2",
        broadcast=lambda _none: next(sent),
        local_zero_first=nullcontext,
        failure_told=nullcontext,
    )
    here = SimpleNamespace(
        folder=tmp_path,
        isolate_training=lambda: None,
        prepare_data=lambda name, pinned, _subject: (
            SimpleNamespace(yaml=f"{name} here", pixels="pixels here", shapes="shapes here")
            if pinned is dataset
            else None
        ),
        preemption=SimpleNamespace(deferred=nullcontext),
        watchdog=SimpleNamespace(watching=lambda _subject: nullcontext()),
    )
    monkeypatch.setitem(sys.modules, "job.training.loop", SimpleNamespace(Training=Training))
    follow(SimpleNamespace(group=group, in_folder=lambda _owner: nullcontext(here)))
    assert calls == [
        ("wild here", "pixels here", "shapes here", tmp_path / "run", b"weights", True),
        *([(files, True)] if files else []),
        FollowerCallbacks,
    ]
