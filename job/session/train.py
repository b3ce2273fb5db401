"""One attempt at a run, from the order to its end: resolve, claim, pull, restore, train, commit, finish.

Guarantees that the same order starts a run, continues it, or says that it is finished; that a new run is written to
the bucket only once everything that can be checked has been; and that an earlier run is never written to.
"""

import contextlib
import gc
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.analysis.metrics import BeforeAfter, metrics_of
from job.cloud.prices import price_here
from job.datasets.prepare import PreparedData, find_dataset, prepare_data
from job.errors import MachineError, NotCommittedError, PeerError, PreemptionError, RunConflictError
from job.goodput import Phase, PhaseTimer
from job.recipes.recipe import Band
from job.report.refresh import ReportRefresher
from job.runs import checkpoint, records, resume
from job.runs.artifacts import ArtifactPublisher
from job.runs.committer import AsyncCommitter
from job.runs.heartbeat import Heartbeat, paused_by
from job.runs.lineage import fetch_end, fetch_start, find_start
from job.runs.records import (
    AttemptRecord,
    CheckpointId,
    Facts,
    FinalRecord,
    InitialWeights,
    Lineage,
    Manifest,
    PinnedDataset,
    Price,
    Request,
    ResumeReceipt,
    RunRecord,
    differences,
    now,
)
from job.runs.request import TrainRequest
from job.runs.resume import PreviousAttempts
from job.runs.run import Run
from job.runs.search import find_run
from job.runs.unfinished import tell_beside
from job.session import environment
from job.session.attempt import claim, environment_of, record_start, recorded
from job.session.callbacks import SessionCallbacks
from job.session.checkpoint_schedule import CheckpointSchedule
from job.session.console import Reporter, say_finished
from job.session.doctor import require_fit
from job.session.follower import File, SharedPlan, SharedState, follow
from job.session.preemption import AMONG_SEVERAL_S, LIMITS_S, PreemptionWatcher
from job.session.watchdog import NO_BYTE, NO_STEP, Watchdog
from job.storage import workdir
from job.storage.checksums import sha256_of
from job.storage.object_store import Store
from job.storage.workdir import attempt_folder
from job.tracking.tracker import Tracker
from job.training.distributed import ProcessGroup

if TYPE_CHECKING:
    from job.training.callbacks import Outcome, TrainingCallbacks
    from job.training.loop import Training

log = logging.getLogger(__name__)

NUM_LEFT_OUT_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Ready:
    """A claimed run, set up on this machine and about to train."""

    run: Run
    record: RunRecord
    attempt: int
    training: "Training"
    previous: PreviousAttempts
    restored: Manifest | None
    """The checkpoint that it goes on from; perhaps the last one of another run, which this one extends."""

    @property
    def own(self) -> Manifest | None:
        """The checkpoint that it goes on from, if it is one of its own."""
        return self.restored if self.restored and self.restored.run == self.run.name else None


def train(store: Store, order: TrainRequest, *, boot_s: float | None = None) -> None:
    """Bring a run to its end from wherever its last checkpoint left it.

    Safe to call again with the same order after any interruption.

    Args:
        store: The bucket.
        order: What is asked for.
        boot_s: The seconds of this process that went before; its age, unless another run had them.

    Raises:
        JobError: Before training for anything wrong with the order, the data or the machine; during it if training
            or the store fails, or another machine has taken over.
        PreemptionError: If this process was asked to stop, or the run to be paused; all that was done is committed.
    """
    timer = PhaseTimer(before_s=environment.process_age_s() if boot_s is None else boot_s)
    limits_s = AMONG_SEVERAL_S if "RANK" in os.environ else LIMITS_S
    with PreemptionWatcher(limits_s=limits_s) as preemption, Watchdog(order.hang_after_s) as watchdog:
        try:
            preemption.watch()
            group = ProcessGroup.join(lambda: preemption.pending is not None, watchdog.beat)
            with watchdog.watching(NO_BYTE, bytes_count=True):
                if group.is_rank_zero:
                    _train(store, order, timer, preemption, group=group, watchdog=watchdog)
                else:
                    follow(store, order, timer, preemption, group=group, watchdog=watchdog)
                group.leave()
        except PreemptionError as notice:
            if notice.agreed:  # or the first to leave would have the others ended while they commit
                with contextlib.suppress(PeerError):
                    group.leave()
            preemption.stay()
            raise


