"""``job runs``: list, show, verify."""

import logging
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from job.analysis.metrics import BeforeAfter
from job.cli.command import command
from job.cli.options import BucketOption, JsonOption, RunOptions
from job.errors import CorruptObjectError, EndReason, RunConflictError
from job.goodput import Phase
from job.recipes.recognition import shown_recipe
from job.report.reproduce import resume_of
from job.runs import checkpoint, wandb_status
from job.runs.cost import AttemptCost, read_cost
from job.runs.downtime import describe_downtime, downtime
from job.runs.evaluation import read_evaluation
from job.runs.listing import RunListing
from job.runs.records import AttemptRecord, FinalRecord, RunRecord, now
from job.runs.run import BEST_WEIGHTS, Run
from job.runs.run_state import RunState, state_of
from job.runs.search import FoundRun, survey
from job.storage.object_store import Store
from job.text import ago, as_found, clock, counted, duration, fitted, labelled, nearest, table
from job.training.files import BEST

log = logging.getLogger(__name__)

HEADING = ("state", "epochs", "F1", "last sign", "recipe", "run")


class ListRunsOptions(BucketOption, JsonOption):
    """Flags of ``job runs list``."""


class ShowRunOptions(RunOptions, JsonOption):
    """Flags of ``job runs show``."""


@command(ListRunsOptions, "job runs list --bucket gs://my-bucket")
def list_(options: ListRunsOptions) -> None:
    """Print one line for each run, and the command that continues it if it was cut off, paused or failed.

    F1 is that of the best weights so far. On a terminal long lines are wrapped; in a pipe each is whole.
    """
    store = options.store()
    seen, at = survey(store), now()
    listed = [_ListedRun.of(found) for found in seen.runs]
    listed += [_ListedRun(run, "submitted, not begun") for run in seen.submitted]
    rows = table([HEADING, *(each.row(at) for each in listed)], right={1, 2}) if listed else [f"no runs in {store.uri}"]
    lines = rows[:1]
    for row, each in zip(rows[1:], listed, strict=True):
        lines += [row, f"  {as_found(each.command)}"] if each.command else [row]
    lines += [f"runs/{name}: {why}" for name, why in seen.strays.items()]
    if sys.stdout.isatty():
        lines = [part for line in lines for part in fitted(line)]
    options.print({"runs": [each.to_json() for each in listed], "strays": seen.strays}, lines)


@dataclass(frozen=True, slots=True)
class _ListedRun:
    """A run of the list; one that is only submitted has no record, and one that cannot be read has no state."""

    run: Run
    state_name: str
    record: RunRecord | None = None
    state: RunState | None = None

    @classmethod
    def of(cls, found: FoundRun) -> Self:
        """Read the state of a run; one with a damaged record is listed too, with a warning."""
        try:
            state = state_of(found.listing, found.record)
        except CorruptObjectError as error:
            log.warning("%s", error)
            return cls(found.run, "cannot be read", found.record)
        return cls(found.run, state.name, found.record, state)

    @property
    def command(self) -> str | None:
        """The command that continues it, if it needs one."""
        return resume_of(self.run) if self.state and self.state.resumable else None

    def row(self, at: str) -> tuple[str, ...]:
        """Return the cells of its row at a time."""
        request, state = self.record and self.record.request, self.state
        recipe = shown_recipe(request) + (", demo" if request["profile"] == "demo" else "") if request else ""
        if state is None:
            return self.state_name, "", "", "", recipe, self.run.name
        f1 = "" if state.best_f1 is None else f"{state.best_f1:.1%}"
        epochs = f"{state.epoch}/{state.num_epochs}"
        return self.state_name, epochs, f1, ago(state.last_sign_at, at), recipe, self.run.name

    def to_json(self) -> dict[str, object]:
        """Return it as plain values."""
        request = self.record and self.record.request
        recipe = {"recipe": shown_recipe(request), "profile": request["profile"]} if request else {}
        state = {name: value for name, value in asdict(self.state).items() if name != "name"} if self.state else {}
        return {"run": self.run.name, "state": self.state_name, **recipe, **state, "command": self.command}


@command(ShowRunOptions, "job runs show zebra --bucket gs://my-bucket")
def show(options: ShowRunOptions) -> None:
    """Print one run."""
    run, record = require_run(options.store(), options.run)
    listing = RunListing(run)
    attempts, final, point = listing.attempts(), listing.final(), record.start.point
    cost = read_cost(run, listing)
    waits = [downtime(earlier, later) for earlier, later in pairwise(attempts)]
    checkpoints = [listing.manifest(identity) for identity in listing.committed()]
    score = read_evaluation(listing, final.weights[BEST].sha256) if final else None
    set_aside, tracking = checkpoint.set_aside(run), wandb_status.describe(listing)
    content = {
        "run": record.model_dump(mode="json"),
        "attempts": [attempt.to_json() for attempt in attempts],
        "bill": cost.to_json(),
        "downtimes": waits,
        "checkpoints": [manifest.model_dump(mode="json") for manifest in checkpoints],
        "set_aside": {str(identity): why for identity, why in set_aside.items()},
        "tracking": tracking,
        "final": final and final.model_dump(mode="json"),
        "evaluation": score and score.model_dump(mode="json", exclude={"pictures"}),
    }
    lines = [
        *labelled("run", f"{run.name}, {state_of(listing, record)}"),
        *labelled("created", f"{clock(record.created_at)} UTC"),
        *labelled("recipe", f"{shown_recipe(record.request)}, profile {record.request['profile']}"),
        *labelled("start", f"the end of run {point.run}, {point}" if point.kind == "end" else str(point)),
        *labelled("dataset", f"{record.dataset}, digest {record.dataset.digest[:12]}"),
    ]
    if record.dataset.set_aside:
        lines += labelled("set aside", counted(len(record.dataset.set_aside), "broken file"))
    for attempt, entry, wait in zip(attempts, cost.attempts, [None, *waits], strict=False):
        if wait:
            lines += labelled("between", describe_downtime(wait))
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
    run, record = require_run(options.store(), name)
    if record.imported is not None:
        print(f"run {name}: was imported, so that it has no checkpoints")
        return
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
        what = f"differs from its commits in {counted(len(problems), 'file')}; the next start passes them over"
        raise CorruptObjectError(f"run {name}: {what}", problems)
    if set_aside and not identities:
        raise CorruptObjectError(
            f"run {name}: has no intact checkpoint, found {len(set_aside)} set aside; start a new run"
        )
    passed_over = f"; {len(set_aside)} set aside" if set_aside else ""
    print(f"run {name}: {counted(len(identities), 'checkpoint')}, every byte equal to the commit{passed_over}")


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
