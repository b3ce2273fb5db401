"""Archive: a second bucket, or a folder, in which the account that trains may only create objects.

Guarantees that a finished run's records, final weights and dataset lock are copied below one prefix that no other run
has, and that the same command copies what an interrupted attempt has left. Failure is a warning, as the run is
finished. Knows nothing of training.
"""

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from job.datasets.lockfile import LOCK, lock_key
from job.errors import CorruptObjectError, JobError, PreconditionError
from job.runs.artifacts import PLACES
from job.runs.records import ArchiveRecord, FinalRecord, RunRecord, now
from job.runs.request import TrainRequest
from job.runs.run import Run
from job.storage.checksums import sha256_of
from job.storage.object_store import Store
from job.storage.open_store import open_archive
from job.storage.workdir import attempt_folder

log = logging.getLogger(__name__)

RECORD = "archived.json"


def archive_run(run: Run, record: RunRecord, final: FinalRecord, request: TrainRequest) -> None:
    """Copy a finished run to the archive of a request, if it names one and the run is not there yet."""
    location = request.archive
    if location is None:
        return
    try:
        archived = run.read(ArchiveRecord, RECORD)
        if archived is not None and archived.archive == location:
            return
        prefix = archive_prefix(record)
        _copy(run, _copies(run, record, final), open_archive(location), prefix, request.workdir)
        run.write(RECORD, ArchiveRecord(archived_at=now(), archive=location, prefix=prefix), overwrite=True)
    except JobError as error:
        what = error.message.rpartition("; ")[0] or error.message  # the advice is for the run's own bucket
        log.warning(
            "run %s: is finished and not in the archive, %s; the same command copies it once that is mended "
            "(`make infra-apply` lets the account that trains create objects in %s)",
            *(run.name, what, location),
        )
    else:
        log.info("run %s: copied to the archive, %s/%s", run.name, location.rstrip("/"), prefix)


def archive_prefix(record: RunRecord) -> str:
    """Return the prefix of a run's copies; its time tells runs of one name apart, and ends in ``/``."""
    return f"runs/{record.run}/{re.sub(r'[^0-9T]', '', record.created_at.partition('+')[0])}/"


class _Copy(NamedTuple):
    """An object to copy."""

    name: str
    """Of the copy, below the prefix."""

    key: str
    sha256: str | None = None
    """What its bytes have to have; None takes them as they are."""


def _copies(run: Run, record: RunRecord, final: FinalRecord) -> Iterator[_Copy]:
    """Yield a run's objects; the final record, which has the digests of the others, is the last."""
    if lock := lock_key(run.store, record.dataset.name, record.dataset.digest):
        yield _Copy(LOCK, lock)
    yield _Copy("run.json", run.key("run.json"))
    for name, place in PLACES.items():
        if name in final.weights:
            yield _Copy(place, run.key(place), final.weights[name].sha256)
    yield _Copy("final.json", run.key("final.json"))


def _copy(run: Run, copies: Iterable[_Copy], archive: Store, prefix: str, workdir: Path) -> None:
    with attempt_folder(workdir, run.name) as folder:
        for name, key, sha256 in copies:
            run.store.get(key, folder / "copy")
            if sha256 is not None and sha256_of(folder / "copy") != sha256:
                raise CorruptObjectError(f"{run.store.uri}/{key}: is not the file that the run ended with")
            with contextlib.suppress(PreconditionError):  # an earlier attempt's, since no other run has the prefix
                archive.put(prefix + name, folder / "copy")
