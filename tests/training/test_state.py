"""A state file is data: what is no state is refused, and nothing in it is run."""

import contextlib
import pickle
from pathlib import Path

import pytest
import torch

from job.errors import CorruptObjectError


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
def test_what_is_no_state_is_refused(read_state, tmp_path, data):
    """A file that is empty, something else, or lacks its parts raises one error that names it."""
    path = tmp_path / "state.pt"
    path.write_bytes(data)
    with pytest.raises(CorruptObjectError, match=r"state\.pt: is not a training state"):
        read_state(path)
