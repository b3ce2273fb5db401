"""The check of the training device, with stubbed answers of torch."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from job.errors import MachineError, RecipeError
from job.goodput import Phase, PhaseTimer
from job.training.callbacks import TrainingCallbacks
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

BUILT_FOR = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.fixture
def device(confined, tmp_path, monkeypatch):
    """The module, on a machine with NVIDIA's driver."""
    from job.training import device  # noqa: PLC0415 -- torch is heavy

    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Tue Jan 01\n")
    monkeypatch.setattr(device, "DRIVER", driver)
    return device


@pytest.fixture
def gpus(monkeypatch):
    """A function that gives torch GPUs."""

    def give(number=1, capability=(8, 9), built_for=BUILT_FOR):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "NVIDIA L4")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built_for))

    return give


@pytest.mark.parametrize("named", ["", "0", "1"])
def test_a_machine_whose_cuda_does_not_start_is_unfit(device, gpus, named):
    """With a driver and without CUDA the processor would train for days: another machine is asked for."""
    gpus(number=0)
    with pytest.raises(MachineError, match="CUDA does not start") as raised:
        device.require_device(named)
    assert raised.value.exit_code == 78
    device.require_device("cpu")


def test_a_machine_without_a_driver_trains_on_its_processor(device, gpus, tmp_path, monkeypatch):
    """Where there is no GPU at all nothing is in the way."""
    gpus(number=0)
    monkeypatch.setattr(device, "DRIVER", tmp_path / "none")
    device.require_device("")


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((8, 9), BUILT_FOR, True),
        ((7, 5), BUILT_FOR, True),
        ((6, 1), BUILT_FOR, False),
        ((11, 0), BUILT_FOR, False),
        ((12, 1), BUILT_FOR, True),
        ((8, 0), ["sm_86"], False),
        ((13, 0), ["sm_90", "compute_120"], True),
        ((9, 0), ["sm_80", "compute_120"], False),
        ((9, 0), ["sm_90a"], True),
    ],
)
def test_a_gpu_that_torch_has_no_kernels_for_is_unfit(device, gpus, capability, built_for, runs):
    """Machine code runs on later GPUs of its generation, PTX on all later ones, and nothing else does."""
    gpus(capability=capability, built_for=built_for)
    if runs:
        device.require_device("0")
        return
    with pytest.raises(MachineError, match="torch has no kernels for NVIDIA L4") as raised:
        device.require_device("0")
    assert raised.value.exit_code == 78


def test_unused_gpus_are_reported(device, gpus, caplog):
    """Without --device on a machine with several GPUs a warning says how to use all; with it there is none."""
    gpus(number=4)
    with caplog.at_level(logging.WARNING):
        device.require_device("0")
        assert caplog.messages == []
        device.require_device("")
    assert "4 GPUs are here and the first one trains; pass --device 0,1,2,3" in caplog.messages[0]


@pytest.mark.parametrize(("resumed", "error"), [(False, RecipeError), (True, MachineError)])
def test_a_run_that_exists_goes_elsewhere_for_its_precision(device, tmp_path, resumed, error):
    """Where bfloat16 is missing a new run is refused as a recipe, and one that exists asks for another machine."""
    from job.recipes.recipe import load_recipe  # noqa: PLC0415 -- as below
    from job.training.loop import Training  # noqa: PLC0415 -- after Ultralytics was confined

    train = load_recipe("base").train | {"amp": "bf16"}
    data = make_tiny_dataset(tmp_path / "tiny", num_train=4, num_val=2)
    plan = replace(plan_tiny_training(tmp_path, data / "data.yaml", train), resumed=resumed)
    with pytest.raises(error, match="amp bf16: cpu does not calculate in bfloat16"):
        Training(plan)


def test_short_memory_is_counted_on_a_gpu_alone(device, monkeypatch):
    """The count is torch's own, of allocations that failed, also where a library did without."""
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _device: {"num_ooms": 3})
    assert device.num_ooms(torch.device("cuda", 0)) == 3
    assert device.num_ooms(torch.device("cpu")) == 0


class Gpu:
    """A GPU's clock and its queue of work, with events as CUDA has them; the CPU is ahead of it unless it waits."""

    def __init__(self):
        self.now = self.busy_until = 0.0

    def works(self, seconds):
        """Give it work."""
        self.busy_until = max(self.now, self.busy_until) + seconds

    def synchronize(self, _device=None):
        self.now = max(self.now, self.busy_until)

    def event(self, *, enable_timing):
        assert enable_timing
        gpu = self

        class Event:
            def record(self, stream):
                assert stream == "its stream"
                self.at = max(gpu.now, gpu.busy_until)

            def synchronize(self):
                gpu.now = max(gpu.now, self.at)

            def elapsed_time(self, end):
                return 1000 * (end.at - self.at)

        return Event()


