"""Model architectures from files: checks a description, so that it has known layers with plain numbers only.

Ultralytics evaluates parts of such a description (``nn/tasks.py``: 2101, 2162-2181) and builds any size it asks
for. Guarantees that a returned description has only names of the tables here and numbers, and that a model above a
stated size is refused before memory is taken for it.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch.nn.modules.module import register_module_forward_hook, register_module_module_registration_hook
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import parse_model, yaml_model_load
from ultralytics.utils.checks import check_yaml

from job.text import load_yaml

LAYERS = frozenset(
    {
        *("A2C2f", "AConv", "ADown", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2f", "C2fCIB", "C2fPSA", "C2PSA"),
        *("C3", "C3Ghost", "C3k2", "C3TR", "C3x", "CBFuse", "CBLinear", "Concat", "Conv", "ConvTranspose", "DWConv"),
        *("DWConvTranspose2d", "ELAN1", "Focus", "GhostBottleneck", "GhostConv", "HGBlock", "HGStem", "PSA", "RepC3"),
        *("RepNCSPELAN4", "ResNetLayer", "SCDown", "SPP", "SPPELAN", "SPPF", "nn.BatchNorm2d", "nn.Conv2d"),
        *("nn.ConvTranspose2d", "nn.Identity", "nn.MaxPool2d", "nn.Upsample", "nn.ZeroPad2d"),
    }
)
"""Layers of backbone and neck in Ultralytics' model files for detection."""

HEADS = frozenset({"Detect", "v10Detect"})

OTHER_TASKS = {
    **dict.fromkeys(("Segment", "Segment26", "YOLOESegment", "YOLOESegment26"), "segmentation"),
    "SemanticSegment": "semantic segmentation",
    **dict.fromkeys(("Pose", "Pose26"), "poses"),
    **dict.fromkeys(("OBB", "OBB26"), "rotated boxes"),
    "Classify": "classification",
    "Depth": "depth",
    **dict.fromkeys(("WorldDetect", "YOLOEDetect"), "an open vocabulary"),
    "RTDETRDecoder": "RT-DETR",
}
"""Heads of other tasks, which do not fit a detector's data and loss."""

Architecture = dict[str, Any]
"""A description of a model: ``backbone`` and ``head``, a row for each layer, and numbers such as ``nc``."""

WORDS = frozenset({"nc", "None", "nearest", "bilinear", "True", "False"})

ACTIVATION = re.compile(r"(?:torch\.)?nn\.(SiLU|ReLU|ReLU6|LeakyReLU|GELU|ELU|Hardswish|Mish)\((\d*\.?\d*)\)")

MAX_ROWS = 200
MAX_REPEATS = 100
MAX_NUMBER = 100_000
MAX_FACTOR = 8
MAX_MODULES = 20_000
MAX_ACTIVATIONS = 50_000_000
MAX_PARAMETERS = 500_000_000
"""Six times the largest model that Ultralytics publishes."""


class UnfitArchitectureError(Exception):
    """A description is not that of a detector that can be built; the message is the reason, as part of a sentence."""


def load_architecture(name: str) -> Architecture:
    """Read a model file of Ultralytics, or of the user in this folder; ``yolo11n.yaml`` is size ``n``.

    Raises `FileNotFoundError` if there is none, `UnfitArchitectureError` if it cannot be built.
    """
    if not re.fullmatch(r"[\w.-]+\.ya?ml", name):
        raise FileNotFoundError(name)
    found = check_yaml(name, hard=False) or check_yaml(_unified(name))
    load_yaml(Path(found).read_bytes())  # checked against the limits first
    return checked_architecture(yaml_model_load(name))


def checked_architecture(found: object) -> Architecture:
    """Return a description with known keys only; raises `UnfitArchitectureError` if it is of no detector."""
    if not isinstance(found, dict):
        raise UnfitArchitectureError("it does not say what layers it has")
    match found.get("head"):
        case [*_, (_, _, str(last), _)] if last in OTHER_TASKS:
            raise UnfitArchitectureError(f"it is made for {OTHER_TASKS[last]}, and not for detection")
        case [*_, (_, _, str(last), _)] if last not in HEADS:
            raise UnfitArchitectureError(f"it ends in {_shown(last)}, and not in a layer that detects")
    backbone, head = (_rows(found.get(part)) for part in ("backbone", "head"))
    if wrong := sorted({row[2] for row in [*backbone, *head[:-1]]} - LAYERS):
        raise UnfitArchitectureError(f"it has layers that are not known here, {', '.join(wrong)}")
    return {**_options(found), "backbone": backbone, "head": head}


def require_size(architecture: Architecture, max_parameters: int = MAX_PARAMETERS) -> None:
    """Raise `UnfitArchitectureError` if a model is too large, without memory for it, or cannot be built."""
    if _is_shipped(architecture):
        return
    num_channels, activation = architecture["channels"], Conv.default_act
    try:
        with torch.device("meta"), _limited():
            layers, _ = parse_model(deepcopy(architecture), ch=num_channels, verbose=False)
            num_parameters = sum(parameter.numel() for parameter in layers.parameters())
            if num_parameters <= max_parameters:
                _forward(layers, torch.empty(1, num_channels, 256, 256))  # as Ultralytics finds the strides
    except UnfitArchitectureError:
        raise
    except Exception as error:  # any error means that the layers do not fit
        raise UnfitArchitectureError("its layers do not fit each other") from error
    finally:
        Conv.default_act = activation  # parse_model replaces it when it fails
    if num_parameters > max_parameters:
        raise UnfitArchitectureError(f"it asks for {num_parameters / 1e6:,.0f} million parameters")