def _train(
    store: Store,
    order: TrainRequest,
    timer: PhaseTimer,
    preemption: PreemptionWatcher,
    *,
    group: ProcessGroup,
    watchdog: Watchdog,
) -> None:
    order = order.model_copy(update={"dataset": find_dataset(store, order.dataset)})
    request = order.identity(order.dataset)
    run, record = find_run(store, order.run, request)
    if record is None and order.run is None:
        tell_beside(store, run, request, "train")
    final = run.final() if record else None
    if final is not None:
        group.broadcast(None)
        say_finished(run, final, already=True)
        return
    workdir.require_writable(order.workdir)
    require_fit(order.workdir, order.device)
    with attempt_folder(order.workdir, run.name) as folder:
        session = _Session(store, order, folder, timer, preemption, group, watchdog)
        with _uncollected():
            ready = session.begin(run, request) if record is None else session.go_on(run, record)
        with ReportRefresher(ready.run) as refresher:
            with (
                Tracker(ready.run, ready.attempt, folder / "wandb") as tracker,
                recorded(
                    ready.run,
                    ready.attempt,
                    timer,
                    lambda: ready.training.about,
                    watchdog=watchdog,
                    preemption=preemption,
                ),
            ):
                publisher = ArtifactPublisher(ready.run)
                outcome = session.fit(ready, publisher, refresher, tracker)
                final = session.finish(ready, outcome, publisher)
            refresher.finish()
        say_finished(ready.run, final, already=False)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave garbage alone while libraries are loaded and a training is set up.

    What is made then stays, so that to look through all of it, over and over, only delays the first step.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def rehearse(store: Store, order: TrainRequest, callbacks: "TrainingCallbacks") -> None:
    """Train what an order means until the callbacks end it, in a scratch folder; no run is made in the bucket.

    Raises:
        JobError: As `train`, and whatever the callbacks raise.
    """
    workdir.require_writable(order.workdir)
    require_fit(order.workdir, order.device)
    with PreemptionWatcher() as preemption, attempt_folder(order.workdir, "rehearsal") as folder:
        order = order.model_copy(update={"dataset": find_dataset(store, order.dataset)})
        session = _Session(store, order, folder, PhaseTimer(), preemption, ProcessGroup(), Watchdog(0))
        data = session.prepare_data(str(order.dataset), None, "rehearsal")
        weights, point = fetch_start(store, find_start(store, order, None), folder / "start")
        session.set_up(data, point, weights).run(callbacks)


