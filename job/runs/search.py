"""Run search: the run of a request among the folders below ``runs/``: begun, submitted, or new.

Guarantees that a new run never takes the name of a folder with files of another request, and that foreign folders are
passed over. Knows nothing of training.
"""

import json
import logging
import shlex
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from job.errors import CorruptObjectError, ObjectNotFoundError, RunConflictError
from job.runs.listing import NUM_THREADS, RunListing, list_briefly
from job.runs.records import Request, RunRecord, differences
from job.runs.request import command_for
from job.runs.run import SUBMISSIONS, Run, default_families, family_of, is_run_name, next_free_name
from job.storage.object_store import Store
from job.text import as_found, dataset_and_version, shortened

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
            advice = "repeat those to continue it, or choose another --run"
            if (longer := _extension_of(run, record.request, request)) and run.final() is not None:
                advice = f"it is finished; `{longer}` trains it for longer, or choose another --run"
            raise RunConflictError(f"run {name}: was started with other values; {advice}", different)
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


def _extension_of(run: Run, existing: Request, asked: Request) -> str | None:
    """Return the command that extends a run, if it differs from a request by fewer epochs alone."""
    epochs = asked["train"]["epochs"]
    longer: Request = {**existing, "train": existing["train"] | {"epochs": epochs}}
    if longer != asked or epochs <= existing["train"]["epochs"]:
        return None
    return shlex.join(["job", "extend", run.name, "--epochs", str(epochs), "--bucket", run.store.uri])


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
    """A run, by its listing and its record."""

    listing: RunListing
    record: RunRecord

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.listing.run

    @property
    def finished(self) -> bool:
        """Whether it has its final record."""
        return "final.json" in self.listing.names


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


def survey(store: Store, families: Collection[str] = (), *, list_ended: bool = False) -> Survey:
    """Return all runs, or those of some families, and the foreign folders among them, which are no error.

    An ended run is read from its bundle, and listed only if `list_ended`: where something irreversible depends on it.
    """
    names = [*store.folders("runs/")]
    chosen = sorted(
        (name for name in names if not families or family_of(name) in families),
        key=lambda name: (family_of(name), len(name), name),
    )
    seen = Survey([], [], {}, names)
    recognise = partial(_recognise, store, list_ended=list_ended)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for name, found in zip(chosen, threads.map(recognise, chosen), strict=True):
            if isinstance(found, str):
                seen.strays[name if name.isprintable() else ascii(name)] = found
            elif isinstance(found, Run):
                seen.submitted.append(found)
            elif found is None:
                names.remove(name)
            else:
                seen.runs.append(found)
    return seen


def _recognise(store: Store, name: str, *, list_ended: bool) -> FoundRun | Run | str | None:
    """Return a run, a run that is submitted only, why a folder is no run, or None for an empty folder."""
    if not is_run_name(name):
        return "is not a run, no run can be called so"
    run = Run(store, name)
    listing = RunListing(run) if list_ended else list_briefly(run)
    if "run.json" in listing.names:
        try:
            record = listing.record()
        except CorruptObjectError as error:
            return f"is not a run that this version can read, {error}"
        return FoundRun(listing, record) if record else "is not a run, but a copy of another one"
    if not listing.names:
        return None
    submitted_only = all(each.startswith(SUBMISSIONS) for each in listing.names)
    return run if submitted_only else "is not a run, it has no run.json"


def warn_of_unfinished(store: Store, run: Run, request: Request, verb: str) -> None:
    """Log the name of a new, unnamed run; warn of an unfinished one on its dataset, with the differences and commands.

    Of a finished run with fewer epochs and no other difference, log the command that extends it.
    """
    log.info("run %s: is new, named after dataset %s; --run gives another name", run.name, request["dataset"])
    seen = survey(store, default_families(request["dataset"]))
    for found in reversed(seen.runs):
        if found.finished and (longer := _extension_of(found.run, found.record.request, request)):
            ended = f"run {found.run.name}: is finished, with fewer epochs; to train it for longer instead:"
            log.info("%s\n  %s", ended, as_found(longer))
            break
    dataset = _dataset_of(request)
    unfinished = [
        found for found in reversed(seen.runs) if not found.finished and _dataset_of(found.record.request) == dataset
    ]
    if not unfinished:
        return
    nearest = min(unfinished, key=lambda found: len(differences(found.record.request, request)))
    lines = [
        f"run {nearest.run.name}: is not finished, and was started with other values; run {run.name} begins beside it",
        *(f"  - {line}" for line in differences(nearest.record.request, request)),
        f"  to resume {nearest.run.name}:",
        f"    {command_for(verb, nearest.record.request, nearest.run.name, store.uri)}",
        f"  to train {run.name}:",
        f"    {command_for(verb, request, run.name, store.uri)}",
    ]
    log.warning("%s", "\n".join(lines))


def _dataset_of(request: Request) -> str:
    """Return the name of a request's dataset, without its version."""
    return dataset_and_version(str(request["dataset"]))[0]
