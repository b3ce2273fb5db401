"""``job runs``: list, show, verify."""

import logging
import tempfile
from pathlib import Path

from job.analysis.metrics import BeforeAfter
from job.cli.command import command
from job.cli.options import BucketOption, JsonOption, RunOptions
from job.errors import CorruptObjectError, EndReason, RunConflictError
from job.goodput import Phase
from job.recipes.recognition import shown_recipe
from job.runs import checkpoint, wandb_status
from job.runs.cost import AttemptCost, read_cost
from job.runs.evaluation import read_evaluation
from job.runs.listing import RunListing
from job.runs.records import AttemptRecord, FinalRecord, RunRecord, now
from job.runs.run import BEST_WEIGHTS, Run
from job.runs.search import survey
from job.storage.object_store import Store
from job.text import clock, duration, labelled, nearest, table
from job.training.files import BEST

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
            rows.append(_row(found.listing, found.record))
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


def _row(listing: RunListing, record: RunRecord) -> tuple[str, ...]:
    final = listing.final()
    metrics = (final.comparison.before, final.comparison.after) if final else ()
    f1 = [f"{each['f1']:.1%}" if each else "" for each in metrics] or ["", ""]
    state = _state(listing, record, final)
    return listing.run.name, shown_recipe(record.request), record.request["profile"], state, *f1


@command(ShowRunOptions, "job runs show zebra --bucket gs://my-bucket")
def show(options: ShowRunOptions) -> None:
    """Print one run."""
    run, record = require_run(options.store(), options.run)
    listing = RunListing(run)
    attempts, final, point = listing.attempts(), listing.final(), record.start.point
    cost = read_cost(run, listing)
    checkpoints = [listing.manifest(identity) for identity in listing.committed()]
    score = read_evaluation(listing, final.weights[BEST].sha256) if final else None
    set_aside, tracking = checkpoint.set_aside(run), wandb_status.describe(listing)
    content = {
        "run": record.model_dump(mode="json"),
        "attempts": [attempt.to_json() for attempt in attempts],
        "bill": cost.to_json(),
        "checkpoints": [manifest.model_dump(mode="json") for manifest in checkpoints],
        "set_aside": {str(identity): why for identity, why in set_aside.items()},
        "tracking": tracking,
        "final": final and final.model_dump(mode="json"),
        "evaluation": score and score.model_dump(mode="json", exclude={"pictures"}),
    }
    lines = [
        *labelled("run", f"{run.name}, {_state(listing, record, final)}"),
        *labelled("created", f"{clock(record.created_at)} UTC"),
        *labelled("recipe", f"{shown_recipe(record.request)}, profile {record.request['profile']}"),
        *labelled("start", f"the end of run {point.run}, {point}" if point.kind == "end" else str(point)),
        *labelled("dataset", f"{record.dataset}, digest {record.dataset.digest[:12]}"),
    ]
    if record.dataset.set_aside:
        lines += labelled("set aside", f"{len(record.dataset.set_aside)} broken files")
    for attempt, entry in zip(attempts, cost.attempts, strict=True):
        lines += labelled(f"attempt {entry.attempt}", _attempt(attempt, entry))
    for manifest in checkpoints:
        size = f"{manifest.size_bytes / 1e6:.1f} MB"
        lines += labelled("checkpoint", f"{clock(manifest.committed_at)}, after {manifest.id.position}, {size}")
    for identity, why in set_aside.items():
        lines += labelled("set aside", f"checkpoint {identity}, {'; '.join(why)}")
    lines += [*labelled("W&B", tracking), "", cost.table()]
    if score is not None:
        lines += ["", *labelled("evaluated", score.summary)]
    if final is not None:
        metrics = BeforeAfter.from_record(final.comparison).table(final.profile)
        lines += ["", metrics, "", *labelled("weights", f"{run.store.uri}/{run.key(BEST_WEIGHTS)}")]
    options.print(content, lines)


def _attempt(attempt: AttemptRecord, cost: AttemptCost) -> str:
    ended = f"{cost.ended} after {duration(cost.wall_s)}"
    ended += f", lost {duration(cost.seconds[Phase.LOST])}" if cost.seconds[Phase.LOST] else ""
    ended += ", was asked to stop" if attempt.stop else ""
    end = attempt.end
    if end and (end.reason in {EndReason.FAILED, EndReason.TRANSIENT} or end.not_committed):
        ended += f": {end.message}"
    return f"{clock(cost.began_at)}, {ended}, on {attempt.claim.host}, {cost.machine}"


@command(RunOptions, "job runs verify zebra --bucket gs://my-bucket")
def verify(options: RunOptions) -> None:
    """Read every committed checkpoint again, and compare the digests."""
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
    if final is not None and (missing := checkpoint.missing_end(run, final.num_epochs)):
        raise CorruptObjectError(f"run {name}: {missing}; it cannot be extended, its weights stay usable", problems)
    if problems:
        what = f"{len(problems)} files differ from the commit; the next start passes them over"
        raise CorruptObjectError(f"run {name}: {what}", problems)
    if set_aside and not identities:
        raise CorruptObjectError(f"run {name}: none of its {len(set_aside)} checkpoints is intact; start a new run")
    passed_over = f"; {len(set_aside)} set aside" if set_aside else ""
    print(f"run {name}: {len(identities)} checkpoints, every byte equal to the commit{passed_over}")


def _state(listing: RunListing, record: RunRecord, final: FinalRecord | None) -> str:
    if final is not None:
        return f"{final.reason}, {final.num_epochs} epochs{', imported' if record.imported else ''}"
    committed = listing.committed()
    attempts, state = listing.attempt_numbers, "not begun"
    if attempts:
        (newest,) = listing.attempts(attempts[-1:])
        state = newest.state(newest=True, at=now())
        state = "cut off" if state is EndReason.VANISHED else str(state)
        state += ", asked to stop" if state == EndReason.RUNNING and newest.stop else ""
    done = committed[-1].epoch if committed else 0
    return f"{state}, epoch {done} of {record.request['train']['epochs']}, attempt {len(attempts)}"


def require_run(store: Store, name: str) -> tuple[Run, RunRecord]:
    """Return a run of the bucket and its record; raises `RunConflictError` if there is none of that name."""
    run = Run(store, name)
    record = run.record()
    if record is None:
        hint = nearest(name, [found.run.name for found in survey(store).runs]) or "; see `job runs list`"
        raise RunConflictError(f"run {name}: there is none of that name in {store.uri}{hint}")
    return run, record


def require_finished(store: Store, name: str) -> tuple[Run, RunRecord, FinalRecord]:
    """Return a run and its records; raises `RunConflictError` if there is none of that name, or it is not finished."""
    run, record = require_run(store, name)
    final = run.final()
    if final is None:
        raise RunConflictError(f"run {name}: is not finished, so its best weights are not known; finish it first")
    return run, record, final
