"""`verify-resume`: passes with the complete state, and fails without any one source of it."""

import shutil
import sys
from types import SimpleNamespace

import pytest

from job.cli.app import main
from job.datasets.push import plan_push
from job.session.verify_resume import Piece, first_differences, train_straight, verify_resume
from job.storage.local import FolderStore
from tests.support.cli_process import ROOT, job
from tests.support.fake_wandb_server import running_wandb_server
from tests.support.lossy_checkpoint_cli import HELD_AT
from tests.support.tiny_dataset import make_tiny_dataset

WORDS = {
    "recipe": "base", "model": "tiny.yaml", "epochs": 4, "imgsz": 64, "batch": 4, "nbs": 16, "warmup-epochs": 0,
    "plots": "false", "workers": 0, "checkpoint-every": 0.001, "patience": 2, "mosaic": 1,
}  # fmt: skip
"""Six batches an epoch; four batches make an optimizer step, so gradients wait after three of four."""

NUM_STEPS = 18
"""After the third epoch patience runs out."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder with a bucket in which the piece was trained straight."""
    folder = tmp_path_factory.mktemp("straight")
    store = FolderStore.create(str(folder / "bucket"))
    plan_push(store, make_tiny_dataset(folder / "tiny", num_train=22, num_val=4), "tiny").send()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        train_straight(piece_in(folder, "nothing"))
    return folder


def piece_in(folder, forgotten):
    """Return the piece in a folder, trained by a job that forgets a source of state at each resumption."""
    words = [f"--{name}={value}" for name, value in {**WORDS, "workdir": folder / "work"}.items()]
    command = (sys.executable, "-m", "tests.support.lossy_checkpoint_cli", forgotten)
    return Piece(FolderStore.open(str(folder / "bucket")), tuple(words), folder, command)


@pytest.fixture(autouse=True)
def _find_the_packages(monkeypatch):
    """Let processes that the code starts find this code and the tests."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class AtTheSteps:
    """Chance that kills as soon as the steps are reached at which the forgetful job stays."""

    def __init__(self, _seed):
        self.parts = [2 * (6 * (epoch - 1) + batch + 0.5) / NUM_STEPS for epoch, batch in HELD_AT]

    def random(self):
        return self.parts.pop(0) % 1

    def uniform(self, least, _most):
        return least


@pytest.mark.parametrize(
    ("forgotten", "difference"),
    [
        pytest.param("nothing", None, marks=pytest.mark.full),
        pytest.param("weights", "the loss differs", marks=pytest.mark.full),
        pytest.param("moments", "model: ", marks=pytest.mark.full),
        ("gradients", "model: "),
        pytest.param("phase", "model: ", marks=pytest.mark.full),
        pytest.param("stopper", "progress.epoch: straight 3, killed 4", marks=pytest.mark.full),
        pytest.param("best", "best_fitness: straight 0.5, killed 0.3", marks=pytest.mark.full),
        pytest.param("losses", "results.csv: train/box_loss of epoch 1 differs", marks=pytest.mark.full),
        pytest.param("keys", "the images differ", marks=pytest.mark.full),
    ],
)
def test_each_source_of_state_counts(straight, tmp_path, monkeypatch, forgotten, difference):
    """With everything kept the verdict is equal; with any one source of state left out it names a difference."""
    monkeypatch.setattr("job.session.verify_resume.random", SimpleNamespace(Random=AtTheSteps))
    shutil.copytree(straight, tmp_path / "copy", ignore=shutil.ignore_patterns("work"))
    verdict = verify_resume(piece_in(tmp_path / "copy", forgotten), num_kills=2, seed=1)
    assert verdict.num_steps == NUM_STEPS
    assert [resumed.partition(".")[0] for resumed in verdict.resumed_at] == ["0000-000003", "0002-000002"]
    if difference is None:
        assert verdict.differences == ()
    else:
        assert difference in "\n".join(verdict.differences)


@pytest.mark.parametrize("recipe", ["base", *(pytest.param(name, marks=pytest.mark.full) for name in "CT")])
def test_the_command_prints_the_verdict(tmp_path, recipe):
    """`job verify-resume` kills a piece of the demo, prints PASS with digests, and leaves all else alone."""
    words = ("verify-resume", "--recipe", recipe, "--kills", "1", "--imgsz", "64", "--epochs", "1", "--batch", "4")
    settings = tmp_path / "settings"
    settings.mkdir()
    with running_wandb_server() as server:
        done = job(
            *words, "--workdir", tmp_path / "work", **server.env, JOB_NOTIFY=server.url, YOLO_CONFIG_DIR=str(settings)
        )
    assert done.returncode == 0, done.stderr
    assert list(settings.iterdir()) == []
    assert not server.asked.is_set()
    assert "PASS" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-4:-1]] == ["model", "ema", "optimizer"]


def test_a_training_that_fails_is_not_verified(tmp_path, capsys):
    """A training that fails by itself ends the verification with its message."""
    words = ["verify-resume", "--kills", "1", "--model", "no-such.yaml", "--workdir", str(tmp_path)]
    assert main(words) == 70
    assert "no-such.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["model", "ema", "optimizer"])
def test_the_last_bit_of_any_tensor_is_a_difference(group):
    """Two final states are equal if each tensor and the place of the end are, to the last bit; else it is named."""
    import torch  # noqa: PLC0415  # seconds that only running a test needs

    def state():
        weights = {"a": torch.ones(3), "b": torch.arange(4.0)}
        return {
            "model": dict(weights),
            "ema": dict(weights),
            "optimizer": {"state": {0: dict(weights)}},
            "progress": {"epoch": 3, "batch": 0, "last_step": 12, "rows": [{"epoch": 3, "time": 1.0, "loss": 0.5}]},
            "best_fitness": 0.5,
            "stopper": {"best_epoch": 2},
        }

    other = state()
    assert first_differences(state(), other) == []
    tensors = other["optimizer"]["state"][0] if group == "optimizer" else other[group]
    tensors["b"] = torch.nextafter(tensors["b"], torch.full((4,), torch.inf))
    (found,) = first_differences(state(), other)
    assert found.startswith(f"{group}: ")
    del tensors["b"]
    (found,) = first_differences(state(), other)
    assert found.endswith("b differs")
    for key in ("epoch", "batch", "last_step"):
        other = state()
        other["progress"][key] += 1
        assert [line.partition(":")[0] for line in first_differences(state(), other)] == [f"progress.{key}"]
    for name, value in {"best_fitness": 0.3, "stopper": {"best_epoch": 1}}.items():
        assert [line.partition(":")[0] for line in first_differences(state(), state() | {name: value})] == [name]
    for loss in (0.4, 0.6):
        other = state()
        other["progress"]["rows"][0] |= {"loss": loss, "time": 2.0}
        assert first_differences(state(), other) == ["results.csv: loss of epoch 3 differs"]
