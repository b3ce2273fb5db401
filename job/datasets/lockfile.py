"""Locks of dataset versions: each path with size, checksums and the place of its bytes: a key, or a range of a shard.

Guarantees that a version never changes: its lock is written last and once, and bytes that come later under a taken path
get another key. Two versions with the same digest have the same files. A dataset without a lock is every file below its
prefix. Knows nothing of YOLO.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from job.errors import DataError
from job.storage.keys import is_key
from job.storage.object_store import Store, StoredObject
from job.storage.shards import PackedFile
from job.text import counted, dataset_and_version, shortened, validation_problems

SCHEMA, SCHEMA_WITHOUT_SHARDS = 3, 2
"""A lock without shards is written as earlier versions of the job do, which read it."""

LOCK = "dataset.lock.json"
"""The lock of version 1 of a dataset that an earlier version of the job pushed, or that was copied without it."""

VERSION_LOCK = re.compile(r"versions/([0-9]{4,})\.lock\.json")

BEGUN = re.compile(r"versions/[0-9a-f]{4,}\.begun")
"""Exists from the beginning of a push to its end, one for each machine and folder; older versions wrote a number."""

DELETED = re.compile(r"versions/([0-9]{4,})\.deleted")
"""Marks a version that is gone, or about to be, whose lock is deleted last; its number does not come back."""

SHARDS = "shards/"
"""Folder of the shards below a dataset's prefix."""

SHARD = re.compile(rf"{SHARDS}[0-9a-f]{{64}}")

INTERNAL = re.compile(
    rf"{VERSION_LOCK.pattern}|{BEGUN.pattern}|{DELETED.pattern}|objects/[0-9a-f]{{64}}|{SHARD.pattern}"
)
"""Keys among a dataset's files that belong to the job."""

LOCK_BYTES = 1_000_000_000
"""Limit of a lock: more than two million pictures with their labels, and about 9 GB of memory to read it."""

NUM_SHOWN = 5


def is_dataset_file(name: str) -> bool:
    """Whether a name below a dataset's prefix is one of its files: not internal, hidden, or a cache of Ultralytics."""
    return _was_dataset_file(name) and not name.endswith(".npy")


def _was_dataset_file(name: str) -> bool:
    """`is_dataset_file` of earlier versions, which counted ``.npy`` caches of images (``data/base.py``: 172)."""
    is_hidden = "/." in f"/{name}"
    return name != LOCK and not name.endswith((".cache", ".part")) and not is_hidden and not INTERNAL.fullmatch(name)


def version_lock(number: int) -> str:
    """Return the name of a version's lock."""
    return f"versions/{number:04d}.lock.json"


class LockedFile(BaseModel):
    """Size, checksums and key of one file."""

    model_config = ConfigDict(strict=True, frozen=True)

    size: int = Field(ge=0)
    sha256: str | None = None
    """Absent in schema 1."""
    crc32c: str
    at: str | None = None
    """Key of the bytes below the dataset's prefix, if it is not the file's path: an object, another path, a shard."""
    offset: int | None = Field(None, ge=0)
    """Where the bytes begin in their shard."""

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, entry: object) -> object:
        """Schema 1 has size and CRC-32C in a list."""
        return dict(zip(("size", "crc32c"), entry, strict=False)) if isinstance(entry, list) else entry

    @model_validator(mode="after")
    def _require_known_key(self) -> Self:
        at = self.at
        if self.offset is not None:
            is_read = at is not None and SHARD.fullmatch(at) is not None
        else:
            is_read = at in {None, f"objects/{self.sha256}"} or (is_key(at) and not INTERNAL.fullmatch(at))
        if not is_read:
            raise ValueError(f"its bytes are in {at or 'no shard'}, which this version of the job does not read")
        return self

    @classmethod
    def of(cls, stored: StoredObject, path: str, sha256: str | None, prefix: str) -> Self:
        """Describe the file of a path whose bytes are in an object below a prefix."""
        key, offset = stored.key.removeprefix(prefix), stored.offset if isinstance(stored, PackedFile) else None
        at = None if key == path else key
        return cls(size=stored.size_bytes, sha256=sha256, crc32c=str(stored.crc32c), at=at, offset=offset)

    def stored(self, path: str, prefix: str, shards: Mapping[str, StoredObject]) -> StoredObject:
        """Return the object below a prefix that has the bytes of the file of a path; it is not looked up."""
        key = prefix + (self.at or path)
        if self.offset is None:
            return StoredObject(key, self.size, "", self.crc32c)
        return PackedFile(key, self.size, "", self.crc32c, offset=self.offset, shard=shards[key])


