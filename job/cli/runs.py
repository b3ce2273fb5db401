"""``job runs``: list, show, verify."""

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job.analysis.metrics import BeforeAfter
from job.cli.command import command
from job.cli.options import BucketOption, JsonOption, RunOptions
from job.errors import CorruptObjectError, RunConflictError
from job.goodput import Phase
from job.recipes.recognition import shown_recipe
from job.runs import checkpoint, offline_logs
from job.runs.accounting import make_bill, read_bill
from job.runs.records import RunRecord, now
from job.runs.run import Run, readable
from job.runs.search import list_runs, survey
from job.storage.object_store import Store
from job.text import duration, labelled, nearest, table

log = logging.getLogger(__name__)


class ShowRunOptions(RunOptions, JsonOption):
    """Flags of ``job runs show``."""


@command(BucketOption, "job runs list --bucket gs://my-bucket")
def list_(options: BucketOption) -> None:
    """Print one line for each run."""
    store = options.store()
    rows: list[tuple[str, ...]] = [("run", "recipe", "profile", "state", "F1 before", "after")]
    seen = survey(store)
    for found in seen.runs:
        try:
            rows.append(_row(found.run, found.record))
        except CorruptObjectError as error:
            log.warning("%s", error)
            rows.append((found.run.name, "", "", "cannot be read", "", ""))
    rows += [(run.name, "", "", "submitted, not begun", "", "") for run in seen.submitted]
    if len(rows) == 1:
        print(f"no runs in {store.uri}")
    else:
        print("\n".join(table(rows)))
    for name, why in seen.strays.items():
        print(f"runs/{name}: {why}")


def _row(run: Run, record: RunRecord) -> tuple[str, ...]:
    with readable(run.name):
        final = run.final()
        f1 = [f"{final['comparison'][when]['f1']:.1%}" for when in ("before", "after")] if final else ["", ""]
        row = (run.name, shown_recipe(record.request), record.request["profile"], _state(run, record, final), *f1)
        return tuple(str(cell) for cell in row)


@command(ShowRunOptions, "job runs show zebra --bucket gs://my-bucket")
def show(options: ShowRunOptions) -> None:
    """Print one run.

    Raises:
        RunConflictError: If there is no such run.
        CorruptObjectError: If one of its records has another form.
    """
    run, record = require_run(options.store(), options.run)
    with readable(options.run):
        _show(run, record, as_json=options.as_json)


def _show(run: Run, record: RunRecord, *, as_json: bool) -> None:
    name, store, final = run.name, run.store, run.final()
    attempts = [run.attempt(number) for number in run.attempts()]
    checkpoints = [checkpoint.read_manifest(run, identity) for identity in checkpoint.committed(run)]
    set_aside = checkpoint.set_aside(run)
    bill = read_bill(run)
    if as_json:
        shown = {
            "run": asdict(record),
            "attempts": attempts,
            "bill": bill.to_json(),
            "checkpoints": [asdict(manifest) for manifest in checkpoints],
            "set_aside": {str(identity): why for identity, why in set_aside.items()},
            "tracking": offline_logs.tell(run),
            "final": final,
        }
        print(json.dumps(shown, indent=1))
        return
    point = record.start["point"]
    told = [
        ("run", f"{name}, {_state(run, record, final)}"),
        ("created", f"{_clock(record.created_at)} UTC"),
        ("recipe", f"{shown_recipe(record.request)}, profile {record.request['profile']}"),
        ("start", _start(point)),
        ("dataset", f"{record.dataset['name']}, digest {record.dataset['digest'][:12]}"),
    ]
    if record.dataset["set_aside"]:
        told.append(("set aside", f"{len(record.dataset['set_aside'])} broken files"))
    for entry, account in zip(attempts, bill.attempts, strict=True):
        ended = f"{account.ended} after {duration(account.wall_s)}"
        ended += f", lost {duration(account.seconds[Phase.LOST])}" if account.seconds[Phase.LOST] else ""
        ended += ", was asked to stop" if entry["stop"] else ""
        end = entry["end"] or {}
        ended += f": {end['message']}" if account.ended in {"failed", "transient"} or end.get("not_committed") else ""
        told.append(
            (
                f"attempt {account.attempt}",
                f"{_clock(account.began_at)}, {ended}, on {entry['host']}, {account.machine}",
            )
        )
    told += [
        (
            "checkpoint",
            f"{_clock(manifest.committed_at)}, after {manifest.id.words}, {manifest.size_bytes / 1e6:.1f} MB",
        )
        for manifest in checkpoints
    ]
    told += [("set aside", f"checkpoint {identity}, {'; '.join(why)}") for identity, why in set_aside.items()]
    told.append(("W&B", offline_logs.tell(run)))
    print("\n".join(line for label, text in told for line in labelled(label, text)))
    print(f"\n{bill.table()}")
    if final is not None:
        metrics = BeforeAfter.from_record(final["comparison"])
        print(f"\n{metrics.table(final['profile'])}\n\nweights     {store.uri}/{run.key('weights/best.pt')}")


