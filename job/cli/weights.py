"""``job weights``: digest of a model's tensors, and push of a file."""

import tempfile
import zipfile
from pathlib import Path

from pydantic import Field

from job.cli.command import command
from job.cli.options import BucketOption
from job.errors import ObjectNotFoundError, PreconditionError, UsageError, WeightsError
from job.runs.import_run import check_weights_name
from job.storage.open_store import open_store
from job.storage.paths import expanded, is_file


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


class PushWeightsOptions(BucketOption):
    """Flags of ``job weights push``."""

    positional = ("file",)

    file: str = Field(description="A file of weights here, such as best.pt.")
    name: str | None = Field(None, description="Its name in the bucket, below weights/; the file's own if left out.")


@command(PushWeightsOptions, "job weights push zebra.pt --bucket gs://my-bucket")
def push(options: PushWeightsOptions) -> None:
    """Push a file of weights, so that any machine can start from it.

    The file is not opened as a model: a training that starts from it checks it.
    """
    file, store = expanded(options.file), options.store()
    if not is_file(file):
        raise WeightsError(f"{file}: is no file that is there; pass a .pt file that Ultralytics has written")
    if not zipfile.is_zipfile(file):
        raise WeightsError(f"{file}: is no file of weights; pass a .pt file that Ultralytics has written")
    key = f"weights/{check_weights_name(options.name or file.name)}"
    try:
        store.put(key, file)
    except PreconditionError as error:
        raise WeightsError(f"{key}: other weights are there; pass --name with another name") from error
    print(f"{key}: pushed; start from it with --weights {key}")


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