def _is_shipped(architecture: Architecture) -> bool:
    """Whether this is, size included, a model file of Ultralytics."""
    name = architecture.get("yaml_file", "none.yaml")
    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    found = next((path for known in (name, _unified(name)) for path in folder.rglob(known)), None)
    if found is None:
        return False
    shipped = checked_architecture(load_yaml(found.read_bytes()))
    sized = ("backbone", "head", "scales", "depth_multiple", "width_multiple", "reg_max", "activation", "channels")
    return all(shipped.get(part) == architecture.get(part) for part in sized)


def _unified(name: str) -> str:
    """Remove the letter of the size from a file name, as ``yaml_model_load`` does."""
    return re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)


def _forward(layers: Any, image: torch.Tensor) -> None:  # noqa: ANN401 -- a Sequential with numbers on its parts
    found: list[Any] = []
    for layer in layers:
        sources = [layer.f] if isinstance(layer.f, int) else layer.f
        inputs = [(found[-1] if found else image) if source == -1 else found[source] for source in sources]
        found.append(layer(inputs[0] if isinstance(layer.f, int) else inputs))


@contextmanager
def _limited() -> Iterator[None]:
    """Limit the number of modules while a model is built, and the size of its layers."""
    num_modules = 0

    def count(*_: object) -> None:
        nonlocal num_modules
        num_modules += 1
        if num_modules > MAX_MODULES:
            raise UnfitArchitectureError(f"it asks for more than {MAX_MODULES:,} modules")

    def look(_module: object, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.numel() > MAX_ACTIVATIONS:
            raise UnfitArchitectureError(f"a layer of it makes {output.numel() / 1e6:,.0f} million numbers of an image")

    hooks = register_module_module_registration_hook(count), register_module_forward_hook(look)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _rows(rows: object) -> list[list[Any]]:
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        raise UnfitArchitectureError(f"its backbone and head must be lists of at most {MAX_ROWS} layers")
    return [_row(row) for row in rows]


def _row(row: object) -> list[Any]:
    """Return a layer: indices of its inputs, repeats, class, arguments."""
    match row:
        case (sources, int(repeats), str(layer), arguments) if 0 < repeats <= MAX_REPEATS:
            indices = [sources] if isinstance(sources, int) else sources
            if isinstance(indices, list) and all(type(i) is int and abs(i) < MAX_ROWS for i in indices):
                renamed = "nn.Identity" if layer == "Silence" else layer  # YOLOv9's own name for it
                return [sources, repeats, renamed, _values(arguments)]
    raise UnfitArchitectureError(f"it has a layer that is none, {_shown(row)}")


def _values(arguments: object, depth: int = 0) -> list[Any]:
    if not isinstance(arguments, list | tuple) or len(arguments) > MAX_ROWS or depth > 2:  # noqa: PLR2004 -- CBLinear has lists in lists
        raise UnfitArchitectureError(f"it has arguments that are none, {_shown(arguments)}")
    return [
        _values(value, depth + 1)
        if isinstance(value, list | tuple)
        else _word(value)
        if isinstance(value, str)
        else _number(value)
        for value in arguments
    ]


def _word(value: str) -> str:
    if value not in WORDS:
        raise UnfitArchitectureError(f"it has the word {_shown(value)}, which is not known here")
    return value


def _number(value: object) -> float | None:
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise UnfitArchitectureError(f"it has {_shown(value)} in the place of a number")
    return value


def _options(found: Mapping[object, object]) -> Architecture:
    names = ("nc", "depth_multiple", "width_multiple", "reg_max", "end2end")
    options: Architecture = {name: _number(found[name]) for name in names if name in found}
    options["channels"] = _number(found.get("channels", found.get("ch", 3)))
    if (scales := found.get("scales")) is not None:
        if not isinstance(scales, dict) or not 0 < len(scales) <= MAX_ROWS:
            raise UnfitArchitectureError(f"its scales are none, {_shown(scales)}")
        options["scales"] = {_letters(name): _values(numbers) for name, numbers in scales.items()}
    if found.get("scale"):
        options["scale"] = _letters(found["scale"])
        if options["scale"] not in options.get("scales", {}):
            raise UnfitArchitectureError(f"it has no size {options['scale']}")
    if re.fullmatch(r"[\w.-]+\.ya?ml", name := Path(str(found.get("yaml_file"))).name):
        options["yaml_file"] = name
    if (activation := found.get("activation")) is not None:
        match = ACTIVATION.fullmatch(activation) if isinstance(activation, str) else None
        if match is None:
            raise UnfitArchitectureError(f"its activation is {_shown(activation)}, which is not known here")
        options["activation"] = f"torch.nn.{match[1]}({match[2]})"
    factors = [options.get(name, 1.0) for name in ("depth_multiple", "width_multiple")]
    factors += [number for numbers in options.get("scales", {}).values() for number in numbers[:2]]
    if any(not isinstance(factor, int | float) or not 0 < factor <= MAX_FACTOR for factor in factors):
        raise UnfitArchitectureError(f"its scales must be numbers from 0 to {MAX_FACTOR}")
    if not isinstance(options["channels"], int) or not 0 < options["channels"] <= MAX_ROWS:
        raise UnfitArchitectureError(f"it has {_shown(options['channels'])} channels")
    return options


def _letters(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"\w{1,8}", name):
        raise UnfitArchitectureError(f"it has {_shown(name)} for a size")
    return name


def _shown(value: object) -> str:
    return f"{value!r:.40}" if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
