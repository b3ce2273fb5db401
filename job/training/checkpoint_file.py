"""Files of ``torch.save``, read as data: no code of theirs runs, and no more than their size is allocated.

Such a file is a zip archive with a pickle, which may call any function. Read here, it yields plain containers and
tensors; every other object becomes a `Record` with its attributes and no behaviour. A file that names anything but
classes of torch, numpy and Ultralytics is refused with that name. Knows nothing of models.
"""

import contextlib
import io
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch

MAX_FILE_BYTES = 4_000_000_000
MAX_PICKLE_BYTES = 8_000_000
"""Names and plain values; tensors lie beside it. That of the largest published model has less than a tenth of it."""

MAX_CLASSES = 1_000
MAX_DIMENSIONS = 8

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

HARMLESS = re.compile(
    r"(torch\.nn|ultralytics|torchvision\.transforms)(\.\w+)*\.([A-Z]|v10)\w*|torch\.(device|dtype|b?float\d+|u?int\d+)|"
    r"numpy\.(ndarray|dtype|dtypes\.\w+|_?core\.multiarray\.(scalar|_reconstruct))|_codecs\.encode|builtins\.getattr|"
    r"types\.SimpleNamespace|pathlib(\._local)?\.(Posix|Windows)Path"
)
"""Classes in checkpoints of Ultralytics besides tensors and containers; each becomes a `Record`."""

OPCODES = frozenset(
    {
        *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINUNICODE"),
        *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    }
)
"""Pickle opcodes that ``torch.save`` writes."""


