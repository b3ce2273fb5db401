"""How an attempt starts, in one of four ways.

1. Resume this run: it exists and resumes from its newest checkpoint, or begins again if nothing is committed.
2. Extend a finished run: a new run resumes from the end of that one, with more epochs.
3. Start from weights: a new run takes over a published model, or one of an earlier run.
4. Start from scratch: a new run builds its architecture with random weights.

`rehearse` sets up the training of a request without a run, for an estimate.

Guarantees that a new run is written to the bucket only after every check, and that an earlier run is never written to.
"""

import logging
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from job.datasets.prepare import PreparedData, find_dataset
from job.errors import MachineError, PeerError, RunConflictError
from job.goodput import Phase
from job.runs import checkpoint, resume
from job.runs.heartbeat import Heartbeat, paused_by
from job.runs.lineage import fetch_end, fetch_start, find_start
from job.runs.records import (
    Facts,
    InitialWeights,
    Lineage,
    Manifest,
    PinnedDataset,
    ResumeReceipt,
    RunRecord,
    differences,
    now,
)
from job.runs.request import TrainRequest
from job.runs.resume import NO_ATTEMPTS, PreviousAttempts
from job.runs.run import Run
from job.runs.search import find_run
from job.session import environment
from job.session.attempt import StartedAttempt, attempt_recorded, claim_run, environment_of, record_start
from job.session.context import SessionContext
from job.session.follower import SharedPlan
from job.session.preemption import PreemptionWatcher
from job.session.tile_work import log_work
from job.storage.object_store import Store
from job.text import counted, shortened
from job.training.callbacks import TrainingCallbacks
from job.training.cores import num_cores
from job.training.distributed import ProcessGroup
from job.training.files import LAST
from job.training.position import BEGINNING

if TYPE_CHECKING:
    from job.training.loop import Training

log = logging.getLogger(__name__)

NUM_LEFT_OUT_SHOWN = 3

HEARTBEAT_S = 20.0
"""Seconds between heartbeats of an attempt that gets ready: fewer bytes than the watchdog takes for progress."""


def start(context: SessionContext, run: Run, record: RunRecord | None) -> StartedAttempt:
    """Set up the training of a run and claim it."""
    if record is not None:
        return resume_run(context, run, record)
    if context.request.recipe.start.kind == "end":
        return extend_run(context, run)
    return start_new_run(context, run)


def resume_run(context: SessionContext, run: Run, record: RunRecord) -> StartedAttempt:
    """1: claim a run that exists, then set it up from its newest checkpoint, with heartbeats from the claim on."""
    claim = claim_run(run, context)
    training: Training | None = None
    with (
        attempt_recorded(claim, context, lambda: training.record_fields if training else {}, finished=False),
        Heartbeat(claim, lambda: {"seconds": context.timer.seconds()}, context.preemption.pause, HEARTBEAT_S),
    ):
        previous = PreviousAttempts.of(claim)
        stop = previous.stop_request(environment.claim_fields()["cloud_job"])
        if stop is not None:
            context.group.broadcast(None)
            raise paused_by(run, stop, on_all_ranks=True)
        data = context.prepare_data(record.dataset.name, record.dataset, f"run {run.name}")
        point, receipt, steps_lost = record.start.point, None, 0
        with context.timer.entered(Phase.PULL):
            restored = checkpoint.restore(run, context.empty_folder("restored"))
            if restored is None and point.kind == "end":
                restored = fetch_end(context.store, point, context.folder / "restored")
            weights = None if restored else fetch_start(context.store, point, context.folder / "start")[0]
        if restored is None:
            training = set_up(context, data, point, weights, record=record, previous=previous)
            _require_same_facts(record, training)
            _broadcast_state(context, None)
            steps_lost = previous.steps_after(BEGINNING, training.num_batches)
            log.info("run %s: attempt %d begins again, nothing was committed", run.name, claim.attempt)
        else:
            training, receipt = _restore(context, run, record, data, restored, previous=previous)
            log.info(
                "run %s: attempt %d resumes after %s of %d",
                *(run.name, claim.attempt, restored.id.position, training.num_epochs),
                extra={"receipt": receipt.model_dump(mode="json")},
            )
        record_start(claim, record, training, receipt, steps_lost=steps_lost)
    return StartedAttempt(claim, record, training, previous, restored)


