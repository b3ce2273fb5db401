"""Dataset locks as earlier versions of the job wrote them."""

import json

from job.datasets.lockfile import dataset_digest


def first_lock(files):
    """Return a lock of schema 1, ``dataset.lock.json``: size and CRC-32C of each file, in a list."""
    listed = {path: [stored.size_bytes, stored.crc32c] for path, stored in files.items()}
    return (json.dumps({"schema": 1, "digest": dataset_digest(files), "files": listed}, indent=0) + "\n").encode()
