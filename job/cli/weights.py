"""``job weights``: digest of a model's tensors."""

import tempfile
from pathlib import Path

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption
from job.errors import ObjectNotFoundError, UsageError, WeightsError
from job.storage.open_store import open_store
from job.storage.paths import is_file


class DigestOptions(BucketOption):
    """Flags of ``job weights digest``."""

    positional = ("file",)

    file: str = Field(
        description="A file here, a gs:// address, or a path in the bucket such as runs/NAME/weights/best.pt."
    )


@command(DigestOptions, "job weights digest runs/zebra/weights/best.pt --bucket gs://my-bucket")
def digest(options: DigestOptions) -> None:
    """Print the digest of a model's tensors.

    Equal weights have equal digests, also in files that differ otherwise.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = _fetch(options, Path(scratch))
        from job.training.isolation import isolate_ultralytics

        isolate_ultralytics(Path(scratch) / "ultralytics")
        from job.training.weights import digest_file

        print(digest_file(path))


def _fetch(options: DigestOptions, scratch: Path) -> Path:
    file = options.file
    if is_file(file):
        return Path(file)
    parent, key = options.location, file
    if file.startswith("gs://"):
        parent, _, key = file.rpartition("/")
    if not parent:
        raise WeightsError(f"{file}: no such file here; pass a file, a gs:// address, or --bucket with a path in it")
    store, target = open_store(parent), scratch / Path(key).name
    try:
        store.get(key, target)
    except (ObjectNotFoundError, UsageError) as error:
        raise WeightsError(f"{file}: no such file here and no such object in {store.uri}") from error
    return target
