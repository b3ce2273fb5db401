"""What a dataset consists of, pinned by version: each path with size, checksums and where its bytes lie.

Guarantees that a version never changes: its lock is written last and once, and bytes that come later under a taken path
lie elsewhere. Two versions with the same digest have the same files. A dataset without a lock is what lies there.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.errors import DataError
from job.storage.object_store import Store, StoredObject

SCHEMA = 2

LOCK = "dataset.lock.json"
"""The lock of version 1 where an earlier version of the job, or none, pushed."""

VERSION_LOCK = re.compile(r"versions/([0-9]{4,})\.lock\.json")

BEGUN = re.compile(r"versions/([0-9]{4,})\.begun")
"""There from the beginning of a push to its end."""

OWN = re.compile(rf"{VERSION_LOCK.pattern}|{BEGUN.pattern}|objects/[0-9a-f]{{64}}|shards/[0-9a-f]{{64}}")
"""What lies among a dataset's files and is none of them."""

NUM_SHOWN = 5


def is_dataset_file(name: str) -> bool:
    """Whether a name below a dataset's folder belongs to it: not ours, not hidden, not a cache of Ultralytics."""
    return _counted_before(name) and not name.endswith(".npy")


def _counted_before(name: str) -> bool:
    """Whether it belonged to it when copies of pictures (``.npy``, ``data/base.py``: 172) did."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name != LOCK and not name.endswith((".cache", ".part")) and not hidden and not OWN.fullmatch(name)


def version_lock(number: int) -> str:
    """Return the name of a version's lock."""
    return f"versions/{number:04d}.lock.json"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a dataset."""

    number: int
    """0 if nothing pins it."""

    pinned: dict[str, StoredObject]
    """By path: the object that has its bytes."""

    sha256: dict[str, str]
    """By path, where the lock tells."""

    @property
    def files(self) -> dict[str, StoredObject]:
        """Those of `pinned` that are used; locks of before list caches of Ultralytics, too."""
        return {path: stored for path, stored in self.pinned.items() if is_dataset_file(path)}

    @property
    def digest(self) -> str:
        """What runs record of it."""
        return dataset_digest(self.pinned if self.number else self.files)

    @property
    def digests(self) -> set[str]:
        """What runs may have recorded of it: caches counted before, and do so where a lock lists them."""
        return {dataset_digest(self.files), dataset_digest(self.pinned)}


def dataset_digest(files: Mapping[str, StoredObject]) -> str:
    """Return the SHA-256 over path, size and CRC-32C of every file, in the order of their paths."""
    digest = hashlib.sha256()
    for path, stored in sorted(files.items()):
        digest.update(f"{path}\t{stored.size_bytes}\t{stored.crc32c}\n".encode())
    return digest.hexdigest()


def split_digest(files: Mapping[str, StoredObject], split: Iterable[str], class_names: Sequence[str]) -> str:
    """Return the SHA-256 over what decides a measurement on a split: its images and labels, and the classes.

    Args:
        files: The dataset's files by path.
        split: Paths of the split's images and labels; one that is not among the files counts as absent.
        class_names: In the order of their numbers.
    """
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    digest.update(dataset_digest({path: files[path] for path in set(split) & files.keys()}).encode())
    return digest.hexdigest()


def make_lock(number: int, files: Mapping[str, StoredObject], sha256: Mapping[str, str], prefix: str) -> bytes:
    """Return the lock of a version.

    Args:
        number: Of the version.
        files: By path: the object with its bytes.
        sha256: By path.
        prefix: What the keys begin with; a path whose bytes lie under it alone is not told where.
    """
    entries: dict[str, dict[str, Any]] = {}
    for path, stored in sorted(files.items()):
        entries[path] = {"size": stored.size_bytes, "sha256": sha256[path], "crc32c": stored.crc32c}
        if (place := stored.key.removeprefix(prefix)) != path:
            entries[path]["at"] = place
    content = {"schema": SCHEMA, "version": number, "digest": dataset_digest(files), "files": entries}
    return (json.dumps(content, indent=0) + "\n").encode()


def make_first_lock(files: Mapping[str, StoredObject]) -> bytes:
    """Return a lock of version 1 for files that lie there without one; their SHA-256 is not known."""
    listed = {path: [stored.size_bytes, stored.crc32c] for path, stored in files.items()}
    return (json.dumps({"schema": 1, "digest": dataset_digest(files), "files": listed}, indent=0) + "\n").encode()


def read_version(store: Store, name: str, digests: Sequence[str] = ()) -> Version:
    """Return the newest version of a dataset, or the newest that has one of these digests, proved to be there.

    Args:
        store: The bucket.
        name: The dataset's name.
        digests: If there are any and no version has one, the newest is returned.

    Raises:
        DataError: If its lock cannot be read, if files are missing or changed, or if a push was cut before the first
            lock.
    """
    listing = list_dataset(store, name)
    newest = None
    for number in listing.numbers:
        version = listing.read(store, number)
        newest = newest or version
        if not digests or version.digests.intersection(digests):
            return listing.proved(version)
    if newest is not None:
        return listing.proved(newest)
    if listing.begun:
        raise DataError(f"dataset {name}: its first push was cut, and part of it is there; push it again")
    return listing.unlocked


def moved_files(store: Store, name: str, digest: str) -> Mapping[str, str]:
    """Return the keys of a version's files that do not lie under their own path."""
    prefix = f"datasets/{name}/"
    locks = {stored.key.removeprefix(prefix): stored for stored in store.list(f"{prefix}versions/")}
    listing = Listing(name, locks)
    for number in listing.numbers:
        version = listing.read(store, number)
        if digest in version.digests:
            return {path: file.key for path, file in version.pinned.items() if file.key != prefix + path}
    return {}