class LockedShard(BaseModel):
    """Size and checksum of a shard."""

    model_config = ConfigDict(strict=True, frozen=True)

    size: int = Field(ge=0)
    crc32c: str


class DatasetLock(BaseModel):
    """Record of one version of a dataset, written last and once."""

    model_config = ConfigDict(strict=True, frozen=True)

    schema_version: int = Field(alias="schema")
    version: int = 1
    digest: str
    shards: dict[str, LockedShard] | None = None
    """By key below the dataset's prefix; absent if there are none."""
    files: dict[str, LockedFile]

    @model_validator(mode="after")
    def _require_shards(self) -> Self:
        shards = self.shards or {}
        for path, file in self.files.items():
            if file.offset is None:
                continue
            shard = shards.get(str(file.at))
            if shard is None or file.offset + file.size > shard.size:
                raise ValueError(f"{path}: its bytes are beyond {file.at}, as far as the lock describes that")
        return self

    @classmethod
    def make(cls, number: int, files: Mapping[str, StoredObject], sha256: Mapping[str, str], prefix: str) -> Self:
        """Lock a version: objects below a prefix and, as far as known, SHA-256, each by path."""
        locked = {path: LockedFile.of(stored, path, sha256.get(path), prefix) for path, stored in sorted(files.items())}
        shards = {
            file.shard.key.removeprefix(prefix): LockedShard(size=file.shard.size_bytes, crc32c=str(file.shard.crc32c))
            for file in files.values()
            if isinstance(file, PackedFile)
        }
        schema = SCHEMA if shards else SCHEMA_WITHOUT_SHARDS
        return cls(schema=schema, version=number, digest=dataset_digest(files), shards=shards or None, files=locked)

    @classmethod
    def parse(cls, data: bytes, subject: str) -> Self:
        """Read a lock of this schema or an older one; raises `DataError` if it is none."""
        try:
            content = json.loads(data)
            if content["schema"] > SCHEMA:
                raise DataError(
                    f"{subject}: has schema {content['schema']}, which a newer version of the job wrote; use that one"
                )
            return cls.model_validate(content)
        except ValidationError as error:
            problems = validation_problems(error, cls)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            problems = [repr(error)]
        raise DataError(
            f"{subject}: cannot be read; push the dataset again under another name", shortened(problems, NUM_SHOWN)
        )

    def to_json(self) -> bytes:
        """Return the object to store: the same bytes for the same lock; raises `DataError` if none could read it."""
        data = (json.dumps(self.model_dump(by_alias=True, exclude_none=True), indent=0) + "\n").encode()
        if len(data) > LOCK_BYTES:
            raise DataError(
                f"dataset: has {len(self.files):,} files, too many for one lock of {LOCK_BYTES / 1e9:g} GB; push parts "
                "of it as datasets of their own"
            )
        return data


@dataclass(frozen=True)
class DatasetVersion:
    """One version of a dataset."""

    number: int
    """0 without a lock."""

    pinned: dict[str, StoredObject]
    """By path: the object that has its bytes."""

    sha256: dict[str, str]
    """By path; absent for a file of schema 1."""

    @cached_property
    def files(self) -> Mapping[str, StoredObject]:
        """The files of `pinned`, without the caches of Ultralytics that older locks list."""
        return {path: stored for path, stored in self.pinned.items() if is_dataset_file(path)}

    @property
    def digest(self) -> str:
        """Digest that a run records."""
        return dataset_digest(self.pinned if self.number else self.files)

    @cached_property
    def digests(self) -> frozenset[str]:
        """Digests that runs may have recorded: with and without caches of Ultralytics."""
        versions = [self.pinned] if len(self.files) == len(self.pinned) else [self.pinned, self.files]
        return frozenset(map(dataset_digest, versions))