class Timed(TrainingCallbacks):
    """Callbacks that only count seconds."""

    def __init__(self, timer):
        self.enter, self.rebook = timer.enter, timer.rebook


def seconds_of_steps(gpu, load_s, where):
    """Return the seconds of three steps by phase, each with a batch that takes a while to load."""
    from job.training.loop import _timed  # noqa: PLC0415 -- after Ultralytics was confined

    def load():
        for number in range(3):
            gpu.now += load_s
            yield number

    timer = PhaseTimer(lambda: gpu.now)
    for _ in _timed(load(), Timed(timer), torch.device(where)):
        gpu.works(1.0)  # forward
        gpu.synchronize()  # the loss reads something
        gpu.works(2.0)  # backward and optimizer
        if where == "cpu":
            gpu.synchronize()
    return timer.seconds()


@pytest.mark.parametrize(("load_s", "data_wait_s"), [(1.0, 1.0), (5.0, 5.0 + 3.0 + 3.0)])
def test_no_wait_is_one_for_data_while_the_gpu_trains(device, monkeypatch, load_s, data_wait_s):
    """While a GPU is busy with the step before, the seconds in which the CPU waits for the next batch are useful; the
    last step of an epoch is waited for.
    """
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: "its stream")
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr(device, "time", SimpleNamespace(monotonic=lambda: gpu.now))
    found = seconds_of_steps(gpu, load_s, "cuda")
    assert (found[Phase.DATA_WAIT], found[Phase.USEFUL]) == (data_wait_s, 9.0)


def test_a_cpu_waits_for_data_alone(device, monkeypatch):
    """Without a GPU every wait for a batch is one for data, and nothing is asked of CUDA."""
    for name in ("Event", "current_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: pytest.fail("asks CUDA"))
    found = seconds_of_steps(Gpu(), 1.0, "cpu")
    assert (found[Phase.DATA_WAIT], found[Phase.USEFUL]) == (3.0, 9.0)


def test_a_compiler_that_fails_is_named(device, monkeypatch):
    """Whatever torch raises where it compiles for a GPU is a reason in one line, without its hints."""

    def fail(_function):
        raise RuntimeError("Failed to find C compiler.\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace")

    monkeypatch.setattr(torch, "compile", fail)
    assert device.why_not_compiled(torch.device("cuda", 0)) == "Failed to find C compiler."


@pytest.fixture
def compiling(device, tmp_path, monkeypatch):
    """A function that plans a compiled training, on a machine that says why it cannot compile."""
    from ultralytics.engine import trainer as theirs  # noqa: PLC0415 -- after Ultralytics was confined

    from job.recipes.recipe import load_recipe  # noqa: PLC0415 -- only this fixture needs it
    from job.training import trainer  # noqa: PLC0415 -- after Ultralytics was confined

    def make(why=None, train=(), **changes):
        monkeypatch.setattr(trainer, "why_not_compiled", lambda _device: why)
        monkeypatch.setattr(theirs, "attempt_compile", lambda model, **_: model)
        data = make_tiny_dataset(tmp_path / "tiny", num_train=4, num_val=2)
        asked = load_recipe("base").train | {"compile": True} | dict(train)
        return replace(plan_tiny_training(tmp_path, data / "data.yaml", asked), **changes)

    return make


@pytest.mark.parametrize("why", ["there is no compiler", None])
@pytest.mark.parametrize(("resumed", "error"), [(False, RecipeError), (True, MachineError)])
def test_a_compiled_run_is_not_trained_uncompiled(compiling, why, resumed, error):
    """Where torch cannot compile, or Ultralytics left the model as it is, a new run is refused as a recipe, and one
    that exists asks for another machine.
    """
    from job.training.loop import Training  # noqa: PLC0415 -- after Ultralytics was confined

    plan = compiling(why, resumed=resumed)
    with pytest.raises(error, match=f"compile: is not possible here, {why or 'Ultralytics did not compile'}"):
        Training(plan)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"group": SimpleNamespace(size=2)}, "compile: trains on one device, found 2 processes"),
        ({"train": {"multi_scale": 0.5}}, "compile: is for one size of images"),
    ],
)
def test_a_compiled_run_is_of_one_process_and_one_size(compiling, changes, problem):
    """With several processes, or with images of many sizes, a compiled training is refused, rather than tried."""
    from job.training.loop import Training  # noqa: PLC0415 -- after Ultralytics was confined

    plan = compiling(**changes)
    with pytest.raises(RecipeError, match=problem):
        Training(plan)