def was_cut(store: Store, name: str) -> bool:
    """Tell whether the first push of a dataset has left a part of it."""
    listing = list_dataset(store, name)
    return bool(listing.begun and not listing.numbers)


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies below a dataset's folder."""

    name: str
    there: dict[str, StoredObject]
    """By what the key is without the folder."""

    @property
    def prefix(self) -> str:
        """What its keys begin with."""
        return f"datasets/{self.name}/"

    @property
    def numbers(self) -> list[int]:
        """Of the versions, the newest first."""
        numbers = {int(match[1]) for place in self.there if (match := VERSION_LOCK.fullmatch(place))}
        return sorted(numbers | ({1} if LOCK in self.there else set()), reverse=True)

    @property
    def begun(self) -> list[str]:
        """The marks of pushes that were not finished, or are under way."""
        return [place for place in self.there if BEGUN.fullmatch(place)]

    @property
    def unlocked(self) -> Version:
        """What lies there, as one does without a lock; caches of Ultralytics counted once."""
        return Version(0, {place: stored for place, stored in self.there.items() if _counted_before(place)}, {})

    def read(self, store: Store, number: int) -> Version:
        """Read the lock of a version.

        Raises:
            DataError: If it cannot be understood.
        """
        name = version_lock(number) if version_lock(number) in self.there else LOCK
        subject = f"dataset {self.name}: its {name}"
        try:
            content = json.loads(store.read(self.prefix + name))
            if content["schema"] > SCHEMA:
                raise DataError(f"{subject} was written by a newer version of the job; use that one")
            entries = {path: _entry(entry) for path, entry in content["files"].items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{subject} cannot be read, {error!r}; push the dataset again under another name"
            ) from error
        pinned = {
            path: StoredObject(self.prefix + entry.get("at", path), entry["size"], "", entry["crc32c"])
            for path, entry in entries.items()
        }
        sha256 = {path: entry["sha256"] for path, entry in entries.items() if "sha256" in entry}
        return Version(number, pinned, sha256)

    def proved(self, version: Version) -> Version:
        """Return a version with what the store knows of its objects.

        Raises:
            DataError: If files are missing or changed; lists the first few.
        """
        problems, found = [], dict(version.pinned)
        for path, stored in version.files.items():
            there = self.there.get(stored.key.removeprefix(self.prefix))
            if there is None:
                problems.append(f"{path}: missing")
            elif (there.size_bytes, there.crc32c) != (stored.size_bytes, stored.crc32c):
                problems.append(f"{path}: changed")
            else:
                found[path] = there
        if problems:
            more = [f"... {len(problems) - NUM_SHOWN} more"] if len(problems) > NUM_SHOWN else []
            lock = version_lock(version.number) if version_lock(version.number) in self.there else LOCK
            raise DataError(
                f"dataset {self.name}: differs from its {lock} in {len(problems)} files; push it again, or put them "
                "back",
                [*problems[:NUM_SHOWN], *more],
            )
        return Version(version.number, found, version.sha256)


def list_dataset(store: Store, name: str) -> Listing:
    """List what lies below a dataset's folder, with checksums."""
    prefix = f"datasets/{name}/"
    return Listing(name, {stored.key.removeprefix(prefix): stored for stored in store.list(prefix, checksums=True)})


def _entry(entry: Any) -> dict[str, Any]:  # noqa: ANN401 -- of JSON
    """Return an entry of a lock; the first locks had size and CRC-32C in a list.

    Raises:
        ValueError: If it is none.
    """
    known = {"size": entry[0], "crc32c": entry[1]} if isinstance(entry, list) else dict(entry)
    place = known.get("at")
    if type(known["size"]) is not int or not isinstance(known["crc32c"], str):
        raise ValueError(f"{entry} has no size and CRC-32C")
    if place is not None and place != f"objects/{known['sha256']}":
        raise ValueError(f"{entry} lies where this version of the job does not look")
    return known
