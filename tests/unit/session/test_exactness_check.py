"""The check of a machine's exactness: its verdict, and what it trains."""

import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from job.cli.app import main
from job.cloud.findings import Finding
from job.errors import PreemptionError
from job.recipes.recipe import load_recipe
from job.session import exactness_check
from job.session.exactness_check import Outcome, Trial
from tests.support.tiny_dataset import make_tiny_dataset


def state(weight=1.0, moment=0.5):
    """Return a small state after an optimizer step."""
    weights = {"conv.weight": torch.full((3,), weight)}
    return {
        "schema": 1,
        "model": weights,
        "ema": weights,
        "optimizer": {"state": {0: {"exp_avg": torch.full((3,), moment)}}},
        "progress": {"epoch": 0, "batch": 10, "last_step": 9, "rows": []},
        "best_fitness": None,
        "stopper": {},
    }


@pytest.mark.parametrize(
    ("resumed", "grade", "said"),
    [
        (state(), "ok", "killed after step 7: every bit equal"),
        (state(weight=1.0000001), "fail", "model: conv.weight differs, by up to 1.19e-07"),
        (state(moment=0.25), "fail", "optimizer: 0.exp_avg differs"),
    ],
)
def test_one_bit_decides_the_verdict(confined, tmp_path, resumed, grade, said):
    """States that are equal pass, and one bit of weights or moments fails with its name."""
    torch.save(state(), tmp_path / "straight")
    torch.save(resumed, tmp_path / "resumed")
    found = exactness_check._compare(tmp_path / "straight", tmp_path / "resumed", 20.0)
    assert (found.grade, said in found.found) == (grade, True), found


def test_states_without_an_optimizer_step_prove_nothing(confined, tmp_path):
    """Where a scaler has left out every step, equal states are no proof."""
    torch.save(state(moment=0.0), tmp_path / "state")
    found = exactness_check._compare(tmp_path / "state", tmp_path / "state", 20.0)
    assert (found.grade, "nothing is proved" in found.found) == ("fail", True)


@pytest.mark.parametrize("is_mixed", [True, False])
def test_random_weights_take_their_first_step_in_mixed_precision(is_mixed):
    """A loss scaler begins where gradients of float16 do not overflow; one that is off stays so."""
    scaler = torch.amp.GradScaler("cpu", enabled=is_mixed)
    exactness_check._scale_nothing(SimpleNamespace(trainer=SimpleNamespace(scaler=scaler)))
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight])
    loss = (weight.half() * 1000).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert optimizer.state
    assert scaler.is_enabled() is is_mixed


@pytest.mark.parametrize(
    ("outcome", "grade", "said"),
    [
        (Outcome(peak_bytes=10 << 30, total_bytes=22 << 30), "ok", "10.0 of 22.0 GiB at most"),
        (Outcome(peak_bytes=21 << 30, total_bytes=22 << 30), "warn", "may get other kernels; take a larger GPU"),
        (Outcome(peak_bytes=10 << 30, total_bytes=22 << 30, num_ooms=2), "warn", "4 times it was too short"),
    ],
)
def test_a_memory_that_is_nearly_full_is_a_warning(outcome, grade, said):
    """Memory that was short, or is nearly full, may give a resumed training other kernels."""
    (found,) = exactness_check._memory([outcome, Outcome(), outcome])
    assert (found.grade, said in found.found) == (grade, True), found


def test_a_cpu_has_no_memory_to_judge():
    """On a CPU nothing is said of a GPU's memory."""
    assert exactness_check._memory([Outcome(), Outcome(), Outcome()]) == []


def test_a_notice_ends_the_training_of_a_trial(tmp_path, monkeypatch):
    """The process of a trial does not outlive the check that waits for it."""
    killed = []

    class Training:
        def start(self):
            """Start nothing."""

        def join(self):
            raise PreemptionError("SIGTERM: asked to stop", "preempted")

        def kill(self):
            killed.append(self)

    monkeypatch.setattr(exactness_check, "get_context", lambda _how: SimpleNamespace(Process=lambda **_: Training()))
    with pytest.raises(PreemptionError):
        Trial(load_recipe("A", "demo"), "cpu", 0, tmp_path, tmp_path, tmp_path / "straight").run()
    assert len(killed) == 1


def test_a_check_is_interrupted_by_sigterm(tmp_path, monkeypatch):
    """SIGTERM ends the check as Ctrl-C does, and its folder is removed."""

    def terminated(_trial):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trial, "run", terminated)
    monkeypatch.setattr(exactness_check, "draw_demo_dataset", lambda *_, **__: None)
    with pytest.raises(PreemptionError, match="SIGTERM"):
        exactness_check.check_exactness(load_recipe("A", "demo"), tmp_path, "cpu", 0)
    assert list(tmp_path.glob("doctor-*")) == []


