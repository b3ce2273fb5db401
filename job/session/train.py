"""One attempt at a run, from the request to its end: resolve, start, train, commit, finish.

Guarantees that the same request starts a run, resumes it, or reports that it is finished.
"""

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from job.datasets.prepare import find_dataset
from job.errors import PeerError, PreemptionError, RunConflictError
from job.goodput import Phase, PhaseTimer
from job.report.refresh import ReportRefresher
from job.runs.artifacts import ArtifactPublisher
from job.runs.committer import AsyncCommitter
from job.runs.cost import cost_of
from job.runs.heartbeat import Heartbeat
from job.runs.listing import RunListing
from job.runs.records import FinalRecord, Manifest, RunRecord, now
from job.runs.request import TrainRequest
from job.runs.run import Run
from job.runs.search import find_run, warn_of_unfinished
from job.session import environment
from job.session.attempt import StartedAttempt, attempt_recorded, finish
from job.session.callbacks import SessionCallbacks
from job.session.checkpoint_schedule import CheckpointSchedule
from job.session.console import Reporter, say_finished, say_newer_data
from job.session.context import SessionContext
from job.session.follower import follow
from job.session.notification import EndNotification
from job.session.preemption import LIMITS_S, RANK_LIMITS_S, PreemptionWatcher
from job.session.run_archive import archive_run
from job.session.startup import start
from job.session.watchdog import NO_BYTE, NO_STEP, Watchdog
from job.storage.object_store import Store
from job.text import HOUR, counted
from job.tracking.tracker import Tracker
from job.training.distributed import ProcessGroup
from job.training.isolation import is_rank
from job.training.position import Position

log = logging.getLogger(__name__)


def train(store: Store, request: TrainRequest, *, boot_s: float | None = None) -> None:
    """Train a run to its end, from its newest checkpoint if it has one.

    Safe to call again with the same request after any interruption.

    `boot_s` are the seconds of this process before this call; its age, unless an earlier run in it counted them.

    Raises:
        JobError: Before training for anything wrong with the request, the data or the machine; during it if training
            or the store fails, or another machine has taken over.
        PreemptionError: If this process was asked to stop, or the run to be paused; every step is committed.
    """
    timer = PhaseTimer(before_s=environment.process_age_s() if boot_s is None else boot_s)
    limits_s = RANK_LIMITS_S if is_rank() else LIMITS_S
    with PreemptionWatcher(limits_s=limits_s) as preemption, Watchdog(request.hang_after_s) as watchdog:
        try:
            preemption.watch()
            group = ProcessGroup.join(lambda: preemption.pending is not None, watchdog.beat)
            context = SessionContext(
                store=store, request=request, timer=timer, preemption=preemption, group=group, watchdog=watchdog
            )
            with watchdog.watching(NO_BYTE):
                if group.is_rank_zero:
                    _lead(context)
                else:
                    follow(context)
                group.leave()
        except PreemptionError as notice:
            if notice.on_all_ranks:  # else the launcher would end the others, while they commit, once one leaves
                with contextlib.suppress(PeerError):
                    group.leave()
            preemption.wait_for_termination()
            raise


def _lead(context: SessionContext) -> None:
    """Train the run to its end, as rank 0."""
    store = context.store
    request = context.request.model_copy(update={"dataset": find_dataset(store, context.request.dataset)})
    identity = request.identity(request.dataset)
    run, record = find_run(store, request.run, identity)
    if record is None and request.run is None:
        warn_of_unfinished(store, run, identity, "train")
    final = run.final() if record else None
    if record is not None and final is not None:
        context.group.broadcast(None)
        say_finished(run, record, final, already=True)
        say_newer_data(run, record, identity, finished=True)
        archive_run(run, record, final, request)
        return
    if record is not None and record.imported is not None:
        raise RunConflictError(
            f"run {run.name}: was trained elsewhere, and its import was cut off; give `job import` with its folder, "
            f"{record.imported.folder}, again"
        )
    if record is not None:
        say_newer_data(run, record, identity, finished=False)
    with EndNotification(request.notify, context.preemption, run) as notification:
        _train_run(replace(context, request=request, on_leave=notification.leave), run, record, notification)


