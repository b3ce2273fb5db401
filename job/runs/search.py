"""Run search: the run of a request among the folders below ``runs/``: begun, submitted, or new.

Guarantees that a new run never takes the name of a folder with files of another request, and that foreign folders are
passed over. Knows nothing of training.
"""

import json
import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from job.errors import CorruptObjectError, ObjectNotFoundError, RunConflictError
from job.runs.listing import NUM_THREADS, RunListing
from job.runs.records import Request, RunRecord, differences
from job.runs.request import command_for
from job.runs.run import SUBMISSIONS, Run, default_families, family_of, is_run_name, next_free_name
from job.storage.object_store import Store, StoredObject
from job.text import shortened

log = logging.getLogger(__name__)

NUM_SHOWN = 10


def find_run(store: Store, name: str | None, request: Request) -> tuple[Run, RunRecord | None]:
    """Return the run of a request, and its record if it exists.

    Without a name it is the newest run of `default_families` with an equal request, begun or only submitted, or else a
    new one.

    Raises:
        RunConflictError: If the named run has another request, with every difference; or foreign files have its name.
    """
    if name is not None:
        run = Run(store, name)
        record = run.record() or _taken_by(run, request)
        if record is not None and (different := differences(record.request, request)):
            raise RunConflictError(
                f"run {name}: was started with other values; repeat those to continue it, or choose another --run",
                different,
            )
        return run, record
    families = default_families(request["dataset"])
    seen = survey(store, families)
    seen.log_strays()
    for found in reversed(seen.runs):
        if found.record.request == request:
            return found.run, found.record
    for run in reversed(seen.submitted):
        if submitted_request(run) == request:
            return run, None
    return Run(store, next_free_name(families[0], seen.names)), None


def submitted_request(run: Run) -> Request | None:
    """Return the request of a run's first submission to the cloud, if it can be read."""
    try:
        submission = json.loads(run.store.read(run.key(f"{SUBMISSIONS}0001.json")))
        return submission["request"] if submission["run"] == run.name else None
    except (ObjectNotFoundError, LookupError, RecursionError, TypeError, ValueError):
        return None


def _taken_by(run: Run, request: Request) -> RunRecord | None:
    """Return the record that another machine has just written, or None if only this request has the name."""
    start = run.key("")
    names = [stored.key.removeprefix(start) for stored in run.store.list(start)]
    if (record := run.record()) is not None or not names:
        return record
    if strange := [name for name in names if not name.startswith(SUBMISSIONS)]:
        raise RunConflictError(
            f"run {run.name}: {run.store.uri}/{start} has files that no run has put there, which would be overwritten; "
            "choose another --run, or move them away",
            shortened(strange, NUM_SHOWN),
        )
    if different := differences(submitted_request(run) or {}, request):
        raise RunConflictError(
            f"run {run.name}: was submitted with other values; repeat those, or choose another --run", different
        )
    return None


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run, by a list of the bucket and its record."""

    listing: RunListing
    record: RunRecord

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.listing.run

    @property
    def finished(self) -> bool:
        """Whether it has its final record."""
        return "final.json" in self.listing.objects


@dataclass(frozen=True, slots=True)
class Survey:
    """Runs, runs that are submitted only, other folders and why each is no run, and all names; in order of numbers."""

    runs: list[FoundRun]
    submitted: list[Run]
    strays: dict[str, str]
    names: list[str]

    def log_strays(self) -> None:
        """Log what is passed over."""
        for name, why in self.strays.items():
            log.info("runs/%s: %s; passed over", name, why)


def survey(store: Store, families: Collection[str] = ()) -> Survey:
    """Return all runs, or those of some families, and the foreign folders among them, which are no error."""
    folders: dict[str, list[StoredObject]] = {}
    for stored in store.list("runs/"):
        name, slash, _ = stored.key.removeprefix("runs/").partition("/")
        if slash:
            folders.setdefault(name, []).append(stored)
    seen = Survey([], [], {}, list(folders))
    listings = []
    for name in sorted(folders, key=lambda name: (family_of(name), len(name), name)):
        if families and family_of(name) not in families:
            continue
        if is_run_name(name):
            listings.append(RunListing(Run(store, name), folders[name]))
        else:
            seen.strays[name if name.isprintable() else ascii(name)] = "is not a run, no run can be called so"
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for listing, found in zip(listings, threads.map(_recognise, listings), strict=True):
            if isinstance(found, str):
                seen.strays[listing.run.name] = found
            elif found is None:
                seen.submitted.append(listing.run)
            else:
                seen.runs.append(FoundRun(listing, found))
    return seen


def _recognise(listing: RunListing) -> RunRecord | str | None:
    """Return the record of a run, None if it is submitted only, or why the folder is no run."""
    if "run.json" in listing.objects:
        try:
            return listing.record() or "is not a run, but a copy of another one"
        except CorruptObjectError as error:
            return f"is not a run that this version can read, {error}"
    submitted_only = all(name.startswith(SUBMISSIONS) for name in listing.objects)
    return None if submitted_only else "is not a run, it has no run.json"


def warn_of_unfinished(store: Store, run: Run, request: Request, verb: str) -> None:
    """Log the name of a new, unnamed run; warn of an unfinished one with the differences and the commands for both."""
    log.info("run %s: is new, named after dataset %s; --run gives another name", run.name, request["dataset"])
    seen = survey(store, default_families(request["dataset"]))
    unfinished = [found for found in reversed(seen.runs) if not found.finished]
    if not unfinished:
        return
    nearest = min(unfinished, key=lambda found: len(differences(found.record.request, request)))
    lines = [
        f"run {nearest.run.name}: is not finished, and was started with other values; run {run.name} begins beside it",
        *(f"  - {line}" for line in differences(nearest.record.request, request)),
        f"  to resume {nearest.run.name}: {command_for(verb, nearest.record.request, nearest.run.name)}",
        f"  to train {run.name}: {command_for(verb, request, run.name)}",
    ]
    log.warning("%s", "\n".join(lines))
