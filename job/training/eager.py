"""Eager training without torch's compiler, whose import takes a second and 115 MB at each start.

torch 2.10 imports it for marks that compiled code alone has, and torchvision for one operator that detection does not
use. Guarantees the same arithmetic, and that what asks for the compiler later gets it; that operator, and optimizers'
methods, are code to it like any other then.
"""

import inspect
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

COMPILER, FOR_ROI_ALIGN = "torch._dynamo", "torch._dynamo.utils"


def import_torchvision() -> None:
    """Import torchvision; where ``roi_align`` would compile itself (``ops/roi_align.py``: 7), it does not."""
    if "torchvision" in sys.modules or COMPILER in sys.modules:
        return
    stand_in: Any = types.ModuleType(FOR_ROI_ALIGN)
    stand_in.is_compile_supported = lambda _device: False
    sys.modules[FOR_ROI_ALIGN] = stand_in
    try:
        import torchvision  # noqa: F401, PLC0415 -- while the stand-in is there
    finally:
        del sys.modules[FOR_ROI_ALIGN]


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """Let optimizers from here on, and the choice of deterministic kernels in the block, do without the compiler."""
    for method in (Optimizer.add_param_group, Optimizer.load_state_dict, Optimizer.state_dict, Optimizer.zero_grad):
        plain: Any = inspect.unwrap(method)
        vars(plain)["__dynamo_disable"] = plain  # what is called outside of compiled code (``_compile.py``: 43)
    stock = torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms = _use_deterministic_kernels
    try:
        yield
    finally:
        torch.use_deterministic_algorithms = stock


def step_eagerly(optimizer: Optimizer) -> None:
    """Let an optimizer step without hooks, and without marks where compiled code ends (``optim/optimizer.py``: 61)."""
    plain = inspect.unwrap(type(optimizer).step)
    optimizer.step = types.MethodType(torch.no_grad()(plain), optimizer)  # type: ignore[method-assign]  # as schedulers


def _use_deterministic_kernels(mode: bool, *, warn_only: bool = False) -> None:  # noqa: FBT001 -- torch's own
    """Choose kernels as torch does (``__init__.py``: 1509), without a word to the compiler."""
    torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)  # noqa: SLF001 -- the rest of the stock function
