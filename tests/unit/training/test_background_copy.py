"""Background copies of tensors: values of the moment of the snapshot, or an error."""

import gc
import signal
import threading
import weakref

import pytest
import torch

from job.errors import HardwareError, TrainingError
from job.training.background_copy import BackgroundCopy


class HeldTable(dict):
    """A table whose copy begins once the gate is open."""

    def __init__(self, *words, **entries):
        super().__init__(*words, **entries)
        self.gate, self.reader = threading.Event(), threading.current_thread()

    def __getitem__(self, name):
        assert threading.current_thread() is self.reader or self.gate.wait(30)
        return super().__getitem__(name)


@pytest.fixture
def table():
    """Tensors of several kinds, copied once the gate is open."""
    return HeldTable(
        rows=torch.arange(6.0).reshape(2, 3),
        turned=torch.rand(4, 6).t(),
        channels_last=torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        half=torch.rand(3).half(),
        number=torch.tensor(7),
        nothing=torch.empty(0, 4),
    )


def test_copies_have_values_types_and_strides_and_no_memory_in_common(table):
    """Each tensor is replaced by a copy with the same values and strides, in memory of its own."""
    originals = dict(table.items())
    expected = {name: tensor.clone() for name, tensor in originals.items()}
    copying = BackgroundCopy([(table, name) for name in table])
    copying.start()
    assert copying.is_running
    table.gate.set()
    copying.wait()
    for tensor in originals.values():
        tensor.zero_()
    for name, copied in table.items():
        assert torch.equal(copied, expected[name])
        assert (copied.dtype, copied.stride()) == (expected[name].dtype, originals[name].stride())


def test_what_is_not_named_is_not_copied(table):
    """Only the entries that were given are replaced."""
    rows, number = table["rows"], table["number"]
    copying = BackgroundCopy([(table, "rows")])
    copying.copy()
    assert table["rows"] is not rows
    assert table["number"] is number


@pytest.mark.parametrize("change", [torch.Tensor.zero_, lambda tensor: tensor.detach()[0].add_(1)])
def test_a_tensor_that_changes_before_it_is_copied_is_an_error(table, change):
    """An in-place change of a tensor before its copy, directly or through a view, makes each `wait` raise."""
    copying = BackgroundCopy([(table, name) for name in table])
    copying.start()
    change(table["rows"])
    table.gate.set()
    with pytest.raises(TrainingError, match="snapshot: rows changed while it was copied"):
        copying.wait()
    with pytest.raises(TrainingError):
        copying.wait()


def test_a_wait_that_was_interrupted_is_waited_for_again(table):
    """A notice that interrupts a wait does not make the copy pass for a complete one."""

    def interrupt(_number, _frame):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    copying = BackgroundCopy([(table, "rows")])
    copying.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedError):
            copying.wait()
        others = threading.Thread(target=copying.wait, daemon=True)
        others.start()
        others.join(0.2)
        assert others.is_alive()
    finally:
        signal.signal(signal.SIGALRM, before)
        table.gate.set()
    others.join(30)
    assert not others.is_alive()


@pytest.mark.parametrize("begin", [BackgroundCopy.copy, BackgroundCopy.start])
def test_what_was_copied_is_held_by_nothing(begin):
    """A snapshot that a newer one replaces gives its memory back at once, and waits for no collection of garbage."""
    table = HeldTable(rows=torch.rand(3))
    table.gate.set()
    copying, held = BackgroundCopy([(table, "rows")]), weakref.ref(table)
    gc.disable()
    try:
        begin(copying)
        copying.wait()
        del table
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_for_a_copy_is_no_defect(table, error):
    """A failed allocation is a `HardwareError` with advice, in the thread that waits."""

    class Full(dict):
        def __getitem__(self, name):
            if threading.current_thread() is not table.reader:
                raise error
            return super().__getitem__(name)

    copying = BackgroundCopy([(Full(table), "rows")])
    copying.start()
    with pytest.raises(HardwareError, match=r"snapshot: cannot be copied, .*; take a machine with more memory"):
        copying.wait()


def test_a_copy_whose_error_is_lost_is_none(table, monkeypatch):
    """`wait` raises if the thread ended before the last copy, even if the thread kept no error."""
    copying = BackgroundCopy([(table, "rows")])
    monkeypatch.setattr(copying, "_work", lambda: None)
    copying.start()
    with pytest.raises(TrainingError, match="snapshot: was not copied to its end"):
        copying.wait()


def test_nothing_to_copy_is_not_waited_for():
    """Before the first snapshot there is nothing to wait for."""
    BackgroundCopy().wait()
