"""Snapshots copied while training continues: the state of their moment, to the last bit."""

import contextlib
import shutil
import threading
from pathlib import Path

import pytest
import torch

from job.errors import JobError
from job.recipes.recipe import load_recipe
from job.training.callbacks import TrainingCallbacks
from tests.support.tiny_training import plan_tiny_training

SMALL = {"epochs": 2, "imgsz": 32, "batch": 4, "nbs": 8, "warmup_epochs": 0, "plots": False, "max_det": None}
"""Six batches an epoch, two for each optimizer step."""


class EnoughError(JobError):
    """Ends a training."""


class HeldCallbacks(TrainingCallbacks):
    """Take a snapshot, and a copy of the same moment at once; the snapshot's is held up until training waits for it."""

    def __init__(self, training, gate, at):
        self.training, self.gate, self.at = training, gate, at
        self.expected = self.taken = self.steps_before_wait = None
        self.num_steps = 0

    def take(self, snapshot):
        from job.training.state import capture  # noqa: PLC0415 -- once Ultralytics is confined

        self.taken, self.num_steps = snapshot(), 0
        self.expected, _ = capture(self.training.trainer, self.taken.progress, in_background=False)

    def on_step(self, step, snapshot):
        self.num_steps += 1
        if (step.epoch, step.batch) == self.at:
            self.take(snapshot)
        elif self.taken is not None and self.num_steps == 3:
            raise EnoughError("enough")

    def on_epoch(self, row, snapshot):
        if row["epoch"] == self.at:
            self.take(snapshot)

    @contextlib.contextmanager
    def stalled(self):
        self.steps_before_wait = self.num_steps
        self.gate.set()
        yield


def flat(tree, path=""):
    """Return the leaves of a tree by their paths."""
    if isinstance(tree, dict):
        return {name: leaf for key, entry in tree.items() for name, leaf in flat(entry, f"{path}/{key}").items()}
    if isinstance(tree, list | tuple):
        return flat(dict(enumerate(tree)), path)
    return {path: tree}


def differences(one, other):
    """Return the paths at which two trees differ."""
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    return [
        path
        for path, leaf in one.items()
        if not (torch.equal(leaf, other[path]) if torch.is_tensor(leaf) else leaf == other[path])
    ]


@pytest.fixture
def gate(confined, monkeypatch):
    """An event for which each copy in the background waits."""
    from job.training.background_copy import BackgroundCopy  # noqa: PLC0415 -- once Ultralytics is confined

    opened, copy, trains = threading.Event(), BackgroundCopy.copy, threading.current_thread()

    def held(copying):
        if threading.current_thread() is not trains:
            assert opened.wait(60)
        copy(copying)

    monkeypatch.setattr(BackgroundCopy, "copy", held)
    yield opened
    opened.set()  # a copy for which nothing waited


@pytest.mark.parametrize(
    ("at", "num_steps"),
    [
        pytest.param((1, 1), 0, id="while gradients wait"),
        pytest.param((1, 2), 1, id="after an optimizer step"),
        pytest.param(1, 1, id="between epochs"),
        pytest.param(2, 0, id="at the end"),
    ],
)
def test_a_snapshot_is_that_of_its_moment_however_late_it_is_copied(gate, data, tmp_path, at, num_steps):
    """Training continues beside a held copy until the next optimizer step, or at the end until the best weights are
    loaded; the files have the state of the snapshot's moment.
    """
    from job.training.files import STATE  # noqa: PLC0415 -- once Ultralytics is confined
    from job.training.loop import Training  # noqa: PLC0415 -- once Ultralytics is confined
    from job.training.state import digest_live, digest_state, read_state  # noqa: PLC0415 -- once Ultralytics is confined

    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {data}\ntrain: images/train\nval: images/val\nnames: [animal, bird]\n")
    training = Training(plan_tiny_training(tmp_path, yaml, load_recipe("base").train | SMALL))
    callbacks = HeldCallbacks(training, gate, at)
    with contextlib.suppress(EnoughError):
        training.run(callbacks)
    assert callbacks.steps_before_wait == num_steps
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    expected, before = callbacks.expected, digest_state(callbacks.expected)
    assert STATE in [path.name for path in callbacks.taken.write(folder)]
    assert differences(read_state(folder / STATE), expected) == []
    changed = [group for group, digest in digest_live(training.trainer).items() if digest != before[group]]
    assert changed == (["ema"] if at == 2 else ["model", "ema", "optimizer"])


