"""One attempt at a run, from the order to its end: resolve, claim, pull, restore, train, commit, finish.

Guarantees that the same order starts a run, continues it, or says that it is finished; that a new run is written to
the bucket only once everything that can be checked has been; and that an earlier run is never written to.
"""

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import checkpoint, machine
from job.checkpoint import Manifest
from job.committer import Committer
from job.data.prepare import PreparedData, find_dataset, prepare_data
from job.errors import JobError, RunConflictError
from job.mirror import Mirror, sha256_of
from job.order import Order
from job.outcome import Comparison, metrics_of
from job.recipe import Band
from job.reporter import Reporter, say_finished
from job.run import Run, RunRecord, differences, find_run, now
from job.start import StartPoint, fetch_start, find_start
from job.store import Store

if TYPE_CHECKING:
    from job.training.fit import Outcome, Step, Training

log = logging.getLogger(__name__)

NUM_LEFT_OUT_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Ready:
    """A claimed run, set up on this machine and about to train."""

    run: Run
    record: RunRecord
    attempt: int
    training: "Training"
    restored: Manifest | None
    """The checkpoint that it goes on from."""


def train(store: Store, order: Order) -> None:
    """Bring a run to its end from wherever its last checkpoint left it.

    Safe to call again with the same order after any interruption.

    Raises:
        JobError: Before training for anything wrong with the order, the data or the machine; during it if training
            or the store fails, or another machine has taken over.
    """
    started_at = now()
    request = order.request(find_dataset(store, order.dataset))
    run, record = find_run(store, order.run, request)
    final = run.final() if record else None
    if final is not None:
        say_finished(run, final, already=True)
        return
    machine.require_writable(order.workdir)
    with _folder_of_its_own(order.workdir, run) as folder:
        session = _Session(store, order, folder, started_at)
        ready = session.begin(run, request) if record is None else session.go_on(run, record)
        with _recorded_failure(ready.run, ready.attempt, lambda: ready.training.position):
            mirror = Mirror(ready.run)
            final = session.finish(ready, session.fit(ready, mirror), mirror)
        ready.run.end_attempt(ready.attempt, "finished", "", ready.training.position)
        say_finished(ready.run, final, already=False)


