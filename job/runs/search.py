"""Which run a request means, among all that lies below ``runs/``: one that was begun or submitted, or a new one.

Guarantees that a new run never takes a name under which anything lies that is not of the very same request, and that
no folder that is not a run stops anything. Knows nothing of what is trained.
"""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from job.errors import CorruptObjectError, RunConflictError
from job.runs.records import RunRecord, differences
from job.runs.run import SUBMISSIONS, Run, default_families, family_of, is_run_name, next_free_name
from job.storage.object_store import Store

log = logging.getLogger(__name__)

NUM_SHOWN = 10


def find_run(store: Store, name: str | None, request: Mapping[str, Any]) -> tuple[Run, RunRecord | None]:
    """Return the run that a request means, and its record if it exists.

    Args:
        store: The bucket.
        name: The run's name. Without one it is the newest run of `default_families` that was asked for in the same way,
            begun or only submitted, or else a new one.
        request: What is asked for.

    Raises:
        RunConflictError: If the named run was asked for differently, which lists every difference, or if files that are
            no run's lie under its name.
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
    seen.tell()
    for found in reversed(seen.runs):
        if found.record.request == request:
            return found.run, found.record
    for submitted in reversed(seen.submitted):
        if submitted.submitted() == request:
            return submitted, None
    return Run(store, next_free_name(families[0], seen.names)), None


def _taken_by(run: Run, request: Mapping[str, Any]) -> RunRecord | None:
    """Return the record that another machine has just written, or nothing if the run may be started under its name.

    Raises:
        RunConflictError: If there is anything under that name but a submission of the same request.
    """
    start = run.key("")
    names = [stored.key.removeprefix(start) for stored in run.store.list(start)]
    if (record := run.record()) is not None or not names:
        return record
    where = f"{run.store.uri}/{start}"
    if strange := [name for name in names if not name.startswith(SUBMISSIONS)]:
        more = [f"... {len(strange) - NUM_SHOWN} more"] if len(strange) > NUM_SHOWN else []
        raise RunConflictError(
            f"run {run.name}: {where} has files that no run has put there, which would be overwritten; choose another "
            "--run, or move them away",
            [*strange[:NUM_SHOWN], *more],
        )
    if different := differences(run.submitted() or {}, request):
        raise RunConflictError(
            f"run {run.name}: was submitted with other values; repeat those, or choose another --run", different
        )
    return None


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run, as far as a list of the bucket and its record tell."""

    run: Run
    record: RunRecord
    finished: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies below ``runs/``, oldest number first within a family."""

    runs: list[FoundRun]
    submitted: list[Run]
    """Those that have not begun."""

    strays: dict[str, str]
    """Other folders, and why each is no run."""

    names: list[str]
    """Of all folders: what is taken."""

    def tell(self) -> None:
        """Say what is passed over."""
        for name, why in self.strays.items():
            log.info("runs/%s: %s; passed over", name, why)


def survey(store: Store, families: Collection[str] = ()) -> Survey:
    """Return all runs, or those of some families, and what else lies among them; nothing of that is an error."""
    folders: dict[str, set[str]] = {}
    for stored in store.list("runs/"):
        name, slash, rest = stored.key.removeprefix("runs/").partition("/")
        if slash:
            folders.setdefault(name, set()).add(rest)
    seen = Survey([], [], {}, list(folders))
    for name in sorted(folders, key=lambda name: (family_of(name), len(name), name)):
        if not families or family_of(name) in families:
            _look_at(Run(store, name) if is_run_name(name) else None, name, folders[name], seen)
    return seen


def _look_at(run: Run | None, name: str, inside: set[str], seen: Survey) -> None:
    """Note what a folder is."""
    if run is None:
        shown = name if name.isprintable() else ascii(name)
        seen.strays[shown] = "is not a run, no run can be called so"
    elif "run.json" in inside:
        try:
            record = run.record()
        except CorruptObjectError as error:
            seen.strays[name] = f"is not a run that this version can read, {error}"
        else:
            if record is None:
                seen.strays[name] = "is not a run, but a copy of another one"
            else:
                seen.runs.append(FoundRun(run, record, "final.json" in inside))
    elif all(each.startswith(SUBMISSIONS) for each in inside):
        seen.submitted.append(run)
    else:
        seen.strays[name] = "is not a run, it has no run.json"


def list_runs(store: Store) -> list[str]:
    """Return the names of all runs, oldest number first within a family."""
    names = [
        match[1] for stored in store.list("runs/") if (match := re.fullmatch(r"runs/([^/]+)/run\.json", stored.key))
    ]
    return sorted(filter(is_run_name, names), key=lambda name: (family_of(name), len(name), name))
