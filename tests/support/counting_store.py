"""Store that counts its requests."""

from collections import Counter

from job.storage.local import FolderStore


class CountingStore(FolderStore):
    """A bucket in a folder; `requests` counts by operation and key, or prefix."""

    def __init__(self, root):
        super().__init__(root)
        self.requests = Counter()

    @property
    def num_requests(self):
        """How many there were."""
        return self.requests.total()

    def read(self, key, *limit):
        self.requests["read", key] += 1
        return super().read(key, *limit)

    def list(self, prefix="", *, checksums=False):
        self.requests["list", prefix] += 1
        return super().list(prefix, checksums=checksums)

    def folders(self, prefix):
        self.requests["folders", prefix] += 1
        return super().folders(prefix)

    def put(self, key, source, *, overwrite=False):
        self.requests["put", key] += 1
        return super().put(key, source, overwrite=overwrite)