def dataset_digest(files: Mapping[str, StoredObject]) -> str:
    """Return the SHA-256 over path, size and CRC-32C of every file, in the order of their paths."""
    digest = hashlib.sha256()
    for path, stored in sorted(files.items()):
        digest.update(f"{path}\t{stored.size_bytes}\t{stored.crc32c}\n".encode())
    return digest.hexdigest()


def split_digest(files: Mapping[str, StoredObject], split: Iterable[str], class_names: Sequence[str]) -> str:
    """Return the SHA-256 over a split's images, labels and classes: equal digests have comparable metrics.

    `split` has the paths of its images and labels; one that is not among the dataset's files counts as absent.
    """
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    digest.update(dataset_digest({path: files[path] for path in set(split) & files.keys()}).encode())
    return digest.hexdigest()


def same_bytes(one: StoredObject, other: StoredObject | None) -> bool:
    """Whether two objects have the same size and checksum."""
    return other is not None and (one.size_bytes, one.crc32c) == (other.size_bytes, other.crc32c)


def count_changes(before: Mapping[str, StoredObject], after: Mapping[str, StoredObject]) -> str:
    """Count the files that differ: ``12 new, 3 changed, 1 gone``; empty if none does."""
    changed = sum(not same_bytes(after[path], before[path]) for path in after.keys() & before.keys())
    counts = {"new": len(after.keys() - before.keys()), "changed": changed, "gone": len(before.keys() - after.keys())}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def read_version(store: Store, reference: str, digests: Sequence[str] = ()) -> DatasetVersion:
    """Return the newest version of a dataset with one of these digests, or else the one that its reference names.

    ``wildlife`` is the newest, ``wildlife@2`` a certain one. All files of the version are there.

    Raises:
        DataError: If there is no such version, its lock cannot be read, files are missing or changed, or a push was cut
            before the first lock.
    """
    name, number = dataset_and_version(reference)
    listing = list_dataset(store, name)
    if listing.is_incomplete:
        raise DataError(f"dataset {name}: its first push was cut off, and only a part of it is there; push it again")
    return listing.verified((digests and listing.find(digests)) or listing.version(number))


def list_locks(store: Store, name: str) -> "DatasetListing":
    """List the locks of a dataset, with checksums, and the marks of deletions; none of its files."""
    locks = list_dataset(store, name, "versions/").there | list_dataset(store, name, LOCK).there
    return DatasetListing(store, name, locks)


def moved_files(store: Store, name: str, digest: str) -> Mapping[str, str]:
    """Return, by path, the keys of a version's files that differ from their paths, without files in shards."""
    version = list_dataset(store, name, "versions/").find([digest])
    pinned = version.pinned if version else {}
    alone = {path: file.key for path, file in pinned.items() if not isinstance(file, PackedFile)}
    return {path: key for path, key in alone.items() if key != f"datasets/{name}/{path}"}


def lock_key(store: Store, name: str, digest: str) -> str | None:
    """Return the key of the lock of the dataset version with a digest; None for a dataset without a lock."""
    for below in ("versions/", LOCK):
        listing = list_dataset(store, name, below)
        if version := listing.find([digest]):
            return listing.prefix + listing.lock_name(version.number)
    return None


