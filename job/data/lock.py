"""What a dataset consists of, pinned: a digest over names, sizes and checksums.

Guarantees that two datasets with the same digest have the same files. ``dataset.lock.json`` is written last when a
dataset is pushed, so that a push that was cut is noticed.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from job.errors import DataError
from job.store import StoredObject

LOCK = "dataset.lock.json"

NUM_SHOWN = 5


def is_dataset_file(name: str) -> bool:
    """Whether a name below a dataset's folder belongs to it: not the lock, not hidden, not a cache of Ultralytics."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name != LOCK and not name.endswith((".cache", ".part")) and not hidden


def dataset_files(objects: Sequence[StoredObject], prefix: str) -> list[StoredObject]:
    """Return the objects that are the dataset itself."""
    return [stored for stored in objects if is_dataset_file(stored.key.removeprefix(prefix))]


def dataset_digest(files: Sequence[StoredObject], prefix: str) -> str:
    """Return the SHA-256 over name, size and CRC-32C of every file, in the order of their names."""
    digest = hashlib.sha256()
    for stored in sorted(files, key=lambda stored: stored.key):
        digest.update(f"{stored.key.removeprefix(prefix)}\t{stored.size_bytes}\t{stored.crc32c}\n".encode())
    return digest.hexdigest()


def split_digest(files: Sequence[StoredObject], prefix: str, split: Sequence[str], class_names: Sequence[str]) -> str:
    """Return the SHA-256 over what decides a measurement on a split: its images and labels, and the classes.

    Args:
        files: The dataset's files.
        prefix: What their keys begin with.
        split: Names of the split's images and labels; one that is not among the files counts as absent.
        class_names: In the order of their numbers.
    """
    used = set(split)
    digest = hashlib.sha256(json.dumps(list(class_names)).encode())
    of_split = [stored for stored in files if stored.key.removeprefix(prefix) in used]
    digest.update(dataset_digest(of_split, prefix).encode())
    return digest.hexdigest()


def make_lock(files: Sequence[StoredObject], prefix: str) -> bytes:
    """Return the content of a lock for these files."""
    content: dict[str, Any] = {
        "schema": 1,
        "digest": dataset_digest(files, prefix),
        "files": {stored.key.removeprefix(prefix): [stored.size_bytes, stored.crc32c] for stored in files},
    }
    return (json.dumps(content, indent=0) + "\n").encode()


def require_locked(lock: bytes, files: Sequence[StoredObject], prefix: str, subject: str) -> None:
    """Check that a dataset is what its lock says.

    Raises:
        DataError: If files are missing, changed or new; lists the first few.
    """
    try:
        locked: dict[str, list[Any]] = json.loads(lock)["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{subject}: its {LOCK} cannot be read, {error}; push the dataset again") from error
    there = {stored.key.removeprefix(prefix): [stored.size_bytes, stored.crc32c] for stored in files}
    problems = [f"{name}: missing" for name in locked if name not in there]
    problems += [f"{name}: changed" for name in locked if name in there and there[name] != locked[name]]
    problems += [f"{name}: not in the lock" for name in there if name not in locked]
    if problems:
        more = [f"... {len(problems) - NUM_SHOWN} more"] if len(problems) > NUM_SHOWN else []
        raise DataError(
            f"{subject}: differs from its {LOCK} in {len(problems)} files; push it again, or delete the lock if the "
            "change is meant",
            [*problems[:NUM_SHOWN], *more],
        )
