"""Version of a dataset that is kept in a folder, known by the state of the folder and by the object of its lock.

Guarantees that a kept version is that of the same lock, in a folder whose files were found to be the version's and have
not changed since, by name, size and times; an absent or damaged record costs time and nothing else.
"""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from job.datasets.dataset_report import DatasetReport
from job.datasets.files import state_of
from job.datasets.lockfile import DatasetVersion, split_digest
from job.storage.cache_file import CacheFile
from job.storage.object_store import StoredObject
from job.storage.transfer import PULLED

KEPT = ".version.sqlite"
"""Name of the record in the folder of a dataset."""


SCHEMA = "1"
"""Records of another schema are not read."""


class KeptVersion(BaseModel):
    """What a start needs of a version whose files are there: without it, 20,000 pictures take half a second to read."""

    model_config = ConfigDict(strict=True, frozen=True)

    number: int
    """0 without a lock."""
    digest: str
    """Digest that a new run records."""
    digests: frozenset[str]
    """Digests that runs may have recorded."""
    num_files: int
    val: str
    """Digest of the validation split."""
    test: str | None
    """Digest of the test split, if there is one."""

    @classmethod
    def of(cls, version: DatasetVersion, report: DatasetReport) -> Self:
        """Describe a version by the report on its files."""
        return cls(
            number=version.number,
            digest=version.digest,
            digests=version.digests,
            num_files=len(version.files),
            val=split_digest(version.files, report.val, report.names),
            test=split_digest(version.files, report.test, report.names) if report.test else None,
        )

    @classmethod
    def read(cls, folder: Path, state: str, locks: Collection[StoredObject]) -> Self | None:
        """Return the version that is kept in a folder of this state, if it has one of these locks."""
        rows = CacheFile(folder / KEPT, SCHEMA).read()
        with suppress(ValidationError, OSError):
            for lock in locks:
                if row := rows.get(_key(folder, state, lock)):
                    return cls.model_validate_json(row)
        return None

    def write(self, folder: Path, state: str, lock: StoredObject) -> None:
        """Record that a folder of this state has all files of the version, and no other to train on.

        Without a state nothing is recorded: the folder has a file that cannot be looked at.
        """
        cache = CacheFile(folder / KEPT, SCHEMA)
        with suppress(OSError):
            if state:
                cache.write({**dict.fromkeys(cache.read()), _key(folder, state, lock): self.model_dump_json()})


def _key(folder: Path, state: str, lock: StoredObject) -> str:
    """Return what a version is known by; the index of the pull is in it, which a later pull goes by."""
    return f"{state} {state_of((folder / PULLED).lstat())} {lock.crc32c} {lock.size_bytes} {lock.key}"
