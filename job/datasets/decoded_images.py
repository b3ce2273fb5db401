"""Records in the bucket of the images that were decoded, by digest: a new machine decodes none of them again.

Guarantees that records only add up, that one which is absent, damaged, refused or of another version costs time and
nothing else, and that decoders of other versions share none. A record vouches for the pixels of an image alone, and can
be wrong as any file of the bucket can: formats, sizes and labels are checked on each machine, and no problem is taken
from a record.
"""

import hashlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from job.datasets.image import DECODER
from job.datasets.near_duplicates import NUM_BITS
from job.errors import JobError, PreconditionError
from job.storage.object_store import Store
from job.text import as_json

log = logging.getLogger(__name__)

SCHEMA = 1

MAX_BYTES = 256_000_000
"""Limit of a dataset's records together, more than a million images, checked before memory is allocated for them."""

NUM_ID_DIGITS = 32

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Hash = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{NUM_BITS // 4}}}$")]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)

    schema_: int = Field(alias="schema", ge=1, le=SCHEMA)
    hashes: dict[Digest, Hash]


class DecodedImages:
    """Images of a dataset, of any version, that were decoded to their ends by the versions of `DECODER`."""

    def __init__(self, store: Store, dataset: str) -> None:
        self._store, self._folder = store, f"scans/{dataset}/"
        self._prefix = f"{self._folder}{DECODER}/"
        self._hashes: dict[str, str] | None = None

    def hashes(self) -> dict[str, str]:
        """Return the hashes of their pixels by the digests of `DatasetScan`; the first call reads the bucket."""
        if self._hashes is None:
            self._hashes = self._read_all()
        return self._hashes

    def add(self, hashes: Mapping[str, str]) -> None:
        """Record images that no record has yet; a record is named by its content, and is never replaced.

        Records nothing if `hashes` was not called: this machine knew all its images.
        """
        known = self._hashes
        if known is None or not (new := {digest: hashes[digest] for digest in sorted(hashes) if digest not in known}):
            return
        data = as_json({"schema": SCHEMA, "hashes": new}) + b"\n"
        key = f"{self._prefix}{hashlib.sha256(data).hexdigest()[:NUM_ID_DIGITS]}.json"
        try:
            self._store.put(key, data)
        except PreconditionError:
            pass  # a damaged record of the same images; `hashes` has told of it
        except JobError as error:
            log.warning("%s: was not stored, so other machines decode these images again: %s", key, error)

    def forget(self) -> None:
        """Delete the records, also those of other decoders."""
        for stored in self._store.list(self._folder):
            self._store.delete(stored.key)

    def _read_all(self) -> dict[str, str]:
        try:
            listed = self._store.list(self._prefix)
        except JobError as error:
            log.warning("%s: cannot be listed, so every image is decoded: %s", self._prefix, error)
            return {}
        totals = accumulate(stored.size_bytes for stored in listed)
        keys = [stored.key for stored, total in zip(listed, totals, strict=True) if total <= MAX_BYTES]
        if len(keys) < len(listed):
            log.warning("%s: has more than %s bytes, and the rest is not read", self._prefix, f"{MAX_BYTES:,}")
        found: dict[str, str] = {}
        with ThreadPoolExecutor() as pool:
            for hashes in pool.map(self._read, keys):
                found |= hashes
        return found

    def _read(self, key: str) -> dict[str, str]:
        """Return the hashes of a record; none if it cannot be read."""
        try:
            return _Record.model_validate_json(self._store.read(key, MAX_BYTES)).hashes
        except ValidationError:
            reason = "it is of a newer version of the job, or damaged; delete it then"
        except JobError as error:
            reason = str(error)
        log.warning("%s: is not used, so its images are decoded again: %s", key, reason)
        return {}