@command(RunOptions, "job runs verify zebra --bucket gs://my-bucket")
def verify(options: RunOptions) -> None:
    """Read every committed checkpoint again, and compare the digests.

    Raises:
        CorruptObjectError: If any is not what was committed; names the files.
        RunConflictError: If there is no such run.
    """
    name = options.run
    run, _ = require_run(options.store(), name)
    problems: list[str] = []
    identities, set_aside = checkpoint.committed(run), checkpoint.set_aside(run)
    for identity, why in set_aside.items():
        print(f"{identity}: set aside, {'; '.join(why)}")
    with tempfile.TemporaryDirectory() as scratch:
        for identity in identities:
            found = checkpoint.verify(run, identity, Path(scratch))
            problems += found
            print(f"{identity}: {'damaged' if found else 'whole'}")
    final = run.final()
    if final is not None and (missing := checkpoint.missing_end(run, final["num_epochs"])):
        raise CorruptObjectError(
            f"run {name}: {missing}; it cannot be extended, its weights are what they are", problems
        )
    if problems:
        raise CorruptObjectError(
            f"run {name}: {len(problems)} files are not what was committed; the next start passes them over",
            problems,
        )
    if set_aside and not identities:
        raise CorruptObjectError(f"run {name}: none of its {len(set_aside)} checkpoints is whole; start a new run")
    passed_over = f"; {len(set_aside)} set aside" if set_aside else ""
    print(f"run {name}: {len(identities)} checkpoints, every byte as it was committed{passed_over}")


def _clock(time: str) -> str:
    """Show a recorded time to the second, in UTC."""
    return time[:19].replace("T", " ")


def _start(point: dict[str, Any]) -> str:
    if point["kind"] == "end":
        return f"the end of run {point['run']}, {point['source']}"
    return str(point["source"] or f"{point['architecture']}, from scratch")


def _state(run: Run, record: RunRecord, final: dict[str, Any] | None) -> str:
    if final is not None:
        return f"{final['reason']}, {final['num_epochs']} epochs"
    committed, attempts = checkpoint.committed(run), run.attempts()
    done = committed[-1].epoch if committed else 0
    ended = _how_it_stands(run.attempt(attempts[-1])) if attempts else "not begun"
    return f"{ended}, epoch {done} of {record.request['train']['epochs']}, attempt {len(attempts)}"


def _how_it_stands(newest: dict[str, Any]) -> str:
    """Say in a word or two how the newest attempt of an unfinished run ended, or that it runs."""
    ended = make_bill([newest], {}, now()).attempts[0].ended
    if ended == "running" and newest["stop"]:
        return "running, asked to stop"
    return "cut off" if ended == "vanished" else ended


def require_run(store: Store, name: str) -> tuple[Run, RunRecord]:
    """Return a run of the bucket and its record.

    Raises:
        RunConflictError: If there is none of that name.
    """
    run = Run(store, name)
    record = run.record()
    if record is None:
        hint = nearest(name, list_runs(store)) or "; see `job runs list`"
        raise RunConflictError(f"run {name}: there is none of that name in {store.uri}{hint}")
    return run, record
