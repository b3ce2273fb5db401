"""Open a store by the scheme of its location; a new kind of store, such as S3, is registered here."""

from job.errors import MachineError, UsageError
from job.storage.local import FolderStore
from job.storage.object_store import Store


def open_store(location: str, *, readable: bool = True) -> Store:
    """Open ``gs://bucket[/prefix]`` or a folder; a bucket that is not `readable` is not looked at.

    Raises:
        UsageError: If the location is neither.
        StoreError: If the folder or bucket does not exist or cannot be read.
        MachineError: If the libraries for a bucket are not installed.
    """
    if location.startswith("gs://"):
        try:
            from job.storage.gcs import GcsStore  # noqa: PLC0415 -- a folder needs no cloud library
        except ImportError as error:
            raise MachineError(
                f"bucket {location}: the package {error.name} is missing; install google-cloud-storage and obstore"
            ) from error
        return GcsStore.open(location, readable=readable)
    if "://" in location:
        raise UsageError(f"bucket {location}: is neither gs://BUCKET nor a folder; correct --bucket")
    return FolderStore.open(location)


def open_output(location: str) -> Store:
    """Open a place for results as `open_store` does; a folder is made if there is none."""
    return open_store(location) if "://" in location else FolderStore.create(location)


def open_archive(location: str) -> Store:
    """Open a place in which this account may only create objects; a folder is made if there is none."""
    return open_store(location, readable=False) if "://" in location else FolderStore.create(location)