def test_a_snapshot_that_is_published_holds_no_tensor(confined, data, tmp_path):
    """`write` frees all tensors but the optimizer's moments; `publish` frees those, and writes the last.pt that stock
    Ultralytics resumes after each epoch but the last.
    """
    from job.training.loop import Training  # noqa: PLC0415 -- once Ultralytics is confined

    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {data}\ntrain: images/train\nval: images/val\nnames: [animal, bird]\n")
    training = Training(plan_tiny_training(tmp_path, yaml, load_recipe("base").train | SMALL))
    kept, shares, published = [], [], []

    class Callbacks(TrainingCallbacks):
        def on_epoch(self, row, snapshot):
            taken, folder = snapshot(), tmp_path / f"checkpoint-{row['epoch']}"
            folder.mkdir()
            taken.copying.wait()
            before, moments = num_bytes(taken.state), num_bytes(taken.state["optimizer"]["state"])
            assert set(taken.write(folder)) == set(folder.iterdir())
            kept.append((num_bytes(taken.state) - moments) / before)
            assert taken.metadata["digests"].keys() == {"model", "ema", "optimizer"}
            taken.publish(folder)
            shares.append(num_bytes(taken.state) / before)
            published.append((folder / "last.pt").exists())
            if published[-1]:  # a tensor is saved with all that lies beside it in memory: here the moments alone
                assert (folder / "last.pt").stat().st_size < 0.7 * before

    training.run(Callbacks())
    assert max(*kept, *shares) < 0.01
    assert published == [True, False]


def test_a_best_epoch_that_is_the_last_is_restored_once(confined, data, tmp_path):
    """best.pt is read if its bytes are not those of last.pt; else both are the same weights, as before the kill."""
    from job.training.loop import Training  # noqa: PLC0415 -- once Ultralytics is confined
    from job.training.weights import digest_file  # noqa: PLC0415 -- once Ultralytics is confined

    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {data}\ntrain: images/train\nval: images/val\nnames: [animal, bird]\n")
    training = Training(plan_tiny_training(tmp_path, yaml, load_recipe("base").train | SMALL))
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()

    class Callbacks(TrainingCallbacks):
        def on_step(self, step, snapshot):
            if step.batch == 1:
                snapshot().write(folders[0])

        def on_epoch(self, row, snapshot):  # noqa: ARG002 -- overrides
            snapshot().write(folders[1])
            raise EnoughError("all is written")

    with contextlib.suppress(EnoughError):
        training.run(Callbacks())
    assert training.best is training.last
    training.restore(folders[1])
    assert training.best is training.last
    shutil.copy(folders[0] / "last.pt", folders[1] / "best.pt")
    training.restore(folders[1])
    for weights, name in ((training.best, "best.pt"), (training.last, "last.pt")):
        written = tmp_path / name
        written.write_bytes(weights.to_bytes())
        assert digest_file(written) == digest_file(folders[1] / name)
    assert training.best is not training.last


@pytest.mark.parametrize("num_elements", [1, 1_000_000])
def test_a_disk_that_is_full_is_an_error_of_the_system(confined, num_elements):
    """The error of a disk that takes a few bytes, or many, no more is the system's own and not one of torch."""
    from job.training.weights import save  # noqa: PLC0415 -- once Ultralytics is confined

    with pytest.raises(OSError, match="No space left on device"):
        save({"weights": torch.zeros(num_elements)}, Path("/dev/full"))


def num_bytes(tree):
    """Return the bytes of the tensors in a tree."""
    return sum(leaf.nbytes for leaf in flat(tree).values() if torch.is_tensor(leaf))