class UnreadableFileError(Exception):
    """A file cannot be read as data; the message is the reason, as part of a sentence, `names` the refused classes."""

    def __init__(self, detail: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.names = names


class Record:
    """A pickled object that was not built: name of its class, and attributes."""

    class_name = ""

    def __init__(self, *_: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        """Keep the attributes."""
        self.attributes = state if isinstance(state, dict) else {}


class StoredTensor:
    """A tensor that is still in its file."""

    def __init__(self, storage: object, offset: object, size: object, stride: object, *_: object) -> None:
        match storage, offset, size, stride:
            case tuple(), int(), tuple(), tuple() if len(size) == len(stride) <= MAX_DIMENSIONS:
                fits = all(type(number) is int and 0 <= number < MAX_FILE_BYTES for number in (offset, *size, *stride))
            case _:
                fits = False
        if not fits:
            raise UnreadableFileError("it has a tensor without a shape")
        self.key, self.dtype, self.num_elements = cast("tuple[str, torch.dtype, int]", storage)
        self.offset = cast("int", offset)
        self.size, self.stride = cast("tuple[int, ...]", size), cast("tuple[int, ...]", stride)

    def __setstate__(self, state: object) -> None:
        raise UnreadableFileError("it changes a tensor")


ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError)
"""Errors that `zipfile` raises for an archive that it cannot read: `RuntimeError` for an encrypted entry, and a
subclass of it for an unknown compression or version of the format.
"""


class CheckpointFile(contextlib.AbstractContextManager["CheckpointFile"]):
    """An open file of ``torch.save``; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the file and read everything except tensors; raises `UnreadableFileError`."""
        try:
            self._num_bytes = path.stat().st_size
            if self._num_bytes > MAX_FILE_BYTES:
                raise UnreadableFileError(f"it has {self._num_bytes / 1e9:.1f} GB, which no model needs")
            self._archive = zipfile.ZipFile(path)
        except ZIP_ERRORS as error:
            raise UnreadableFileError("it is not a file of torch, or it is cut") from error
        self._num_bytes_read = 0
        self._storages: dict[str, torch.Tensor] = {}
        with contextlib.ExitStack() as stack, _damage_refused():
            stack.enter_context(self._archive)
            self._entries = self._plain_entries()
            self.content = _unpickled(self._archive.read(self._entries["data.pkl"]))
            stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def read(self, stored: StoredTensor) -> torch.Tensor:
        """Read a tensor; raises `UnreadableFileError` if the file does not hold all of it, or it is damaged."""
        num_elements = math.prod(stored.size)
        reach = sum((length - 1) * step for length, step in zip(stored.size, stored.stride, strict=True))
        if num_elements and max(num_elements, stored.offset + reach + 1) > stored.num_elements:
            raise UnreadableFileError("it has a tensor that is larger than what it holds of it")
        self._num_bytes_read += num_elements * stored.dtype.itemsize
        if self._num_bytes_read > self._num_bytes:
            raise UnreadableFileError("its tensors are larger than the file")
        if stored.key not in self._storages:
            self._storages[stored.key] = self._storage(stored.key)
        elements = self._storages[stored.key]
        if len(elements) != stored.num_elements * stored.dtype.itemsize:
            raise UnreadableFileError("it has a tensor that is cut")
        return elements.view(stored.dtype).as_strided(stored.size, stored.stride, stored.offset)

    def _storage(self, key: str) -> torch.Tensor:
        entry = self._entries.get(f"data/{key}")
        if entry is None:
            raise UnreadableFileError("it lacks a tensor")
        elements = torch.empty(entry.file_size, dtype=torch.uint8)
        with _damage_refused(), self._archive.open(entry) as opened:
            cast("io.BufferedIOBase", opened).readinto(elements.numpy().data)
            if opened.read():  # which also verifies the checksum
                raise UnreadableFileError("it is damaged")
        return elements

    def plain(self) -> Any:  # noqa: ANN401 -- any saved value
        """Return the saved object of plain values, containers and tensors; raises `UnreadableFileError` for others."""
        made: dict[int, Any] = {}

        def plain(value: Any) -> Any:  # noqa: ANN401 -- any plain value
            if isinstance(value, Record):
                raise UnreadableFileError(f"it holds a {value.class_name}")
            if id(value) in made:
                return made[id(value)]
            if isinstance(value, StoredTensor):
                made[id(value)] = self.read(value)
            elif isinstance(value, dict):
                made[id(value)] = {key: plain(entry) for key, entry in value.items()}
            elif isinstance(value, list | tuple):
                made[id(value)] = type(value)(plain(entry) for entry in value)
            else:
                return value
            return made[id(value)]

        try:
            return plain(self.content)
        except RecursionError as error:
            raise UnreadableFileError("it is nested too deeply") from error

    def _plain_entries(self) -> dict[str, zipfile.ZipInfo]:
        """Return the entries of the archive, by names without their common folder."""
        infos = self._archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise UnreadableFileError("it is compressed, as torch writes none")
        if sum(info.file_size for info in infos) > self._num_bytes:
            raise UnreadableFileError("its parts are larger than the file")
        entries = {info.filename.partition("/")[2]: info for info in infos}
        if "constants.pkl" in entries:
            raise UnreadableFileError("it is a TorchScript program, an export; the .pt that training wrote is needed")
        if "data.pkl" not in entries:
            raise UnreadableFileError("it is not a file of torch")
        if entries["data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise UnreadableFileError("its pickle is too large")
        if "byteorder" in entries and self._archive.read(entries["byteorder"]) != b"little":
            raise UnreadableFileError("it was written on a machine with another order of bytes")
        return entries


@contextlib.contextmanager
def _damage_refused() -> Iterator[None]:
    """Translate every error that zipfile raises for a damaged or foreign archive."""
    try:
        yield
    except ZIP_ERRORS as error:
        raise UnreadableFileError("it is damaged") from error


class _Parameter:
    """Stand-in for the function that makes a parameter of a tensor."""

    def __new__(cls, tensor: object, *_: object) -> Any:  # noqa: ANN401 -- a stand-in of another class is the point
        return tensor


class _Unpickler(pickle.Unpickler):
    """Unpickler whose classes do nothing.

    `find_class` returns classes only, which no opcode can change: ``__setstate__`` works on instances.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.found: dict[str, type] = {
            "collections.OrderedDict": OrderedDict,
            "builtins.set": set,
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor_v2": StoredTensor,
            "torch._utils._rebuild_parameter": _Parameter,
        }
        self.refused: set[str] = set()

    def find_class(self, module: str, name: str) -> type:
        """Return the class that stands for a name."""
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full not in self.found:
            if len(self.found) > MAX_CLASSES:
                raise UnreadableFileError("it names more classes than there are")
            if not HARMLESS.fullmatch(full) and not (module == "torch" and name in DTYPES):
                self.refused.add(full)
            self.found[full] = type("Named", (Record,), {"class_name": full})
        return self.found[full]

    def persistent_load(self, pid: object) -> tuple[str, torch.dtype, int]:
        """Return location, number and type of a tensor's elements."""
        match pid:
            case ("storage", type() as kind, str(key), _, int(num_elements)) if issubclass(kind, Record):
                dtype = DTYPES.get(kind.class_name.removeprefix("torch."))
                if dtype is not None and num_elements >= 0:
                    return key, dtype, num_elements
        raise UnreadableFileError("it has a tensor of an unknown kind")


def _unpickled(data: bytes) -> Any:  # noqa: ANN401 -- any saved value
    unpickler = _Unpickler(data)
    try:
        _require_known_opcodes(data)
        content = unpickler.load()
    except UnreadableFileError:
        raise
    except Exception as error:  # a hostile pickle may raise anything
        raise UnreadableFileError("its pickle is damaged") from error
    if unpickler.refused:
        names = tuple(sorted(unpickler.refused))
        raise UnreadableFileError(f"it names {', '.join(names)}", names)
    return content


def _require_known_opcodes(data: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(data):
        # An index makes the unpickler take memory for all that are below it.
        if opcode.name not in OPCODES or (opcode.name == "LONG_BINPUT" and cast("int", argument) > len(data)):
            raise UnreadableFileError(f"its pickle has {opcode.name}, as torch writes none")
