"""Reads what W&B's client wrote to its log on disk, as far as it has written it.

The file is seven bytes of header, and then the record format of LevelDB's log: blocks of 32 KiB, records in one piece
or in several, each piece with checksum, length and type.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at run time

HEADER_BYTES = 7

BLOCK_BYTES = 32768

PIECE = struct.Struct("<IHB")
"""Checksum, length and type of a piece."""

WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """Yield the records of a log; one that is not complete yet is left out."""
    data = path.read_bytes()
    position, parts = HEADER_BYTES, list[bytes]()
    while position + PIECE.size <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < PIECE.size:
            position += left
            continue
        _, length, kind = PIECE.unpack_from(data, position)
        begin, position = position + PIECE.size, position + PIECE.size + length
        if kind not in {WHOLE, FIRST, MIDDLE, LAST} or position > len(data):
            return
        parts = [*([] if kind in {WHOLE, FIRST} else parts), data[begin:position]]
        if kind in {WHOLE, LAST}:
            yield Record.FromString(b"".join(parts))


def rows(path: Path) -> list[dict[str, Any]]:
    """Return what was logged, row by row."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]
