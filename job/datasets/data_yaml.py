"""Data file of a dataset, ``data.yaml``: classes, splits and options.

Guarantees that a file built to fill the memory is refused before it does, and that nothing in it is run.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from job.datasets.files import real_name
from job.text import MAX_BYTES, TOO_LARGE, UnreadableYamlError, counted, load_yaml

DATA_YAML = "data.yaml"

MAX_CLASSES = 50_000

MAX_CHANNELS = 512
"""More than any camera has; the first layer grows with the number."""

NUM_SHOWN = 80
"""Number of characters of a value in a message."""

PASSED_ON = ("channels", "kpt_shape")
"""Options that Ultralytics gets: they change how it reads a dataset."""


@dataclass(slots=True)
class DataYaml:
    """Content of a data file."""

    name: str = DATA_YAML
    """Name of the file."""
    content: Mapping[object, object] = field(default_factory=dict)
    """Empty if the file cannot be used."""
    names: tuple[str, ...] = ()
    """Class names in the order of their numbers; empty if they cannot be read."""
    num_channels: int = 3
    """Channels of an image in training."""
    num_keypoint_columns: int = 0
    """Columns that Ultralytics cuts off the rows of a pose dataset."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Those of `PASSED_ON` that are given."""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def is_data_yaml(name: str) -> bool:
    """Whether a file of this name can be the data file of a dataset."""
    return "/" not in name and name.endswith((".yaml", ".yml"))


def read_data_yaml(folder: Path, names: Collection[str]) -> DataYaml:
    """Read the data file among the names of a folder, itself without links: ``data.yaml``, or the only YAML file."""
    others = [name for name in names if is_data_yaml(name)]
    read = DataYaml(others[0] if len(others) == 1 else DATA_YAML)
    if read.name not in names:
        message = f"there is none, but {' and '.join(others[:NUM_SHOWN])}; rename the right one to {DATA_YAML}"
        read.problems.append(message if others else "there is none; a dataset has images/, labels/ and data.yaml")
    elif real_name(folder, path := folder / read.name) and path.is_file():  # `list_files` reports a pipe or a link
        if read.name != DATA_YAML:
            read.warnings.append(f"is read in place of {DATA_YAML}")
        _read_file(read, path)
    if read.content:
        _read_names(read)
        _read_options(read)
    return read


def quote(value: object) -> str:
    """Quote a value of a data file in a message, shortened: its text can be built to fill the memory."""
    return repr(value)[:NUM_SHOWN] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _read_file(read: DataYaml, path: Path) -> None:
    try:
        if path.stat().st_size > MAX_BYTES:  # before all of it is read
            read.problems.append(f"cannot be read, {TOO_LARGE}; leave out what is no part of a dataset")
            return
        content = load_yaml(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        read.problems.append(f"is not UTF-8 text, in line {line}; save it as UTF-8")
    except (OSError, UnreadableYamlError) as error:
        read.problems.append(f"cannot be read, {error}; correct its syntax")
    else:
        if isinstance(content, dict) and content:
            read.content = content
        else:
            read.problems.append(f"is {quote(content)}; write keys and values, such as `train: images/train`")


def _read_names(read: DataYaml) -> None:
    found, num_classes = read.content.get("names"), _num_classes(read)
    if found is None and num_classes:
        read.warnings.append(f"has no `names`; the classes are called class_0 to class_{num_classes - 1}")
        read.names = tuple(f"class_{number}" for number in range(num_classes))
        return
    if not found or not isinstance(found, list | dict):
        what = "has no `names`" if not found else f"`names` is {quote(found)}"
        read.problems.append(f"{what}; list the classes in the order of their numbers")
        return
    if len(found) > MAX_CLASSES:
        read.problems.append(f"has {len(found):,} `names`, and at most {MAX_CLASSES:,} are read; leave some out")
        return
    try:
        names = dict(enumerate(found)) if isinstance(found, list) else {int(key): found[key] for key in found}
    except (TypeError, ValueError, OverflowError):
        read.problems.append("`names` has keys that are no numbers; number the classes from 0")
        return
    missing = next((number for number in range(len(found)) if number not in names), None)
    if missing is not None:
        classes = counted(len(found), "class", "classes")
        read.problems.append(f"`names` has {classes}, but no number {missing}; number them from 0, no gap")
        return
    if wrong := [number for number, name in names.items() if name is None or isinstance(name, list | dict)]:
        read.problems.append(f"`names` has no text for the classes {wrong[:NUM_SHOWN]}; name each class")
        return
    if "nc" in read.content and num_classes != len(names):
        nc = quote(read.content["nc"])
        read.problems.append(
            f"`nc` is {nc}, but there are {len(names)} `names`; correct one of them, or leave `nc` out"
        )
    read.names = tuple(str(names[number]) for number in range(len(names)))


def _num_classes(read: DataYaml) -> int | None:
    """Return ``nc`` if it is a valid number of classes, as Ultralytics' ``check_det_dataset`` reads it."""
    nc = read.content.get("nc")
    try:
        number = float(nc) if isinstance(nc, str | int | float) else 0.0
    except (ValueError, OverflowError):
        return None
    return int(number) if 0 < number <= MAX_CLASSES and number == int(number) else None


def _read_options(read: DataYaml) -> None:
    shape, channels = read.content.get("kpt_shape", [0, 0]), read.content.get("channels", 3)
    if not isinstance(shape, list) or [type(number) for number in shape] != [int, int] or min(shape) < 0:
        read.problems.append(f"`kpt_shape` is {quote(shape)}; write two numbers, such as [17, 3], or leave it out")
    elif not isinstance(channels, int) or not 1 <= channels <= MAX_CHANNELS:
        read.problems.append(f"`channels` is {quote(channels)}; write a number up to {MAX_CHANNELS}, or leave it out")
    else:
        read.num_channels, read.num_keypoint_columns = channels, math.prod(shape)
        read.options = {key: read.content[key] for key in PASSED_ON if key in read.content}
