"""``job weights``: digest."""

import os
import tempfile
from pathlib import Path

from job.cli.options import bucket_location, require_store
from job.errors import ObjectNotFoundError, UsageError, WeightsError
from job.storage.open_store import open_store


def print_digest(file: str, bucket: str | None) -> None:
    """Print the digest of a model's tensors.

    Raises:
        WeightsError: If there is no such file or it cannot be loaded safely.
    """
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("YOLO_CONFIG_DIR", scratch)
        path = _fetch(file, bucket, Path(scratch))
        from job.training.isolation import isolate_ultralytics

        isolate_ultralytics(Path(scratch) / "ultralytics")
        from job.training.weights import digest_file

        print(digest_file(path))


def _fetch(file: str, bucket: str | None, scratch: Path) -> Path:
    if Path(file).is_file():
        return Path(file)
    if file.startswith("gs://"):
        parent, _, key = file.rpartition("/")
        store = open_store(parent)
    elif bucket_location(bucket):
        store, key = require_store(bucket), file
    else:
        raise WeightsError(f"{file}: no such file here; pass a file, a gs:// address, or --bucket with a path in it")
    target = scratch / Path(key).name
    try:
        store.get(key, target)
    except (ObjectNotFoundError, UsageError) as error:
        raise WeightsError(f"{file}: no such file here and no such object in {store.uri}") from error
    return target