@dataclass(frozen=True, slots=True)
class DatasetListing:
    """Objects below a dataset's prefix."""

    store: Store
    name: str
    there: dict[str, StoredObject]
    """By key."""

    @property
    def prefix(self) -> str:
        """Prefix of its keys."""
        return f"datasets/{self.name}/"

    @property
    def locked(self) -> set[int]:
        """Numbers of the versions whose locks are there."""
        names = [key.removeprefix(self.prefix) for key in self.there]
        numbers = {int(match[1]) for name in names if (match := VERSION_LOCK.fullmatch(name))}
        return numbers | ({1} if LOCK in names else set())

    @property
    def deleted(self) -> set[int]:
        """Numbers of the versions that are marked as deleted."""
        names = (key.removeprefix(self.prefix) for key in self.there)
        return {int(match[1]) for name in names if (match := DELETED.fullmatch(name))}

    @property
    def numbers(self) -> list[int]:
        """Version numbers, newest first."""
        return sorted(self.locked - self.deleted, reverse=True)

    @property
    def last_number(self) -> int:
        """The highest number that a version has or had; 0 if there was none."""
        return max(self.locked | self.deleted, default=0)

    @property
    def begun(self) -> list[str]:
        """Marks of pushes that are under way or were cut off."""
        return [key for key in self.there if BEGUN.fullmatch(key.removeprefix(self.prefix))]

    @property
    def is_incomplete(self) -> bool:
        """Whether the first push was cut off, or a deletion, and left a part of the dataset."""
        return not self.numbers and bool(self.begun or self.deleted)

    @property
    def newest(self) -> DatasetVersion:
        """The newest version; without a lock every file below the prefix, none if `is_incomplete`."""
        if numbers := self.numbers:
            return self.read(numbers[0])
        paths = (
            {} if self.is_incomplete else {key.removeprefix(self.prefix): stored for key, stored in self.there.items()}
        )
        return DatasetVersion(0, {path: stored for path, stored in paths.items() if _was_dataset_file(path)}, {})

    def version(self, number: int | None) -> DatasetVersion:
        """Return a version by number, the newest for None; raises `DataError` if it does not exist."""
        known = self.numbers or [1]  # a folder that was copied in by hand
        if number is not None and number not in known:
            listed = ", ".join(map(str, sorted(known)))
            raise DataError(f"dataset {self.name}: has no version {number}, there is {listed}; see `job data list`")
        return self.newest if number is None or not self.numbers else self.read(number)

    def lock(self, number: int) -> StoredObject:
        """Return the object of a version's lock."""
        return self.there[self.prefix + self.lock_name(number)]

    def find(self, digests: Sequence[str]) -> DatasetVersion | None:
        """Return the newest version with one of these digests."""
        versions = map(self.read, self.numbers)
        return next((version for version in versions if version.digests.intersection(digests)), None)

    def listed(self, stored: StoredObject) -> StoredObject | None:
        """Return the object of a file as the store lists it; None if it, or the file's shard, is gone or differs."""
        there = self.there.get(stored.key)
        if there is None or not same_bytes(stored.shard if isinstance(stored, PackedFile) else stored, there):
            return None
        return replace(stored, version=there.version, shard=there) if isinstance(stored, PackedFile) else there

    def verified(self, version: DatasetVersion) -> DatasetVersion:
        """Return a version with its objects as the store lists them; raises `DataError` if some differ."""
        problems, found = [], dict(version.pinned)
        for path, stored in version.files.items():
            if listed := self.listed(stored):
                found[path] = listed
            else:
                problems.append(f"{path}: {'changed' if stored.key in self.there else 'missing'}")
        if problems:
            raise DataError(
                f"dataset {self.name}: differs from its {self.lock_name(version.number)} in "
                f"{counted(len(problems), 'file')}; push it again, or put them back",
                shortened(problems, NUM_SHOWN),
            )
        return DatasetVersion(version.number, found, version.sha256)

    def read(self, number: int) -> DatasetVersion:
        """Read a version's lock; raises `DataError` if it cannot be read."""
        name = self.lock_name(number)
        data = self.store.read(self.prefix + name, LOCK_BYTES)
        lock = DatasetLock.parse(data, f"dataset {self.name}: {name}")
        shards = {
            (key := self.prefix + name): StoredObject(key, shard.size, "", shard.crc32c)
            for name, shard in (lock.shards or {}).items()
        }
        pinned = {path: file.stored(path, self.prefix, shards) for path, file in lock.files.items()}
        sha256 = {path: file.sha256 for path, file in lock.files.items() if file.sha256 is not None}
        return DatasetVersion(number, pinned, sha256)

    def lock_name(self, number: int) -> str:
        """Return the name of the lock of a version."""
        name = version_lock(number)
        return name if self.prefix + name in self.there else LOCK


def list_dataset(store: Store, name: str, below: str = "") -> DatasetListing:
    """List the objects of a dataset, or those below a prefix of it, with checksums."""
    found = store.list(f"datasets/{name}/{below}", checksums=True)
    return DatasetListing(store, name, {stored.key: stored for stored in found})
