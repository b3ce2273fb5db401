"""Shards: objects in which small files are packed, one behind the other.

Guarantees that the same files make the same shards, that a shard is named by the SHA-256 of its bytes, and that a file
comes out of one with the size and checksum of its own, or not at all. Knows nothing of datasets.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from job.errors import CorruptObjectError
from job.storage.checksums import CHUNK_BYTES, crc32c, encode_crc32c
from job.storage.object_store import StoredObject

SHARD_BYTES = 32_000_000
"""Limit of a shard that is written, which memory holds; one that is read may have any size."""


Range = tuple[int, int, str]
"""Offset, size and CRC-32C of a file in a shard."""


@dataclass(frozen=True, slots=True)
class PackedFile(StoredObject):
    """A file in a shard: the key and the version are the shard's, size and checksum its own."""

    offset: int = field(kw_only=True)
    shard: StoredObject = field(kw_only=True, compare=False)
    """As the store lists it; of a file that was not looked up, without a version."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard to store."""

    stored: StoredObject
    data: bytes
    files: dict[str, PackedFile]


def pack(names: Iterable[str], read: Callable[[str], bytes], folder: str) -> Iterator[Shard]:
    """Yield the shards, below a folder of the store, of small files in the order of their names.

    Equal files of a shard are in it once. One shard at a time is in memory.
    """
    pieces, ranges, size = dict[bytes, Range](), dict[str, Range](), 0
    for name in sorted(names):
        data = read(name)
        if data not in pieces:
            if pieces and size + len(data) > SHARD_BYTES:
                yield _shard(pieces, ranges, folder)
                pieces, ranges, size = {}, {}, 0
            pieces[data] = (size, len(data), encode_crc32c(crc32c(data)))
            size += len(data)
        ranges[name] = pieces[data]
    if pieces:
        yield _shard(pieces, ranges, folder)


def repack(files: Mapping[str, PackedFile], read: Callable[[str], bytes]) -> Shard | None:
    """Return the shard of some files as it was, made of their bytes; None if these are not all of it."""
    pieces = {(file.offset, file.size_bytes): name for name, file in files.items()}
    stored = next(file.shard for file in files.values())
    if sum(size for _, size in pieces) != stored.size_bytes or stored.size_bytes > SHARD_BYTES:
        return None
    data = b"".join(read(name) for _, name in sorted(pieces.items()))
    return Shard(stored, data, dict(files)) if stored.key.endswith(hashlib.sha256(data).hexdigest()) else None


def read_packed(opened: BinaryIO, file: PackedFile, name: str, uri: str) -> Iterator[bytes]:
    """Yield the bytes of a file from its fetched shard; raises `CorruptObjectError` after the last if they differ.

    The message has the file's name, and the URI of the store.
    """
    crc, left = 0, file.size_bytes
    if file.offset + left <= file.shard.size_bytes:  # a number from a lock may be larger than what can be sought
        opened.seek(file.offset)
        while left and (chunk := opened.read(min(left, CHUNK_BYTES))):
            yield chunk
            crc, left = crc32c(chunk, crc), left - len(chunk)
    if left or encode_crc32c(crc) != file.crc32c:
        raise CorruptObjectError(
            f"{uri}/{file.key}: its bytes at {file.offset} are not those of {name}; delete it, and push the files again"
        )


def _shard(pieces: Iterable[bytes], ranges: Mapping[str, Range], folder: str) -> Shard:
    data = b"".join(pieces)
    key = f"{folder}{hashlib.sha256(data).hexdigest()}"
    stored = StoredObject(key, len(data), "", encode_crc32c(crc32c(data)))
    files = {
        name: PackedFile(key, size_bytes, "", checksum, offset=offset, shard=stored)
        for name, (offset, size_bytes, checksum) in ranges.items()
    }
    return Shard(stored, data, files)
