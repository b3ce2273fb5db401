"""A state file is data: other files are refused, and no code in it runs."""

import contextlib
import pickle
from pathlib import Path

import pytest
import torch

from job.errors import CorruptObjectError
from job.recipes.recipe import load_recipe
from job.training.flat_tensors import PLACE, packed
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def read_state(confined):
    """The function that reads states, imported once Ultralytics is confined."""
    from job.training.state import read_state  # noqa: PLC0415 -- as the line above says

    return read_state


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
@pytest.mark.parametrize("place", ["progress", "model", "random"])
def test_a_state_that_would_run_code_is_refused_without_running_it(read_state, tmp_path, save, place):
    """A file with code in any part of it raises, and the code does not run."""
    ran, path = tmp_path / "ran", tmp_path / "state.pt"
    save({"schema": 1, "progress": {}, "model": {}, "random": {}, place: Malicious(ran)}, path)
    with pytest.raises(CorruptObjectError, match=r"state\.pt: is not a training state.*nothing in it was run"):
        read_state(path)
    assert not ran.exists()
    with contextlib.suppress(RuntimeError):
        torch.load(path, weights_only=False)  # which is how others load it
    assert ran.exists()


@pytest.mark.parametrize("data", [b"", b"not a state", pickle.dumps({"schema": 1}, protocol=2)])
def test_a_file_that_is_no_state_is_refused(read_state, tmp_path, data):
    """A file that is empty, something else, or lacks its parts raises one error that names it."""
    path = tmp_path / "state.pt"
    path.write_bytes(data)
    with pytest.raises(CorruptObjectError, match=r"state\.pt: is not a training state"):
        read_state(path)


@pytest.mark.parametrize("buffers", [{}, {"buffers": []}, {"buffers": [torch.zeros(1)]}, {"buffers": [7]}])
def test_a_state_whose_tensors_have_no_place_is_refused(read_state, tmp_path, buffers):
    """A packed file without buffers, or with other ones than its tensors are in, raises the same error."""
    path = tmp_path / "state.pt"
    torch.save({"schema": 2, "tree": {"progress": {}, "model": {PLACE: (0, 0, (2,), (1,))}}, **buffers}, path)
    with pytest.raises(CorruptObjectError, match=r"state\.pt: is not a training state"):
        read_state(path)


def test_a_state_of_an_older_version_is_read(training, read_state, tmp_path):
    """A file whose tensors were saved one by one has the state that a packed one has."""
    from job.training.state import TrainingProgress, capture, digest_state  # noqa: PLC0415 -- once Ultralytics is confined

    training.trainer.tloss = training.trainer.loss_items = {"box_loss": torch.zeros(1)}  # as after a step
    training.trainer.loss = torch.zeros(1)
    state, _ = capture(training.trainer, TrainingProgress(), in_background=False)
    torch.save({"schema": 1, **state}, tmp_path / "old.pt")
    torch.save({"schema": 2, **packed(state)}, tmp_path / "new.pt")
    old, new = read_state(tmp_path / "old.pt"), read_state(tmp_path / "new.pt")
    assert digest_state(old) == digest_state(new) == digest_state(state)
    assert old.keys() - {"schema"} == new.keys()
    assert old["random"]["python"] == new["random"]["python"]


@pytest.fixture
def training(confined, tmp_path):
    """A training that has not begun."""
    from job.training.loop import Training  # noqa: PLC0415 -- once Ultralytics is confined

    data = make_tiny_dataset(tmp_path / "tiny", num_train=4, num_val=2)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {data}\ntrain: images/train\nval: images/val\nnames: [animal, bird]\n")
    train = load_recipe("base").train | {"epochs": 2, "imgsz": 32, "batch": 4, "plots": False, "max_det": None}
    return Training(plan_tiny_training(tmp_path, yaml, train))


def test_a_state_that_reads_well_and_cannot_be_trained_on_is_refused(training):
    """A state with a NaN, of another model, with a missing part or of another optimizer is refused before the first
    step, as an error of the checkpoint and not of the recipe or the program; the saved state is accepted.
    """
    from job.training.state import TrainingProgress, capture, restore_state  # noqa: PLC0415 -- once Ultralytics is confined

    def changed(change):
        state, _ = capture(training.trainer, TrainingProgress(), in_background=False)
        change(state)
        return state

    training.trainer.tloss = training.trainer.loss_items = {"box_loss": torch.zeros(1)}  # as after a step
    training.trainer.loss = torch.zeros(1)
    assert restore_state(training.trainer, changed(lambda _state: None)) == TrainingProgress()
    name = next(iter(training.trainer.model.state_dict()))
    for change, why in (
        (lambda state: state["model"][name].fill_(float("nan")), f"{name} of the model is not a number"),
        (lambda state: state["ema"][name].fill_(float("inf")), f"{name} of the ema is not a number"),
        (lambda state: state["model"].pop(name), "its model is not the one that the run trains"),
        (lambda state: state["ema"].update({name: torch.zeros(1)}), "its ema is not the one that the run trains"),
        (lambda state: state.pop("stopper"), "does not fit the training, KeyError 'stopper'"),
        (lambda state: state["optimizer"].update(param_groups=[]), "does not fit the training, ValueError"),
    ):
        with pytest.raises(CorruptObjectError, match=rf"state\.pt: {why}"):
            restore_state(training.trainer, changed(change))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([3e38, 3e38], None),
        ([-3e38, -3e38, 1.0], None),
        ([], None),
        ([1.0, float("nan")], "weight of the model"),
        ([float("inf"), float("-inf")], "weight of the model"),
        ([float("-inf"), 3e38], "weight of the model"),
    ],
)
def test_numbers_that_overflow_in_a_sum_are_numbers(confined, values, found):
    """However large the values are, a tensor of them is refused for one that is no number, and only for that."""
    from job.training.state import not_a_number  # noqa: PLC0415 -- after Ultralytics was confined

    state = {"scaler": None, "model": {"weight": torch.tensor(values)}, "ema": {}, "gradients": {}}
    assert not_a_number(state) == found
