"""Protocol of an object store: durable objects under relative keys.

Guarantees that a put is atomic (a reader sees the whole object or none) and create-only unless `overwrite` is given,
that a listing is complete and sorted, and that a get is verified before the file appears under its name. Only
`ObjectNotFoundError` means absence. Knows nothing of runs, datasets or YOLO.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

RECORD_BYTES = 64_000_000
"""Limit of a record: the bundled records of 20,000 attempts, an evaluation of 300,000 pictures."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Key, size, version and checksum of one object."""

    key: str
    size_bytes: int
    version: str
    """Opaque; two reads with equal versions saw the same bytes. On GCS it is the generation."""

    crc32c: str | None = None
    """CRC-32C, base64 of the four bytes in big-endian order, as GCS reports it; `None` in a plain listing."""


OnDone = Callable[[StoredObject], None] | None
"""Called once for each transferred object, from any thread."""


class Store(Protocol):
    """A flat namespace of objects. Keys are relative, ``/``-separated, without ``.``, ``..`` or empty parts.

    Transient failures are retried, bytes damaged in transfer included.

    Every method raises `TransientStoreError` if the backend kept failing until the deadline, `StoreError` if it
    refused (no permission, no such bucket, a full disk), and `UsageError` if a key is invalid. Fetches into a file
    raise `MachineError` if it cannot be written.
    """

    @property
    def uri(self) -> str:
        """Location of the store: ``gs://bucket/prefix`` or an absolute folder."""

    def put(self, key: str, source: Path | bytes, *, overwrite: bool = False) -> StoredObject:
        """Store a file or bytes, and return the object with its CRC-32C; `overwrite` replaces an object under the key.

        A put is idempotent: an object with the same bytes is the success of an earlier try whose response was lost.
        Two writers of the same bytes both succeed, so that a claim must contain the claimer's name.

        Raises:
            PreconditionError: If the key is taken by other bytes and `overwrite` is false.
            StoreError: If the source cannot be read, beside the reasons above.
        """

    def get(self, key: str, target: Path) -> StoredObject:
        """Fetch into `target`, which appears only once its bytes are verified; parents are made.

        Raises:
            ObjectNotFoundError: If there is no such object.
            CorruptObjectError: If the stored bytes do not match their CRC-32C, read twice.
        """

    def read(self, key: str, most_bytes: int = RECORD_BYTES) -> bytes:
        """Return the verified bytes of a small object.

        Raises as `get` does, and `OversizedObjectError` for more than `most_bytes`, without memory for them.
        """

    def list(self, prefix: str = "", *, checksums: bool = False) -> list[StoredObject]:
        """Return all objects whose key starts with `prefix`, sorted by key; ``runs/a`` lists ``runs/ab``, too.

        With `checksums`, `crc32c` is filled in: a folder reads the files that its index does not have.
        """

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Return the names, sorted, of the folders directly below a prefix that ends in ``/``.

        One without an object is among them only if the console of a cloud has marked it.
        """

    def stat(self, key: str) -> StoredObject:
        """Return one object's description, `crc32c` included; raises `ObjectNotFoundError` if there is none."""

    def delete(self, key: str) -> None:
        """Delete an object; a key without an object is no error."""

    def get_many(self, objects: Sequence[tuple[StoredObject, Path]], on_done: OnDone = None) -> None:
        """Fetch many objects in parallel, each as `get` does.

        The objects come from ``list(checksums=True)``. The first error stops the rest and is raised; files that
        have appeared by then are complete.
        """

    def put_many(self, files: Iterable[tuple[Path, str]], on_done: OnDone = None) -> None:
        """Store many files in parallel, each create-only as by `put`; errors and `on_done` as in `get_many`."""
