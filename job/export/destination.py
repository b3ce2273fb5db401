"""Destination of an export.

Guarantees that a folder is made when the first file is written, and that the record comes last: files without one are
of an export that was cut off, and the same command completes it.
"""

from pathlib import Path

from job.errors import ObjectNotFoundError, PreconditionError, RunConflictError
from job.export.records import RECORD, ExportRecord, ExportRequest
from job.storage.local import FolderStore
from job.storage.object_store import Store
from job.storage.open_store import open_store
from job.storage.paths import expanded


class Destination:
    """A store, and what the keys of an export begin with."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        self._store, self._prefix, self._new_folder = store, prefix, ""

    @classmethod
    def at(cls, location: str) -> "Destination":
        """Return the destination at a folder, which need not exist, or at ``gs://BUCKET/PREFIX``."""
        folder = expanded(location)
        try:
            is_new = "://" not in location and not folder.exists()
        except OSError:  # of a path that cannot be: opening it says why
            is_new = False
        if not is_new:
            return cls(open_store(location))
        destination = cls(FolderStore(folder.absolute()))
        destination._new_folder = location
        return destination

    @property
    def uri(self) -> str:
        """The destination as text."""
        return f"{self._store.uri}/{self._prefix}".rstrip("/")

    def read(self, request: ExportRequest) -> ExportRecord | None:
        """Return the export that is there, if there is one.

        Raises:
            RunConflictError: If it is another one.
        """
        if self._new_folder:
            return None
        try:
            data = self._store.read(f"{self._prefix}{RECORD}")
        except ObjectNotFoundError:
            return None
        found = ExportRecord.read(f"{self.uri}/{RECORD}", data)
        found.require_equal(request, self.uri)
        return found

    def write(self, folder: Path, record: ExportRecord) -> None:
        """Write the files of an export from a folder, and its record at last.

        Raises:
            RunConflictError: If other files have these names.
        """
        if self._new_folder:
            self._store, self._new_folder = FolderStore.create(self._new_folder), ""
        try:
            for name in record.files:
                self._store.put(f"{self._prefix}{name}", folder / name)
            self._store.put(f"{self._prefix}{RECORD}", record.to_json())
        except PreconditionError as error:
            raise RunConflictError(f"{self.uri}: has other files of these names; choose another --out") from error
