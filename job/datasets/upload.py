"""Upload of the files of a dataset's version: many small labels in shards, all else as objects of their own.

Guarantees that bytes which are in the bucket are not sent again, those of an upload that was cut off included, and that
a file which has changed since it was planned ends the upload. Writes no lock.
"""

import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from job.datasets.layout import is_image, label_of
from job.datasets.lockfile import SHARDS, DatasetListing, same_bytes
from job.errors import DataError
from job.log import Progress
from job.storage.base import open_source
from job.storage.checksums import crc32c, encode_crc32c
from job.storage.object_store import StoredObject
from job.storage.shards import PackedFile, Shard, pack, repack

LABEL_BYTES = 64_000
"""Limit of a label that is packed."""

LEAST_LABELS = 256
"""Fewer labels are sent as objects of their own."""


class Upload:
    """Upload of the missing files of a version, each planned as an object of its own.

    Args:
        listing: What the bucket has.
        files: Object of each file, by path.
        paths: Local path of each.
        before: Files of the newest version; an object that they have lost is stored again as it was, a shard if the
            folder still has all of its files.
    """

    def __init__(
        self,
        listing: DatasetListing,
        files: Mapping[str, StoredObject],
        paths: Mapping[str, Path],
        before: Mapping[str, StoredObject],
    ) -> None:
        self.files = dict(files)
        self.num_sent = self.bytes_sent = self._num_done = 0
        self._listing, self._paths, self._before = listing, paths, before

    def send(self) -> None:
        """Store the files; then `files` has the objects that have their bytes.

        Raises `DataError` if a file has changed, `PreconditionError` if another push was first.
        """
        restored = self._restore_shards()
        listed = self._listing.listed
        missing = [path for path, file in self.files.items() if path not in restored and listed(file) is None]
        num_bytes = sum(self.files[path].size_bytes for path in missing)
        with Progress(f"pushing {self._listing.name}", num_bytes, "B") as progress:
            labels = self._to_pack({path for path in missing if self.files[path] != self._before.get(path)})
            for shard in pack(labels, self._read, self._listing.prefix + SHARDS):
                self._store(shard)
                self._advance(progress, sum(file.size_bytes for file in shard.files.values()))
            self._send_alone({self.files[path].key: path for path in missing if path not in labels}, progress)

    def _restore_shards(self) -> set[str]:
        """Store the shards again that the newest version has lost, as far as they can be made; return their files."""
        lost: dict[str, dict[str, PackedFile]] = {}
        for path, known in self._before.items():
            if not isinstance(known, PackedFile) or self._listing.listed(known):
                continue
            if path in self.files and same_bytes(self.files[path], known):
                lost.setdefault(known.key, {})[path] = known
        restored = set[str]()
        for files in lost.values():
            if shard := repack(files, self._read):
                self._store(shard)
                restored |= files.keys()
        return restored

    def _to_pack(self, paths: Collection[str]) -> set[str]:
        """Return the small labels of images among the paths, if they are many."""
        labels = {label for label in map(label_of, filter(is_image, self.files)) if label in paths}
        small = {label for label in labels if self.files[label].size_bytes <= LABEL_BYTES}
        return small if len(small) >= LEAST_LABELS else set()

    def _store(self, shard: Shard) -> None:
        store = self._listing.store
        if self._listing.listed(shard.stored) is None:
            if shard.stored.key in self._listing.there:  # damaged: its name is the digest of its bytes
                store.delete(shard.stored.key)
            store.put(shard.stored.key, shard.data)
            self.num_sent, self.bytes_sent = self.num_sent + len(shard.files), self.bytes_sent + len(shard.data)
        self.files |= shard.files

    def _send_alone(self, alone: Mapping[str, str], progress: Progress) -> None:
        """Store files, given by key, as objects of their own."""
        store, lock = self._listing.store, threading.Lock()

        def on_done(stored: StoredObject) -> None:
            self._require_same(alone[stored.key], stored)
            with lock:
                self.num_sent, self.bytes_sent = self.num_sent + 1, self.bytes_sent + stored.size_bytes
                self._advance(progress, stored.size_bytes)

        for key in alone:  # differs: written by an interrupted push, and in no lock
            if key in self._listing.there:
                store.delete(key)
        store.put_many([(self._paths[path], key) for key, path in alone.items()], on_done)

    def _advance(self, progress: Progress, num_bytes: int) -> None:
        self._num_done += num_bytes
        progress.to(self._num_done)

    def _read(self, path: str) -> bytes:
        """Return the bytes of a file as it was planned."""
        with open_source(self._paths[path]) as opened:
            data = opened.read(self.files[path].size_bytes + 1)
        self._require_same(path, StoredObject("", len(data), "", encode_crc32c(crc32c(data))))
        return data

    def _require_same(self, path: str, found: StoredObject) -> None:
        if not same_bytes(found, self.files[path]):
            raise DataError(f"{self._paths[path]}: was changed while it was pushed; push again")
