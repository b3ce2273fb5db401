"""Versions of datasets: listed, and deleted.

Guarantees that a deletion frees only what no other version holds, leaves the other versions whole wherever it is cut
off, and is repeated by the same call. Knows nothing of runs.
"""

from dataclasses import dataclass

from job.datasets.decoded_images import DecodedImages
from job.datasets.lockfile import (
    DELETED,
    INTERNAL,
    LOCK,
    DatasetListing,
    DatasetLock,
    DatasetVersion,
    count_changes,
    is_dataset_file,
    list_dataset,
)
from job.errors import DataError
from job.storage.keys import is_key
from job.storage.object_store import Store, StoredObject
from job.text import dataset_and_version


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version of a dataset in a list."""

    name: str
    number: int
    """1 for a folder that was copied in by hand."""

    num_files: int
    size_bytes: int
    own_bytes: int
    """Bytes that no other version has: deleting this one frees them."""

    changes: str
    """Differences from the version before, counted; empty for the first one."""

    digests: frozenset[str]
    """Digests by which runs may have recorded it."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A planned deletion of one version of a dataset, or of all; nothing is deleted before `carry_out`."""

    listing: DatasetListing
    numbers: tuple[int, ...]
    """The versions, those of an earlier deletion that was cut off included."""

    digests: frozenset[str]
    """Digests by which runs may have recorded them."""

    def carry_out(self, *, force: bool = False) -> tuple[int, int]:
        """Delete the versions, and return number and bytes of the objects that this frees.

        Marks them first, and deletes their locks last. Raises `DataError` if a push has begun, unless forced.
        """
        store, name, prefix = self.listing.store, self.listing.name, self.listing.prefix
        if not force:
            _require_no_push(self.listing)
        if not self.listing.locked:  # as if it had been pushed, so that a deletion that is cut off is known as one
            lock = DatasetLock.make(1, self.listing.newest.pinned, {}, prefix)
            store.put(prefix + LOCK, lock.to_json())
        marks = [f"{prefix}versions/{number:04d}.deleted" for number in self.numbers]
        for mark in marks:
            store.put(mark, b"{}\n")
        listing = list_dataset(store, name)
        if listing.begun and not force:
            for mark in marks:
                store.delete(mark)
            _require_no_push(listing)
        freed = _freed(listing)
        for stored in freed:
            store.delete(stored.key)
        if not listing.numbers:
            DecodedImages(store, name).forget()
        for number in sorted(listing.locked & listing.deleted):
            store.delete(prefix + listing.lock_name(number))
        for mark in listing.begun:
            store.delete(mark)
        return len(freed), sum(stored.size_bytes for stored in freed)


def _require_no_push(listing: DatasetListing) -> None:
    if listing.begun:
        advice = "push again, then delete, or pass --force if none is running"
        raise DataError(f"dataset {listing.name}: a push has begun and not ended; {advice}")


def dataset_names(store: Store) -> list[str]:
    """Return the names of the datasets in a bucket; of one that was deleted, marks alone are left."""
    return [name for name in store.folders("datasets/") if is_key(name) and _is_there(store, f"datasets/{name}/")]


def _is_there(store: Store, prefix: str) -> bool:
    """Whether anything but marks of deletions is left of a dataset; the files of one that was pushed are not listed."""
    return any(
        not DELETED.fullmatch(stored.key.removeprefix(prefix))
        for below in ("versions/", LOCK, "")
        for stored in store.list(prefix + below)
    )


def newer_version(store: Store, name: str, digest: str) -> int | None:
    """Return the number of a dataset's newest version, unless that has this digest, or there is no lock."""
    listing = list_dataset(store, name, "versions/")
    if not listing.numbers or digest in listing.newest.digests:
        return None
    return listing.numbers[0]


def list_versions(store: Store, name: str) -> list[VersionSummary]:
    """Return the versions of a dataset, oldest first; none of one whose first push was cut off."""
    listing = list_dataset(store, name)
    versions = [listing.read(number) for number in reversed(listing.numbers)]
    versions = versions or ([] if listing.is_incomplete else [listing.newest])
    return [_summary(listing, versions, position) for position in range(len(versions))]


def plan_deletion(store: Store, reference: str) -> Deletion:
    """Plan the deletion of a dataset, ``wildlife``, or of one version, ``wildlife@2``.

    Raises `DataError` if it does not exist.
    """
    name, number = dataset_and_version(reference)
    listing = list_dataset(store, name)
    cut_off = listing.locked & listing.deleted
    if number is None:
        chosen = listing.locked or {1}
    elif number in cut_off:
        chosen = cut_off
    else:
        listing.version(number)
        chosen = {number} | cut_off
    digests = [(listing.read(each) if each in listing.locked else listing.newest).digests for each in chosen]
    return Deletion(listing, tuple(sorted(chosen)), frozenset().union(*digests))


def _summary(listing: DatasetListing, versions: list[DatasetVersion], position: int) -> VersionSummary:
    version = versions[position]
    others = {stored.key for other in versions if other is not version for stored in other.files.values()}
    own = {stored.key for stored in version.files.values()} - others
    return VersionSummary(
        name=listing.name,
        number=version.number or 1,
        num_files=len(version.files),
        size_bytes=sum(stored.size_bytes for stored in version.files.values()),
        own_bytes=sum(listing.there[key].size_bytes for key in own & listing.there.keys()),
        changes=count_changes(versions[position - 1].files, version.files) if position else "",
        digests=version.digests,
    )


def _freed(listing: DatasetListing) -> list[StoredObject]:
    """Return the objects that no remaining version holds: those of deleted versions, and what cut pushes have left.

    While versions remain, a file that is in none of them is the user's own; without any, all files go.
    """
    kept = {stored.key for number in listing.numbers for stored in listing.read(number).pinned.values()}
    gone = {
        stored.key for number in listing.locked & listing.deleted for stored in listing.read(number).pinned.values()
    }

    def is_free(key: str) -> bool:
        name = key.removeprefix(listing.prefix)
        bytes_alone = INTERNAL.fullmatch(name) and not name.startswith("versions/")
        return key in gone or bool(bytes_alone) or (not listing.numbers and is_dataset_file(name))

    return [stored for key, stored in listing.there.items() if key not in kept and is_free(key)]