@contextlib.contextmanager
def set_up_uncollected() -> Iterator[Callable[[], None]]:
    """Keep the collector of garbage from a set-up, and from its 300,000 objects, which stay alive, to the block's end.

    Yields a function to call when all is set up; objects of later are collected. To look at the first ones again and
    again only delays the first step. A threshold of 0 stops the collector, and `gc.disable` does not: Ultralytics
    enables it once it has read its cache of labels (``data/utils.py``: 999).
    """
    thresholds = gc.get_threshold()

    def collect_later_ones() -> None:
        gc.freeze()
        gc.set_threshold(*thresholds)

    gc.set_threshold(0)
    try:
        yield collect_later_ones
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _train_run(context: SessionContext, run: Run, record: RunRecord | None, notification: EndNotification) -> None:
    """Train a run that is not finished to its end."""
    with context.in_folder(run.name) as here:
        with ReportRefresher(run) as refresher, set_up_uncollected() as collect_later_ones:
            started = start(here, run, record)
            collect_later_ones()
            run = notification.run = started.claim.run
            with (
                contextlib.ExitStack() as tracked,  # ends once the end is recorded
                attempt_recorded(started.claim, here, lambda: started.training.record_fields),
            ):
                tracker = tracked.enter_context(Tracker(started.claim, here.folder / "wandb"))
                final = _train_to_end(here, started, ArtifactPublisher(run), refresher, tracker)
                notification.message = _ended(final)
            RunListing(run).write_bundle()
            refresher.finish()
        archive_run(run, started.record, final, context.request)
        say_finished(run, started.record, final, already=False)


def _ended(final: FinalRecord) -> str:
    """Return how a run was finished, in words."""
    return f"{final.reason} after {counted(final.num_epochs, 'epoch')}, F1 {final.comparison.after['f1']:.1%}"


def _usd_so_far(context: SessionContext, started: StartedAttempt) -> Callable[[], float | None]:
    """Return a function for the known dollars of the run's attempts until now; None if no price is known."""
    before, price = cost_of(started.previous.attempts, now()).known_usd, context.price.usd_per_h
    if price is None:
        return lambda: before
    return lambda: (before or 0.0) + price * sum(context.timer.seconds().values()) / HOUR


def _uncommitted(reached: Position, newest: Manifest | None) -> str:
    """Return what was trained and is not committed, in words; empty if all is."""
    if newest and newest.id.position == reached:
        return ""
    return f"{reached} was trained, and committed is {newest.id.position if newest else 'nothing'}"


def _train_to_end(
    context: SessionContext,
    started: StartedAttempt,
    publisher: ArtifactPublisher,
    refresher: ReportRefresher,
    tracker: Tracker,
) -> FinalRecord:
    """Train to the end, committing in the background, and finish the run."""
    claim, training = started.claim, started.training
    preemption, watchdog, timer = context.preemption, context.watchdog, context.timer
    reporter = Reporter(
        training.num_epochs,
        training.progress.before,
        training.progress.rows,
        context.price.usd_per_h,
        usd_so_far=_usd_so_far(context, started),
        record=started.record,
    )
    schedule = CheckpointSchedule(context.request.checkpoint_every_s, started.previous.preempted_after_s)

    def publish(folder: Path) -> None:
        tracker.notify()
        publisher.copy(folder, lambda: committer.hurried)
        if committer.newest is not None and not committer.newest.batch:
            refresher.refresh()

    committer = AsyncCommitter(claim, context.folder / "staging", started.restored, publish)

    def heartbeat_fields() -> Mapping[str, object]:
        newest = committer.newest
        owned = newest if newest and newest.attempt == claim.attempt else None
        return {
            **training.record_fields,
            "seconds": timer.seconds(),
            "kept": owned and {"checkpoint": str(owned.id), "seconds": owned.metadata.seconds},
            "checkpoints": schedule.to_json(),
        }

    preemption.describe_uncommitted = lambda: _uncommitted(training.position, committer.newest)
    with Heartbeat(claim, heartbeat_fields, preemption.pause) as heartbeat:  # until the last upload is over
        with preemption.deferred(), timer.watched(), committer:
            callbacks = SessionCallbacks(
                committer=committer,
                schedule=schedule,
                reporter=reporter,
                context=context,
                restored=started.restored.id if started.restored else None,
                furthest_position=started.previous.furthest_position,
                checks=(heartbeat.check, watchdog.check),
                synchronize=training.synchronize,
            )
            try:
                with watchdog.watching(NO_STEP):
                    training.run(callbacks)
            finally:
                timer.enter(Phase.STALL)  # until the last commit is done
                reporter.close()
                log.info("%s", schedule, extra={"checkpoints": schedule.to_json()})
        timer.enter(Phase.FINAL_EVALUATION)
        return finish(started, context.folder / "run", publisher)
