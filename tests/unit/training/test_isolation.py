"""Isolation of Ultralytics: the changes to the process and to the library, made by one call."""

import os
import subprocess
import sys

import pytest

from job.errors import MachineError
from job.training import isolation
from job.training.isolation import OF_TORCHRUN, hide_torchrun, isolate_ultralytics, threads_divided

PATCHED = """
import os, random, sys
from pathlib import Path
from ultralytics.data import augment, utils
from ultralytics.utils import nms
before = utils._replace_image, nms.non_max_suppression
import job.training.loop
assert augment.random is random
assert (utils._replace_image, nms.non_max_suppression) == before
from job.training.isolation import isolate_ultralytics
for _ in range(2):
    isolate_ultralytics(Path(sys.argv[1]))
assert augment.random is job.training.rng.PYTHON
assert augment.np.random is job.training.rng.NUMPY
assert utils._replace_image is not before[0]
assert nms.non_max_suppression.func is before[1]
"""


def test_ultralytics_is_patched_by_one_call_and_by_no_import(tmp_path):
    """Importing the training changes nothing; `isolate_ultralytics` patches Ultralytics, once however often called."""
    subprocess.run([sys.executable, "-c", PATCHED, tmp_path / "ultralytics"], check=True)


COMPILES = """
import sys
from pathlib import Path
from job.training.isolation import isolate_ultralytics
isolate_ultralytics(Path(sys.argv[1]))
from torch._inductor import config
from torch._inductor.runtime.cache_dir_utils import cache_dir
found = config.compile_threads, cache_dir()
assert found == (1, str(Path(sys.argv[1]).resolve() / "compiled")), found
"""


def test_torch_compiles_in_the_folder_and_without_processes(tmp_path, monkeypatch):
    """What torch compiles lies in the folder of `isolate_ultralytics`, and it starts no process that a notice ends."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # torch sets it where it compiles
    subprocess.run([sys.executable, "-c", COMPILES, tmp_path / "ultralytics"], check=True)


IMPORTS_AHEAD = """
import sys, threading
from importlib.abc import MetaPathFinder
from job.training.isolation import IMPORT_TURN_S, import_torch_ahead

class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            during.append(sys.getswitchinterval())

before, during = sys.getswitchinterval(), []
sys.meta_path.insert(0, Finder())
import_torch_ahead()
for thread in set(threading.enumerate()) - {threading.current_thread()}:
    thread.join()
assert sys.getswitchinterval() == before
assert [round(turn_s, 6) for turn_s in during] == [IMPORT_TURN_S] != [before]
"""


def test_an_import_ahead_gives_the_interpreter_away_more_often():
    """While torch is imported, threads that fetch get the interpreter in short turns, and as before afterwards."""
    subprocess.run([sys.executable, "-c", IMPORTS_AHEAD], check=True)


def test_the_variables_of_torchrun_are_hidden(monkeypatch):
    """None of them is left for Ultralytics to read."""
    for name in OF_TORCHRUN:
        monkeypatch.setenv(name, "1")
    hide_torchrun()
    assert not set(OF_TORCHRUN) & set(os.environ)


LOADED_AHEAD = """
import ctypes, importlib, os, sys, threading
from importlib.machinery import ExtensionFileLoader
from job.training.isolation import _TorchLibrary, import_torch_ahead

create_module, loaded = ExtensionFileLoader.create_module, []

def create_noted(loader, spec):
    if spec.name == "torch._C":
        loaded.append(bool(ctypes.CDLL(None).dlopen(os.fsencode(spec.origin), os.RTLD_NOW | os.RTLD_NOLOAD)))
    return create_module(loader, spec)

ExtensionFileLoader.create_module = create_noted
import_torch_ahead()
import_torch_ahead()
for thread in set(threading.enumerate()) - {threading.current_thread()}:
    thread.join()
assert loaded == [True]
assert sum(isinstance(finder, _TorchLibrary) for finder in sys.meta_path) == 1
importlib.invalidate_caches()
import torch
torch.zeros(2).add_(1)
"""


def test_an_import_ahead_finds_the_library_of_torch_loaded():
    """The library is loaded before the import, which would hold the interpreter's lock, begins to."""
    subprocess.run([sys.executable, "-c", LOADED_AHEAD], check=True)


@pytest.mark.parametrize(("given", "inside"), [(None, "4"), ("3", "3")])
def test_processes_share_the_cores_unless_the_user_says_otherwise(monkeypatch, given, inside):
    """Each process gets its share of the cores as threads, and the variable is afterwards what it was before."""
    monkeypatch.setattr(isolation, "num_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    with threads_divided(2):
        assert os.environ["OMP_NUM_THREADS"] == inside
    assert os.environ.get("OMP_NUM_THREADS") == given


def test_libraries_that_are_missing_are_named(tmp_path, monkeypatch):
    """Where only the light level is installed, a training is refused with what to install."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setitem(sys.modules, "ultralytics.utils", None)
    with pytest.raises(MachineError, match=r"training: the package ultralytics\.utils is missing; run `make env`"):
        isolate_ultralytics(tmp_path)