@dataclass(frozen=True, slots=True)
class _Session:
    """What the steps of one attempt share."""

    store: Store
    order: TrainRequest
    folder: Path
    timer: PhaseTimer
    preemption: PreemptionWatcher
    group: ProcessGroup
    watchdog: Watchdog
    price: Price = field(default_factory=price_here)

    def begin(self, run: Run, request: Request) -> Ready:
        """Check everything that a new run needs, then create and claim it."""
        if self.order.recipe.start.kind == "end":
            return self.extend(run, request)
        data = self.prepare_data(str(request["dataset"]), None, run.name)
        with self.timer.entered(Phase.PULL):
            start = find_start(self.store, self.order, run.name)
            if start.why is not None:
                log.info("start weights: %s", start.why)
            weights, point = fetch_start(self.store, start, self.folder / "start")
        training = self.set_up(data, point, weights)
        self._share_state(None)
        transfer = training.transfer
        if transfer is not None:
            log.info("start weights %s: took over %s", point, transfer)
            for line in transfer.left_out[:NUM_LEFT_OUT_SHOWN]:
                log.info("  left out %s", line)
            if len(transfer.left_out) > NUM_LEFT_OUT_SHOWN:
                log.info("  and %d more", len(transfer.left_out) - NUM_LEFT_OUT_SHOWN)
        lineage = Lineage(point=point, transfer=asdict(transfer) if transfer else None)
        return self._create(run, request, data=data, lineage=lineage, training=training)

    def extend(self, run: Run, request: Request) -> Ready:
        """Check everything that a new run needs to go on where another one ended, then create and claim it."""
        point = find_start(self.store, self.order, run.name)
        ended = Run(self.store, str(point.run))
        record = ended.record()
        if record is None:
            raise RunConflictError(f"run {ended.name}: its record is gone; put it back, or start a new run")
        data = self.prepare_data(str(request["dataset"]), record, ended.name)
        with self.timer.entered(Phase.PULL):
            restored = fetch_end(self.store, point, self._emptied("restored"))
        training, receipt = self._restored(run, record, data, restored, PreviousAttempts())
        log.info(
            "run %s: goes on where run %s ended, after epoch %d; weights, EMA, optimizer and random streams are those, "
            "and from here on learning rate and mosaic follow the schedule of %d epochs, and patience begins anew",
            *(run.name, ended.name, restored.epoch, training.num_epochs),
        )
        lineage = Lineage(point=point)
        return self._create(
            run, request, data=data, lineage=lineage, training=training, restored=restored, receipt=receipt
        )

    def _create(
        self,
        run: Run,
        request: Request,
        *,
        data: PreparedData,
        lineage: Lineage,
        training: "Training",
        restored: Manifest | None = None,
        receipt: ResumeReceipt | None = None,
    ) -> Ready:
        record = RunRecord(
            run=run.name,
            created_at=now(),
            request=request,
            recipe_digest=self.order.recipe.digest,
            expect={name: (band.low, band.high) for name, band in self.order.recipe.expect.items()},
            start=lineage,
            dataset=PinnedDataset.model_validate(data.pinned),
            facts=Facts.model_validate(training.facts),
            environment=environment_of(training),
            wandb_id=secrets.token_hex(4),
        )
        while not run.create(record):
            # Another machine was first. If it was asked the same, this is its run; else the next name is free.
            run, existing = find_run(self.store, self.order.run, request)
            if existing is not None and self.group.size > 1:
                raise PeerError(f"run {run.name}: another machine started it at the same time; start again")
            if existing is not None:
                return self.go_on(run, existing)
            record = record.model_copy(update={"run": run.name})
        log.info("run %s: recipe %s on %s", run.name, self.order.recipe.name, data.name)
        log.info("recipe %s", self.order.about_recipe)
        attempt = claim(run, self.timer, self.price)
        record_start(run, record, attempt, training, receipt)
        return Ready(run, record, attempt, training, PreviousAttempts(), restored)

    def go_on(self, run: Run, record: RunRecord) -> Ready:
        """Claim a run that exists, then set it up from its newest checkpoint."""
        attempt = claim(run, self.timer, self.price)
        training: Training | None = None
        about = lambda: training.about if training else {"position": {}}  # noqa: E731 -- reads what is set below
        with recorded(
            *(run, attempt, self.timer, about), watchdog=self.watchdog, preemption=self.preemption, finished=False
        ):
            previous = PreviousAttempts.of(run, attempt)
            request = previous.stop_request(environment.about()["cloud_job"])
            if request is not None:
                self.group.broadcast(None)
                raise paused_by(run, request, agreed=True)
            data = self.prepare_data(record.dataset.name, record, run.name)
            point, receipt = record.start.point, None
            with self.timer.entered(Phase.PULL):
                restored = checkpoint.restore(run, self._emptied("restored"))
                if restored is None and point.kind == "end":
                    restored = fetch_end(self.store, point, self.folder / "restored")
            if restored is None:
                with self.timer.entered(Phase.PULL):
                    weights, _ = fetch_start(self.store, point, self.folder / "start")
                training = self.set_up(data, point, weights, record, previous)
                self._require_same_facts(record, training)
                self._share_state(None)
                log.info("run %s: attempt %d begins again, nothing was committed", run.name, attempt)
            else:
                training, receipt = self._restored(run, record, data, restored, previous)
                log.info(
                    "run %s: attempt %d goes on after %s of %d",
                    *(run.name, attempt, restored.id.description, training.num_epochs),
                    extra={"receipt": receipt.model_dump(mode="json")},
                )
            record_start(run, record, attempt, training, receipt)
        return Ready(run, record, attempt, training, previous, restored)

    def _restored(
        self, run: Run, record: RunRecord, data: PreparedData, restored: Manifest, previous: PreviousAttempts
    ) -> tuple["Training", ResumeReceipt]:
        """Set up a training from a fetched checkpoint, and return it with its receipt."""
        folder, reopen = self.folder / "restored", restored.run != run.name
        as_it_is = InitialWeights("restored", None, None)  # the weights say the architecture, class branches included
        with checkpoint.gone_on_from(run, restored):
            training = self.set_up(data, as_it_is, folder / "last.pt", record, previous)
            self._require_same_facts(record, training)
            self._share_state(folder, reopen=reopen)
            loaded = training.restore(folder, reopen=reopen)
            return training, resume.receipt(previous, restored, loaded, training.num_batches)

    def fit(
        self, ready: Ready, publisher: ArtifactPublisher, refresher: ReportRefresher, tracker: Tracker
    ) -> "Outcome":
        """Train to the end, committing in the background."""
        training = ready.training
        reporter = Reporter(training.num_epochs, training.before, training.progress.rows, self.price.usd_per_h)
        schedule = CheckpointSchedule(self.order.checkpoint_every_s, ready.previous.preempted_after_s)

        def publish(folder: Path) -> None:
            tracker.notify()
            publisher.copy(folder, lambda: committer.hurried)
            if committer.newest is not None and not committer.newest.batch:
                refresher.refresh()

        committer = AsyncCommitter(ready.run, ready.attempt, self.folder / "staging", ready.own, publish)

        def about() -> dict[str, Any]:
            newest = committer.newest
            own = newest is not None and (newest.run, newest.attempt) == (ready.run.name, ready.attempt)
            return {
                **ready.training.about,
                "seconds": self.timer.seconds(),
                "kept": {"checkpoint": str(newest.id), "seconds": newest.metadata.seconds} if newest and own else None,
                "checkpoints": schedule.to_json(),
            }

        def at_stake() -> str:
            newest, place = committer.newest, CheckpointId(**ready.training.position, attempt=ready.attempt)
            if newest and newest.id.position == place.position:
                return ""
            return f"{place.description} was trained, and committed is {newest.id.description if newest else 'nothing'}"

        self.preemption.at_stake = at_stake
        with (
            self.preemption.left_alone(),
            Heartbeat(ready.run, ready.attempt, about, self.preemption.pause) as heartbeat,
            self.timer.watched(),
            committer,
        ):
            callbacks = SessionCallbacks(
                committer=committer,
                schedule=schedule,
                reporter=reporter,
                timer=self.timer,
                preemption=self.preemption,
                group=self.group,
                watchdog=self.watchdog,
                restored=ready.restored.id if ready.restored else None,
                furthest=ready.previous.furthest_position,
                checks=(heartbeat.check, self.watchdog.check),
            )
            try:
                with self.watchdog.watching(NO_STEP):
                    outcome = ready.training.run(callbacks)
                assert outcome is not None  # noqa: S101 -- this is the first process
                return outcome
            finally:
                self.timer.enter(Phase.STALL)  # what is left to do here is to wait for the last commit
                reporter.close()
                log.info("%s", schedule, extra={"checkpoints": schedule.to_json()})

    def finish(self, ready: Ready, outcome: "Outcome", publisher: ArtifactPublisher) -> FinalRecord:
        """Bring the last files to the bucket and write the final record, which ends the run."""
        from job.training.weights import digest_file  # noqa: PLC0415 -- imports torch, which is loaded by now

        self.timer.enter(Phase.FINAL_EVALUATION)
        files = self.folder / "run"
        ready.run.require_current(ready.attempt)
        if missing := checkpoint.missing_end(ready.run, len(outcome.rows)):
            raise NotCommittedError(f"run {ready.run.name}: {missing}; the same command goes on from there")
        publisher.copy(files)
        expect = {name: Band(*ends) for name, ends in ready.record.expect.items()}
        comparison = BeforeAfter(metrics_of(outcome.before), metrics_of(outcome.after), expect)
        final = {
            "attempt": ready.attempt,
            "profile": ready.record.request["profile"],
            "reason": "stopped early" if outcome.stopped_early else "complete",
            "num_epochs": len(outcome.rows),
            "best_epoch": outcome.best_epoch,
            "train_s": round(outcome.rows[-1]["time"], 3),
            "bits": resume.exactness(ready.record, self._attempts(ready)).model_dump(exclude_unset=True),
            "comparison": comparison.to_json(),
            "course": [{"epoch": int(row["epoch"]), **metrics_of(row)} for row in outcome.rows],
            "weights": {
                name: {"sha256": sha256_of(files / name), "tensors": digest_file(files / name)}
                for name in ("best.pt", "last.pt")
            },
        }
        ready.run.require_current(ready.attempt)
        return ready.run.finish(final)

    def prepare_data(self, name: str, record: RunRecord | None, run: str) -> PreparedData:
        """Pull and check a dataset; that of a run that exists has to be the one of its record."""
        return prepare_data(
            self.store,
            name,
            self.order.workdir,
            self.folder / "data.yaml",
            self.timer,
            quarantine=self.order.quarantine,
            single_class=bool(self.order.recipe.train.get("single_cls")),
            pinned=record.dataset.model_dump() if record else None,
            subject=f"run {run}",
        )

    def _attempts(self, ready: Ready) -> list[AttemptRecord]:
        """Return the records of all attempts at a run, this one's with what it has seen until now."""
        *earlier, this = ready.run.attempt_records()
        seen = records.Heartbeat.model_validate({"at": now(), **ready.training.about})
        return [*earlier, replace(this, heartbeat=seen)]

    def set_up(
        self,
        data: PreparedData,
        point: InitialWeights,
        weights: Path | None,
        record: RunRecord | None = None,
        previous: PreviousAttempts = PreviousAttempts(),  # noqa: B008 -- it is immutable
    ) -> "Training":
        """Build the training on this machine.

        Args:
            data: What it trains on.
            point: Says the architecture.
            weights: Its start.
            record: Of the run that goes on, whose frozen values hold; a new one has none.
            previous: The attempts of that run.
        """
        from job.training.isolation import confine_ultralytics  # noqa: PLC0415 -- torch is heavy, checks came first

        confine_ultralytics(self.order.workdir / "ultralytics")
        from job.training.loop import Training  # noqa: PLC0415 -- reads what the line above has set
        from job.training.trainer import Plan  # noqa: PLC0415 -- as above

        recipe = self.order.recipe
        max_det = record.facts.max_det if record else recipe.train["max_det"] if "max_det" in recipe.given else None
        plan = Plan(
            train=recipe.train | {"max_det": max_det},
            data_yaml=data.yaml,
            folder=self._made("run"),
            architecture=point.architecture,
            weights=weights,
            same_classes=point.kind == "own" and not self.order.new_classes,
            device=self.order.device,
            workers=self.order.workers,
            num_threads=record.facts.num_threads if record else environment.num_threads(),
            resumed=record is not None,
            ran_out_of_memory=previous.ran_out_of_memory,
            group=self.group,
        )
        if self.group.size > 1:
            self.group.broadcast(
                SharedPlan(replace(plan, group=ProcessGroup()), data.pinned, File.read(weights) if weights else None)
            )
        return Training(plan)

    def _share_state(self, folder: Path | None, *, reopen: bool = False) -> None:
        """Give the other processes the files of the checkpoint that training goes on from, if there is one."""
        if self.group.size > 1:
            files = tuple(File.read(path) for path in folder.iterdir()) if folder else ()
            self.group.broadcast(SharedState(files, reopen=reopen))

    def _require_same_facts(self, record: RunRecord, training: "Training") -> None:
        different = differences(record.facts.model_dump(exclude_unset=True), training.facts)
        if record.facts.device != training.facts["device"]:
            message = (
                f"run {record.run}: this machine would train it on another kind of device; take one like its first"
            )
            raise MachineError(message, different)
        if different:
            raise RunConflictError(
                f"run {record.run}: this machine would train it differently; continue it on a machine like its first, "
                "or start a new run",
                different,
            )

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def _emptied(self, name: str) -> Path:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self._made(name)