@dataclass(frozen=True, slots=True)
class _Session:
    """What the steps of one attempt share."""

    store: Store
    order: Order
    folder: Path
    started_at: str

    def begin(self, run: Run, request: dict[str, Any]) -> Ready:
        """Check everything that a new run needs, then create and claim it."""
        data = self._prepare_data(request["dataset"], None, run)
        weights, point = fetch_start(self.store, find_start(self.store, self.order, run.name), self.folder / "start")
        training = self._set_up(data, point, weights, machine.num_threads())
        transfer = training.transfer
        if transfer is not None:
            log.info("start weights %s: took over %s", point, transfer)
            for line in transfer.left_out[:NUM_LEFT_OUT_SHOWN]:
                log.info("  left out %s", line)
            if len(transfer.left_out) > NUM_LEFT_OUT_SHOWN:
                log.info("  and %d more", len(transfer.left_out) - NUM_LEFT_OUT_SHOWN)
        record = RunRecord(
            run=run.name,
            created_at=now(),
            request=request,
            recipe_digest=self.order.recipe.digest,
            expect={name: [band.low, band.high] for name, band in self.order.recipe.expect.items()},
            start={"point": asdict(point), "transfer": asdict(transfer) if transfer else None},
            dataset={"name": data.name, "digest": data.digest, "set_aside": list(data.set_aside)},
            facts=training.facts,
            versions=machine.versions(),
            wandb_id=secrets.token_hex(4),
        )
        while not run.create(record):
            # Another machine was first. If it was asked the same, this is its run; else the next name is free.
            run, existing = find_run(self.store, self.order.run, request)
            if existing is not None:
                return self.go_on(run, existing)
            record = replace(record, run=run.name)
        log.info("run %s: recipe %s on %s", run.name, self.order.recipe.name, data.name)
        return Ready(run, record, self._claim(run), training, None)

    def go_on(self, run: Run, record: RunRecord) -> Ready:
        """Claim a run that exists, then set it up from its newest checkpoint."""
        attempt = self._claim(run)
        with _recorded_failure(run, attempt):
            data = self._prepare_data(record.dataset["name"], record, run)
            point = StartPoint(**record.start["point"])
            restored = checkpoint.restore(run, self._made("restored"))
            if restored is None:
                weights, _ = fetch_start(self.store, point, self.folder / "start")
            else:  # the architecture, class branches included, is that of the weights it has now
                weights, point = self.folder / "restored" / "last.pt", StartPoint("restored", None, None)
            training = self._set_up(data, point, weights, record.facts["num_threads"])
            self._require_same_facts(record, training)
            if restored is None:
                log.info("run %s: attempt %d begins again, nothing was committed", run.name, attempt)
            else:
                training.restore(self.folder / "restored")
                log.info(
                    "run %s: attempt %d goes on after epoch %d of %d",
                    *(run.name, attempt, restored.epoch, training.num_epochs),
                )
        return Ready(run, record, attempt, training, restored)

    def fit(self, ready: Ready, mirror: Mirror) -> "Outcome":
        """Train to the end, committing in the background."""
        reporter = Reporter(ready.training.num_epochs, ready.training.before)
        with Committer(ready.run, ready.attempt, self.folder / "staging", ready.restored, mirror.copy) as committer:

            def on_step(step: "Step") -> None:
                committer.check()
                reporter.on_step(step)

            try:
                return ready.training.run(committer.submit, on_step, reporter.on_epoch)
            finally:
                reporter.close()

    def finish(self, ready: Ready, outcome: "Outcome", mirror: Mirror) -> dict[str, Any]:
        """Bring the last files to the bucket and write the final record, which ends the run."""
        from job.training.weights import digest_file  # noqa: PLC0415 -- imports torch, which is loaded by now

        files = self.folder / "run"
        ready.run.require_current(ready.attempt)
        mirror.copy(files)
        expect = {name: Band(*ends) for name, ends in ready.record.expect.items()}
        comparison = Comparison(metrics_of(outcome.before), metrics_of(outcome.after), expect)
        final = {
            "attempt": ready.attempt,
            "profile": ready.record.request["profile"],
            "reason": "stopped early" if outcome.stopped_early else "complete",
            "num_epochs": len(outcome.rows),
            "best_epoch": outcome.best_epoch,
            "train_s": round(outcome.rows[-1]["time"], 3),
            "comparison": comparison.to_json(),
            "course": [{"epoch": int(row["epoch"]), **metrics_of(row)} for row in outcome.rows],
            "weights": {
                name: {"sha256": sha256_of(files / name), "tensors": digest_file(files / name)}
                for name in ("best.pt", "last.pt")
            },
        }
        ready.run.require_current(ready.attempt)
        return ready.run.finish(final)

    def _prepare_data(self, name: str, record: RunRecord | None, run: Run) -> PreparedData:
        return prepare_data(
            self.store,
            name,
            self.order.workdir,
            self.folder / "data.yaml",
            quarantine=self.order.quarantine,
            pinned=record.dataset if record else None,
            subject=f"run {run.name}",
        )

    def _set_up(self, data: PreparedData, point: StartPoint, weights: Path | None, num_threads: int) -> "Training":
        from job.training.environment import confine_ultralytics  # noqa: PLC0415 -- torch is heavy, checks came first

        confine_ultralytics(self.order.workdir / "ultralytics")
        from job.training.fit import Training  # noqa: PLC0415 -- reads what the line above has set
        from job.training.trainer import Plan  # noqa: PLC0415 -- as above

        plan = Plan(
            train=self.order.recipe.train,
            data_yaml=data.yaml,
            folder=self._made("run"),
            architecture=point.architecture,
            weights=weights,
            same_classes=point.kind == "own" and not self.order.new_classes,
            device=self.order.device,
            workers=self.order.workers,
            num_threads=num_threads,
        )
        return Training(plan)

    def _claim(self, run: Run) -> int:
        return run.claim({"started_at": self.started_at, **machine.about()})

    def _require_same_facts(self, record: RunRecord, training: "Training") -> None:
        if different := differences(record.facts, training.facts):
            raise RunConflictError(
                f"run {record.run}: this machine would train it differently; continue it on a machine like its first, "
                "or start a new run",
                different,
            )

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder


@contextlib.contextmanager
def _folder_of_its_own(workdir: Path, run: Run) -> Iterator[Path]:
    """Work in a folder that no other attempt uses, and leave nothing there that the bucket has."""
    folder = workdir / "runs" / f"{run.name}-{os.getpid()}"
    with machine.explained(workdir):
        shutil.rmtree(folder, ignore_errors=True)  # of a process of the same number that was killed
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _recorded_failure(run: Run, attempt: int, position: Callable[[], dict[str, int]] = dict) -> Iterator[None]:
    """Record in the bucket why an attempt ended, if it does not end well."""
    try:
        yield
    except BaseException as error:
        reason = type(error).__name__.removesuffix("Error").lower()
        with contextlib.suppress(JobError):  # the error that ended the attempt is the one to report
            run.end_attempt(attempt, reason, " ".join(str(error).split()), position())
        raise