def test_deterministic_kernels_are_required(confined):
    """An operator without a deterministic kernel raises, where Ultralytics lets it warn."""
    from job.training.device import require_deterministic_kernels  # noqa: PLC0415 -- imports torch

    try:
        require_deterministic_kernels()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(mode=False)


@pytest.mark.parametrize(("grade", "code"), [("ok", 0), ("warn", 0), ("fail", 78)])
def test_the_command_adds_the_verdict_to_its_checks(tmp_path, monkeypatch, capsys, grade, code):
    """`job doctor --exact` takes recipe A at the demo's scale where there is no GPU, prints the findings as JSON too,
    and exits 78 if one fails.
    """
    asked = []

    def check(recipe, workdir, device, workers):
        asked.append((recipe.name, recipe.profile, workdir, device, workers))
        return [Finding("exact resume", grade, "found")]

    monkeypatch.setattr(exactness_check, "check_exactness", check)
    monkeypatch.setattr("job.session.doctor.DRIVER", tmp_path / "none")
    words = ["--json", "--device", "cpu", "--workers", "3", "--workdir", str(tmp_path)]
    assert main(["doctor", "--exact", *words]) == code
    assert asked == [("A", "demo", tmp_path, "cpu", 3)]
    printed = capsys.readouterr()
    assert ("exact resume", grade) in {(each["subject"], each["grade"]) for each in json.loads(printed.out)}
    assert ("exact resume: found" in printed.err) is (code == 78)
    main(["doctor", *words])
    assert len(asked) == 1


def test_an_unfit_machine_trains_nothing(tmp_path, monkeypatch, capsys):
    """Where a check fails already, no training is tried."""
    monkeypatch.setattr(exactness_check, "check_exactness", lambda *_: pytest.fail("was called"))
    monkeypatch.setattr("job.session.doctor.examine", lambda *_: [Finding("driver", "fail", "is old")])
    assert main(["doctor", "--exact", "--workdir", str(tmp_path)]) == 78


@pytest.mark.full
def test_a_kill_is_real_and_what_it_loses_is_found(confined, tmp_path):
    """Three processes train: straight, killed while gradients wait, and resumed with equal bits; resumed without those
    gradients a fourth ends with others.
    """
    from job.training.state import read_state  # noqa: PLC0415 -- imports torch

    data = make_tiny_dataset(tmp_path / "tiny", num_train=20, num_val=2)
    recipe = load_recipe("A", "demo")
    recipe = replace(recipe, train=recipe.train | {"imgsz": 64, "batch": 2})
    straight = Trial(recipe, "cpu", 0, data / "data.yaml", tmp_path / "work", tmp_path / "straight")
    killed = replace(straight, folder=tmp_path / "killed", is_killed=True)
    assert straight.run().error is None
    assert killed.run() == Outcome()
    assert not (killed.folder / exactness_check.OUTCOME).exists()
    kept = read_state(killed.folder / "state.pt")
    assert kept["gradients"]
    shutil.copytree(killed.folder, tmp_path / "lossy")
    torch.save(kept | {"gradients": {}}, tmp_path / "lossy" / "state.pt")
    grades = []
    for source in (killed.folder, tmp_path / "lossy"):
        resumed = replace(straight, folder=tmp_path / f"from-{source.name}", resumes_from=source)
        assert resumed.run().error is None
        grades.append(exactness_check._compare(straight.folder / "state.pt", resumed.folder / "state.pt", 1.0).grade)
    assert grades == ["ok", "fail"]


@pytest.mark.full
def test_an_error_of_a_trial_is_its_outcome(tmp_path):
    """A training that cannot begin says why in one line, and nothing of it is raised here."""
    recipe = load_recipe("A", "demo")
    trial = Trial(recipe, "no-device", 0, tmp_path / "data.yaml", tmp_path / "work", tmp_path / "trial")
    assert "no-device" in str(trial.run().error)


def test_a_recipe_that_trades_exactness_is_not_proved(tmp_path, monkeypatch, capsys):
    """Kernels that need not be deterministic are refused, rather than others proved in their place."""
    monkeypatch.setattr(exactness_check, "check_exactness", lambda *_: pytest.fail("was called"))
    (tmp_path / "mine.yaml").write_text("start: yolo11n.yaml\ntrain: {deterministic: false}\n")
    assert main(["doctor", "--exact", "--recipe", "mine.yaml", "--workdir", str(tmp_path)]) == 65
    assert "recipe mine: is not bit-exact, so nothing can be proved" in capsys.readouterr().err


def test_a_machine_and_a_project_are_not_checked_at_once(tmp_path, capsys):
    """With --exact, which is of this machine, --cloud is refused rather than one of them left out."""
    assert main(["doctor", "--exact", "--cloud", "--workdir", str(tmp_path)]) == 2
    assert "pass one of them" in capsys.readouterr().err
