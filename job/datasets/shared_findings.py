"""Findings of a dataset's scan in the bucket: a new machine decodes nothing that another one has decoded.

Guarantees that findings are taken for equal bytes under equal rules alone, by digest, and that an absent, damaged or
refused object costs time and nothing else. Knows nothing of what findings mean.
"""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Mapping

from pydantic import TypeAdapter

from job.datasets.labels import Findings
from job.errors import JobError, ObjectNotFoundError, PreconditionError
from job.storage.object_store import Store

log = logging.getLogger(__name__)

MAX_BYTES = 256_000_000
"""Longest text, checked before memory is allocated for it."""

_FINDINGS = TypeAdapter(dict[str, Findings])
"""By digest of a file and the rules it was checked by."""

GZIP = 16 + zlib.MAX_WBITS


class SharedFindings:
    """Findings of a dataset version.

    Args:
        store: The bucket.
        dataset: Digest of the version.
        writable: Whether the findings are stored, if they are not there yet.
    """

    def __init__(self, store: Store, dataset: str, *, writable: bool) -> None:
        self._store, self._dataset, self._writable = store, dataset, writable

    def read(self, schema: str) -> dict[str, Findings]:
        """Return the findings that were written under a schema; none if there are none, or they cannot be read."""
        key = self._key(schema)
        try:
            if self._store.stat(key).size_bytes <= MAX_BYTES:
                text = zlib.decompressobj(GZIP).decompress(self._store.read(key), MAX_BYTES)
                return _FINDINGS.validate_json(text)
        except ObjectNotFoundError:
            pass
        except (JobError, ValueError, zlib.error) as error:
            log.warning("%s: cannot be read, so that every file is decoded; delete it (%s)", key, type(error).__name__)
        return {}

    def write(self, schema: str, findings: Mapping[str, Findings]) -> None:
        """Store the findings of all files under a schema, unless there are some."""
        if not self._writable:
            return
        key = self._key(schema)
        try:
            self._store.put(key, gzip.compress(_FINDINGS.dump_json(dict(findings)), mtime=0))
        except PreconditionError:
            pass  # of another machine, or under other rules
        except JobError as error:
            log.warning("%s: was not stored, which only makes other machines decode again: %s", key, error)

    def _key(self, schema: str) -> str:
        return f"scans/{self._dataset}-{hashlib.sha256(schema.encode()).hexdigest()[:16]}.json.gz"