def extend_run(context: SessionContext, run: Run) -> StartedAttempt:
    """2: set up a new run from the end of a finished one, then create and claim it."""
    point = find_start(context.store, context.request, run.name)
    ended = Run(context.store, str(point.run))
    record = ended.record()
    if record is None:
        raise RunConflictError(f"run {ended.name}: its record is gone; put it back, or start a new run")
    data = context.prepare_data(str(context.request.dataset), record.dataset, f"run {ended.name}")
    with context.timer.entered(Phase.PULL):
        restored = fetch_end(context.store, point, context.empty_folder("restored"))
    training, receipt = _restore(context, run, record, data, restored)
    log.info(
        "run %s: continues run %s after its end, epoch %d; weights, EMA, optimizer and random streams are those, "
        "and from here on learning rate and mosaic follow the schedule of %s, and patience begins anew",
        *(run.name, ended.name, restored.epoch, counted(training.num_epochs, "epoch")),
    )
    lineage = Lineage(point=point)
    return _create(context, run, data=data, training=training, lineage=lineage, restored=restored, receipt=receipt)


def start_new_run(context: SessionContext, run: Run) -> StartedAttempt:
    """3 and 4: set up a new run from weights, or from scratch if its lineage has none, then create and claim it."""
    data = context.prepare_data(str(context.request.dataset), None, f"run {run.name}")
    with context.timer.entered(Phase.PULL):
        found = find_start(context.store, context.request, run.name)
        if found.why is not None:
            log.info("start weights: %s", found.why)
        weights, point = fetch_start(context.store, found, context.folder / "start")
    training = set_up(context, data, point, weights)
    _broadcast_state(context, None)
    if ignored := context.request.recipe.ignored:
        log.warning(
            "%s: the optimizer auto ignores it, and took %s at %g; pass --optimizer too",
            *(" and ".join(ignored), training.facts["optimizer"], training.facts["lr0"]),
        )
    transfer = training.trainer.transfer
    if transfer is not None:
        log.info("start weights %s: took over %s", point, transfer)
        for line in shortened(transfer.left_out, NUM_LEFT_OUT_SHOWN):
            log.info("  left out %s", line)
    if not training.trainer.starts_trained:
        what = "random weights find" if transfer is None else "the layers for the classes are new and find"
        log.info("%s nothing yet, and are not measured: F1 near 0 %% in the first epochs is no fault", what)
    if context.request.recipe.train["tiles"]:
        log_work(context, data.name, training)
    lineage = Lineage(point=point, transfer=asdict(transfer) if transfer else None)
    return _create(context, run, data=data, training=training, lineage=lineage)


def rehearse(store: Store, request: TrainRequest, callbacks: TrainingCallbacks) -> None:
    """Train a request in a scratch folder until the callbacks end it, without a run in the bucket."""
    request = request.model_copy(update={"dataset": find_dataset(store, request.dataset)})
    with (
        PreemptionWatcher() as preemption,
        SessionContext(store=store, request=request, preemption=preemption).in_folder("rehearsal") as here,
    ):
        data = here.prepare_data(str(request.dataset), None, "run rehearsal", record_images=False)
        weights, point = fetch_start(store, find_start(store, request, None), here.folder / "start")
        set_up(here, data, point, weights).run(callbacks)


def set_up(
    context: SessionContext,
    data: PreparedData,
    point: InitialWeights | None,
    weights: Path | None,
    *,
    record: RunRecord | None = None,
    previous: PreviousAttempts = NO_ATTEMPTS,
) -> "Training":
    """Build the training on this machine, and broadcast its plan.

    The frozen values of a record, of the run to resume, hold; a new run has none. `point` names the architecture;
    without it, `weights` are those of a checkpoint, which have the architecture, class branches included.
    """
    context.isolate_training()
    from job.training.loop import Training  # noqa: PLC0415 -- imports Ultralytics, which is isolated by now
    from job.training.trainer import Plan  # noqa: PLC0415 -- imports Ultralytics, which is isolated by now

    request, recipe = context.request, context.request.recipe
    max_det = record.facts.max_det if record else recipe.train["max_det"] if "max_det" in recipe.given else None
    (context.folder / "run").mkdir(exist_ok=True)
    plan = Plan(
        train=recipe.train | {"max_det": max_det},
        data_yaml=data.yaml,
        folder=context.folder / "run",
        architecture=point.architecture if point else None,
        weights=weights,
        same_classes=point is not None and point.kind == "own" and not request.new_classes,
        of_checkpoint=point is None and weights is not None,
        device=request.device,
        workers=request.workers,
        num_threads=record.facts.num_threads if record else environment.num_threads(),
        mosaic_stride=record.facts.mosaic_stride if record else _choose_stride(context),
        pixels=data.pixels,
        shapes=data.shapes,
        resumed=record is not None,
        ran_out_of_memory=previous.ran_out_of_memory,
        group=context.group,
    )
    if context.group.size > 1:
        files = {weights.name: weights.read_bytes()} if weights else {}
        pinned = PinnedDataset.model_validate(data.pinned)
        context.group.broadcast(SharedPlan(replace(plan, group=ProcessGroup(), pixels=None, shapes={}), pinned, files))
        context.group.barrier()  # of `local_zero_first`, in which other machines pull the data
    return Training(plan)


