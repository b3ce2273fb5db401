"""Checks of a machine before anything is paid for."""

import importlib
import json

import pytest
import torch

from job.cli.app import main
from job.errors import CorruptObjectError, MachineError
from job.recipes.recipe import load_recipe
from job.session import doctor
from job.session.doctor import examine, require_fit
from job.storage.local import FolderStore

VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Jan 01 00:00:00 UTC 2026\n"


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A function that gives this machine a driver and a GPU, and the job access to it."""

    def give(driver="570.133.20", memory_mib=23034, num_reached=1):
        (tmp_path / "version").write_text(VERSION.format(driver))
        monkeypatch.setattr(doctor, "DRIVER", tmp_path / "version")
        devices = tmp_path / "dev"
        devices.mkdir(exist_ok=True)
        for name in ("nvidiactl", *(f"nvidia{number}" for number in range(num_reached))):
            (devices / name).touch()
        monkeypatch.setattr(doctor, "DEVICES", devices)
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho 'NVIDIA L4, {memory_mib}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    return give


def findings(tmp_path, recipe=None, store=None):
    """Examine, and return the findings by subject."""
    loaded = load_recipe(recipe, "full") if recipe else None
    return {finding.subject: finding for finding in examine(tmp_path, loaded, store, workers=8)}


def gpu_finding(tmp_path, amp):
    """Return what is found of the GPU for recipe base at a precision."""
    recipe = load_recipe("base", "full").with_arguments({"amp": amp})
    return next(found for found in examine(tmp_path, recipe, None, workers=8) if found.subject == "GPU")


@pytest.mark.parametrize(
    ("driver", "grade"), [("570.133.20", "ok"), ("525.60.13", "ok"), ("470.42.01", "fail"), ("unreadable", "warn")]
)
def test_a_driver_that_is_too_old_is_refused(tmp_path, gpu, driver, grade):
    """CUDA 12 runs from driver 525 on; an older one is unfit, and training stops before it begins."""
    gpu(driver)
    assert findings(tmp_path)["driver"].grade == grade
    if grade == "fail":
        with pytest.raises(MachineError, match=r"470\.42\.01 is older than 525") as raised:
            require_fit(tmp_path, "")
        assert raised.value.exit_code == 78


def test_the_driver_is_judged_by_the_cuda_of_torch(tmp_path, gpu, monkeypatch):
    """The required driver follows from torch itself, so that a torch of CUDA 13 is refused where one of 12 runs."""
    assert doctor._cuda() == torch.version.cuda
    gpu("570.133.20")
    monkeypatch.setattr(doctor, "_cuda", lambda: "13.0")
    assert findings(tmp_path)["driver"].grade == "fail"
    monkeypatch.setattr(doctor, "_cuda", lambda: "99.0")
    assert findings(tmp_path)["driver"].grade == "warn"


def test_a_gpu_that_the_job_was_not_given_is_not_passed_over(tmp_path, gpu):
    """A container without access to the machine's GPU is unfit, where else the CPU would train and a run be bound to
    it.
    """
    gpu(num_reached=0)
    with pytest.raises(MachineError, match="no GPU is given to the job") as raised:
        require_fit(tmp_path, "")
    assert raised.value.exit_code == 78
    gpu(num_reached=1)
    require_fit(tmp_path, "")


def test_what_trains_on_the_cpu_needs_no_driver(tmp_path, gpu):
    """With --device cpu neither an old driver nor a GPU out of reach is in the way."""
    gpu("390.0", num_reached=0)
    require_fit(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("recipe", "memory_mib", "grade", "said"),
    [
        ("base", 23034, "ok", "activations take 8 GiB"),
        ("base", 6000, "fail", "take a larger GPU"),
        ("A", 6000, "ok", "is unknown"),
        (None, 6000, "ok", "is unknown"),
    ],
)
def test_the_memory_of_the_gpu_is_judged_for_the_recipe(tmp_path, gpu, recipe, memory_mib, grade, said):
    """A GPU that cannot hold the activations is unfit; an unknown model is named as such."""
    gpu(memory_mib=memory_mib)
    found = findings(tmp_path, recipe)["GPU"]
    assert (found.grade, said in found.found) == (grade, True), found


def test_unknown_memory_is_no_obstacle(tmp_path, gpu):
    """A GPU that shares the memory of the processor has none of its own by nvidia-smi."""
    gpu(memory_mib="[N/A]")
    found = findings(tmp_path, "base")["GPU"]
    assert (found.grade, found.found) == ("ok", "NVIDIA L4, its memory is unknown")


@pytest.mark.parametrize(("amp", "said"), [("fp16", "take 8 GiB"), ("bf16", "take 8 GiB"), ("fp32", "take 16 GiB")])
def test_the_precision_decides_the_memory(tmp_path, gpu, amp, said):
    """In single precision a training takes twice as much, by either name of it."""
    gpu()
    assert said in gpu_finding(tmp_path, amp).found
    assert gpu_finding(tmp_path, amp=amp != "fp32").found == gpu_finding(tmp_path, amp).found


def test_the_bucket_is_tried_and_left_unchanged(tmp_path, monkeypatch):
    """An object is written, read and deleted, even if it cannot be read; a bucket that refuses is a failure."""

    def refuse(_store, key):
        raise CorruptObjectError(f"{key}: is damaged")

    store = FolderStore.create(str(tmp_path / "bucket"))
    assert findings(tmp_path, store=store)["bucket"].grade == "ok"
    assert store.list() == []
    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "read", refuse)
        assert findings(tmp_path, store=store)["bucket"].grade == "fail"
    assert store.list() == []
    (tmp_path / "bucket").rename(tmp_path / "moved")
    assert findings(tmp_path, store=store)["bucket"].grade == "fail"


def test_a_key_is_tried_and_never_shown(tmp_path, monkeypatch):
    """A key that the server does not take is a warning that does not hold the key."""
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-mine")

    def refuse():
        raise ValueError("401 for secret-of-mine")

    monkeypatch.setattr("job.tracking.client.require_taken", refuse)
    found = findings(tmp_path)["W&B"]
    assert (found.grade, "secret" in str(found)) == ("warn", False)


def test_the_command_prints_a_line_for_each_check(tmp_path, capsys, gpu):
    """`job doctor` prints what it found, as text and as JSON, and exits 78 if anything is unfit."""
    gpu()
    assert main(["doctor", "--recipe", "base", "--workdir", str(tmp_path)]) == 0
    assert "ok    driver" in capsys.readouterr().out
    gpu("390.0")
    assert main(["doctor", "--json", "--workdir", str(tmp_path)]) == 78
    printed = capsys.readouterr()
    assert {"subject": "torch", "grade": "ok", "found": "2.10.0", "remedy": ""} in json.loads(printed.out)
    assert "driver: 390.0 is older than 525" in printed.err


def test_a_gpu_that_does_not_answer_is_a_failure(tmp_path, gpu):
    """A machine with a driver whose GPU nvidia-smi does not list is unfit; where there is no nvidia-smi, that is not
    known.
    """
    gpu()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Unable to determine the device handle for GPU' >&2\nexit 255\n")
    assert findings(tmp_path)["GPU"].grade == "fail"
    program.unlink()
    assert findings(tmp_path)["GPU"].grade == "warn"


def test_albumentations_beside_is_refused_by_its_name(tmp_path, monkeypatch):
    """A package that Ultralytics would switch on by itself ends training before it begins, also on a CPU, and is
    named; a folder that happens to be called so does not.
    """
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    module = tmp_path / "site" / "albumentations"
    module.mkdir(parents=True)
    require_fit(tmp_path, "cpu")
    (module / "__init__.py").touch()
    about = tmp_path / "site" / "albumentationsx-2.0.8.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: albumentationsx\nVersion: 2.0.8\n")
    (about / "top_level.txt").write_text("albumentations\n")
    importlib.invalidate_caches()
    with pytest.raises(MachineError, match="pip uninstall albumentationsx") as raised:
        require_fit(tmp_path, "cpu")
    assert raised.value.exit_code == 78
    assert findings(tmp_path)["albumentations"].grade == "fail"