def _choose_stride(context: SessionContext) -> int:
    """Return the stride of a new run's mosaics, which suits the workers of this machine."""
    from job.training.sampler import choose_stride  # noqa: PLC0415 -- imports torch

    train, group = context.request.recipe.train, context.group
    workers = min(context.request.workers, max(1, num_cores() // group.local_size))
    return choose_stride(workers, train["batch"], train["imgsz"], group.size)


def _create(
    context: SessionContext,
    run: Run,
    *,
    data: PreparedData,
    training: "Training",
    lineage: Lineage,
    restored: Manifest | None = None,
    receipt: ResumeReceipt | None = None,
) -> StartedAttempt:
    """Write the record of a new run, then claim it; join the run of a machine that was first with the same request."""
    request, recipe = context.request, context.request.recipe
    identity = request.identity(request.dataset)
    record = RunRecord(
        run=run.name,
        created_at=now(),
        request=identity,
        recipe_digest=recipe.digest,
        expect={name: (band.low, band.high) for name, band in recipe.expect.items()},
        start=lineage,
        dataset=PinnedDataset.model_validate(data.pinned),
        facts=Facts.model_validate(training.facts),
        environment=environment_of(training),
        wandb_id=secrets.token_hex(4),
    )
    while not run.create(record):
        # Another machine was first. With the same request, its run is this one; else the next name is free.
        run, existing = find_run(context.store, request.run, identity)
        if existing is not None and context.group.size > 1:
            raise PeerError(f"run {run.name}: another machine started it at the same time; start again")
        if existing is not None:
            return resume_run(context, run, existing)
        record = record.model_copy(update={"run": run.name})
    log.info("run %s: recipe %s on %s", run.name, recipe.name, data.name)
    log.info("recipe %s", request.recipe_description)
    claim = claim_run(run, context)
    with attempt_recorded(claim, context, lambda: training.record_fields, finished=False):
        record_start(claim, record, training, receipt)
    return StartedAttempt(claim, record, training, restored=restored)


def _restore(
    context: SessionContext,
    run: Run,
    record: RunRecord,
    data: PreparedData,
    restored: Manifest,
    *,
    previous: PreviousAttempts = NO_ATTEMPTS,
) -> tuple["Training", ResumeReceipt]:
    """Set up a training from a fetched checkpoint, and return it with its receipt."""
    folder, reopen = context.folder / "restored", restored.run != run.name
    with checkpoint.refusal_explained(run, restored):
        training = set_up(context, data, None, folder / LAST, record=record, previous=previous)
        _require_same_facts(record, training)
        _broadcast_state(context, folder, reopen=reopen)
        loaded = training.restore(folder, reopen=reopen)
        return training, resume.receipt(previous, restored, loaded, training.num_batches)


def _broadcast_state(context: SessionContext, folder: Path | None, *, reopen: bool = False) -> None:
    """Send the other ranks the files of the checkpoint to resume from, if there is one."""
    if context.group.size > 1:
        files = {path.name: path.read_bytes() for path in folder.iterdir()} if folder else {}
        context.group.broadcast((files, reopen))


def _require_same_facts(record: RunRecord, training: "Training") -> None:
    frozen = {"mosaic_stride": record.facts.mosaic_stride, **record.facts.model_dump(exclude_unset=True)}
    different = differences(frozen, training.facts)
    if record.facts.device != training.facts["device"]:
        message = f"run {record.run}: this machine would train it on another kind of device; use one like its first"
        raise MachineError(message, different)
    if different:
        advice = "continue it on a machine like its first, or start a new run"
        raise RunConflictError(f"run {record.run}: this machine would train it differently; {advice}", different)
