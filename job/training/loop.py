"""Training loop, from the start weights to the evaluated best model; interruptible and resumable at any batch.

The order of work is that of ``engine/trainer.py`` (``_do_train``: 470-715), so that the result is that of stock
Ultralytics on the same batches. Three features of stock are left out on purpose: running out of memory never halves
the batch, a loss that is not a number never falls back to stale weights, and the clock never ends a run.
"""

import contextlib
import filecmp
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils.plotting import plot_results
from ultralytics.utils.torch_utils import autocast, unwrap_model

from job.errors import PeerError, PreemptionError, TrainingError
from job.goodput import Phase
from job.text import as_json
from job.training.background_copy import BackgroundCopy
from job.training.callbacks import Step, TrainingCallbacks
from job.training.dataset import Batch, digest_pictures
from job.training.device import BusyWait, describe_device, num_ooms, synchronize
from job.training.distributed import WORK_S
from job.training.evaluation import describe_validation, detections_collected
from job.training.evaluation_record import harmonic_mean
from job.training.files import BEST, EVALUATION, EVALUATION_BEFORE, LAST, RESULTS, STATE
from job.training.library_errors import explained
from job.training.library_warnings import LibraryWarnings
from job.training.position import Position
from job.training.signals import notices_blocked
from job.training.state import Row, Snapshot, TrainingProgress, capture, digest_live, read_state, restore_state
from job.training.trainer import Plan, Trainer
from job.training.weights import Weights, load_weights

LOSSES, LOSSES_WITHOUT_BINS = ("box_loss", "cls_loss", "dfl_loss"), ("box_loss", "cls_loss", "l1_loss")
"""Losses of a head that predicts the distances to a box's edges in bins, or, as YOLO26's, as they are."""


class Training:
    """One training on one machine: build it, restore it if the run is resumed, run it."""

    def __init__(self, plan: Plan) -> None:
        """Set up everything up to the first step; raises as `Trainer` does."""
        self.plan = plan
        self._warnings = LibraryWarnings()
        with explained(plan, lambda: plan.resumed), self._warnings.collected():
            self.trainer = Trainer(plan)
        self._ooms_before = num_ooms(self.trainer.device)
        self._seen_elsewhere: list[tuple[list[str], int]] = []
        self.nominal_accumulate: int = self.trainer.accumulate
        self.progress = TrainingProgress()
        self.last: Weights
        self.best: Weights | None = None
        self.before_and_after: tuple[Row | None, Row]
        """Metrics of the start weights, if they were measured, and of the best weights as read back, after `run`."""

        self.evaluation_before: bytes | None = None
        """The detections of the start weights, for the report."""

        self._is_restored = False
        self._copying = BackgroundCopy()
        self._counted_until = time.monotonic()

    @property
    def num_epochs(self) -> int:
        """Epochs in the whole run."""
        return int(self.trainer.epochs)

    @property
    def best_epoch(self) -> int:
        """The epoch (1-based) of the best weights."""
        return int(self.trainer.stopper.best_epoch)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self.trainer.train_loader)

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self.progress.position

    @property
    def facts(self) -> dict[str, object]:
        """Values that set-up decides, and that must be equal in every attempt."""
        trainer = self.trainer
        return {
            "optimizer": type(trainer.optimizer).__name__,
            "lr0": trainer.args.lr0,
            "amp": bool(trainer.amp),
            "batch": trainer.batch_size,
            "imgsz": trainer.args.imgsz,
            "max_det": trainer.args.max_det,
            "num_train_images": trainer.batches.num_images,
            "num_val_images": len(trainer.test_loader.dataset),
            "num_threads": self.plan.num_threads,
            "mosaic_stride": self.plan.mosaic_stride,
            "device": trainer.device.type,
            "world_size": self.plan.group.size,
        }

    @cached_property
    def environment(self) -> dict[str, object]:
        """Further values that may decide the last bits: of the device, and digests of each split as it was read."""
        trainer = self.trainer
        pictures = {name: digest_pictures(labels, trainer.data["path"]) for name, labels in trainer.labels.items()}
        return {**describe_device(trainer.device), "pictures": pictures}

    @property
    def evidence(self) -> dict[str, object]:
        """Warnings and failed allocations, which decide whether the result is exact; see `job.runs.resume.exactness`.

        Those of other ranks are as of the end of an epoch, or of the step at which all stopped.
        """
        texts, ooms = zip(self._seen_here(), *self._seen_elsewhere, strict=True)
        return {"warnings": list(dict.fromkeys(chain(*texts))), "num_ooms": sum(ooms)}

    def _seen_here(self) -> tuple[list[str], int]:
        return self._warnings.texts, num_ooms(self.trainer.device) - self._ooms_before

    def _gather_evidence(self) -> None:
        _, *self._seen_elsewhere = self.plan.group.all_gather(self._seen_here())

    @property
    def record_fields(self) -> dict[str, object]:
        """Fields of an attempt's records for its training."""
        return {"position": self.position, "evidence": self.evidence, "best_f1": self._best_f1}

    @property
    def _best_f1(self) -> float | None:
        """F1 of the epoch of the best weights, if there is one yet."""
        if not self.best_epoch:
            return None
        row = self.progress.rows[self.best_epoch - 1]
        return round(harmonic_mean(row["metrics/precision(B)"], row["metrics/recall(B)"]), 5)

    def restore(self, folder: Path, *, reopen: bool = False) -> dict[str, str]:
        """Restore the state of a checkpoint; return the digests of the live state, for comparison with the snapshot's.

        With `reopen` the checkpoint is the end of a run with fewer epochs, or of one that stopped early: everything is
        restored as saved, functions of the number of epochs (learning rate, the end of mosaic) follow the new number,
        and patience begins anew.

        Raises `CorruptObjectError` if the file is no state, is that of another model, or has a value that is not a
        number, `WeightsError` if one has no weights; no code in it was run.
        """
        self.progress, self._is_restored = restore_state(self.trainer, read_state(folder / STATE)), True
        restored = partial(Weights.restored, model=self.trainer.ema.ema, train_args=dict(vars(self.trainer.args)))
        last, best, evaluation = folder / LAST, folder / BEST, folder / EVALUATION_BEFORE
        self.last, self.best = restored(last), None
        if best.exists():
            is_last = filecmp.cmp(best, last, shallow=False)
            self.best = self.last if is_last else restored(best)
        self.evaluation_before = evaluation.read_bytes() if evaluation.exists() else None
        if reopen:
            self.progress.phase, self.progress.stopped_early = "training", False
            self.progress.waits_from = self.progress.epoch
        return digest_live(self.trainer)

    def run(self, callbacks: TrainingCallbacks) -> None:
        """Train to the end, and leave weights, ``results.csv``, evaluations and plots in the plan's folder.

        Raises `TrainingError` if a loss is not a number, and errors of `job.training.library_errors`; `PeerError` if
        another process is gone; `PreemptionError` if the callbacks end it, which have a snapshot of all that was done.
        """
        self._counted_until = time.monotonic()
        self.trainer.callbacks["on_val_batch_end"] = [lambda _validator: callbacks.on_validation_batch()]
        try:
            with explained(self.plan, lambda: self.progress.epoch > 0), self._warnings.collected():
                if not self._is_restored:
                    self._begin(callbacks)
                while self.progress.phase == "training":
                    self._train_epoch(callbacks)
                    self._close_epoch(self._validated(callbacks))
                    callbacks.on_epoch(self.progress.rows[-1], self.snapshot)
                callbacks.enter(Phase.FINAL_EVALUATION)
                with callbacks.interruptible():
                    self._evaluate_best(callbacks)
                    self._gather_evidence()
        except PreemptionError as notice:
            if notice.on_all_ranks:
                with contextlib.suppress(PeerError):
                    self._gather_evidence()
            raise
        finally:
            self.trainer.shut_loaders()

    def synchronize(self) -> None:
        """Wait until a GPU has done all that it was given."""
        synchronize(self.trainer.device)

    def snapshot(self) -> Snapshot:
        """Copy the complete training state; on a CPU most of it in the background, until the next optimizer step."""
        self._copying.wait()
        self._count_time()
        progress = replace(self.progress, rows=list(self.progress.rows))
        state, self._copying = capture(self.trainer, progress, in_background=self.trainer.device.type == "cpu")
        return Snapshot(progress, state, self._copying, self.last, self.best, self._texts())

    def _finish_copy(self, callbacks: TrainingCallbacks) -> None:
        """Wait for the copy of the last snapshot, before weights, EMA or moments change."""
        with callbacks.stalled() if self._copying.is_running else contextlib.nullcontext():
            self._copying.wait()

    def _texts(self) -> dict[str, bytes]:
        before = self.evaluation_before
        results = {RESULTS: results_csv(self.progress.rows).encode()}
        return results if before is None else results | {EVALUATION_BEFORE: before}

    def _begin(self, callbacks: TrainingCallbacks) -> None:
        """Export the start weights, and measure them if they were trained to find anything."""
        self.last = self._export()
        if not (self.trainer.starts_trained or callbacks.measures_any_start):
            return
        callbacks.enter(Phase.VALIDATION)
        with callbacks.interruptible():
            before, self.evaluation_before = self._evaluate(epoch=0)
        self.progress.before = before
        callbacks.on_epoch({"epoch": 0, **before}, self.snapshot)

    def _train_epoch(self, callbacks: TrainingCallbacks) -> None:
        trainer, progress = self.trainer, self.progress
        epoch = progress.epoch  # 0-based, as Ultralytics counts
        num_batches = self.num_batches
        warmup = trainer._get_warmup_iterations(num_batches)  # noqa: SLF001 -- a piece of the stock loop
        trainer.epoch = epoch
        trainer.scheduler.last_epoch = epoch - 1
        if not progress.batch:  # else the rates are restored, and those of the last batch are in the results
            trainer.scheduler.step()
        trainer._model_train()  # noqa: SLF001 -- a piece of the stock loop
        self._weigh_branches(epoch)
        batches = _timed(trainer.epoch_of_batches(epoch, progress.batch), callbacks, trainer.device)
        for index, batch in enumerate(batches, start=progress.batch):
            number = index + num_batches * epoch
            if warmup and number <= warmup:
                self._warm_up(number, warmup)
            # The processes of a compiler must not end by a notice, with which the step would fail.
            with notices_blocked() if trainer.args.compile else contextlib.nullcontext():
                self._forward_backward(batch, index)
            if number - progress.last_step >= trainer.accumulate:
                self._finish_copy(callbacks)
                trainer.optimizer_step()
                progress.last_step = number
            progress.batch = index + 1
            step = Step(epoch + 1, progress.batch, num_batches, trainer.tloss, batch["img"])
            callbacks.on_step(step, self.snapshot)

    def _weigh_branches(self, epoch: int) -> None:
        """Weigh the two branches of YOLOv10's and YOLO26's head by the complete epochs, as the stock loop does."""
        model: Any = unwrap_model(self.trainer.model)
        if epoch and getattr(model, "criterion", None) is None:  # of a process that has resumed
            model.criterion = model.init_criterion()
        if epoch and hasattr(model.criterion, "update"):
            model.criterion.updates = epoch - 1
            model.criterion.update()

    def _warm_up(self, number: int, warmup: int) -> None:
        trainer = self.trainer
        span = [0, warmup]
        trainer.accumulate = max(1, int(np.interp(number, span, [1, self.nominal_accumulate]).round()))
        for group in trainer.optimizer.param_groups:
            first = trainer.args.warmup_bias_lr if group.get("param_group") == "bias" else 0.0
            target = group["initial_lr"] * trainer.lf(trainer.epoch)
            group["lr"] = float(np.interp(number, span, [first, target]))
            if "momentum" in group:
                momenta = [trainer.args.warmup_momentum, trainer.args.momentum]
                group["momentum"] = float(np.interp(number, span, momenta))

    def _forward_backward(self, batch: Batch, index: int) -> None:
        trainer = self.trainer
        precision = torch.bfloat16 if trainer.args.amp == "bf16" else trainer.amp
        with autocast(precision, device=trainer.device.type):
            loss, trainer.loss_items = self._losses(trainer.preprocess_keyed(batch, index))
            trainer.loss = loss.sum() * self.plan.group.size  # gradients are averaged over all processes
        trainer.scaler.scale(trainer.loss).backward()
        trainer.tloss = (
            {name: (trainer.tloss[name] * index + value) / (index + 1) for name, value in trainer.loss_items.items()}
            if index
            else trainer.loss_items
        )

    def _losses(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return loss and parts; a compiled model leaves them to the one that it was made of, as in the stock loop.

        A last batch that is smaller is trained as it is: kernels of its own would take longer than they save.
        """
        trainer, bare = self.trainer, unwrap_model(self.trainer.model)
        if trainer.args.compile:
            model = trainer.model if len(batch["img"]) == trainer.batch_size else bare
            loss, items = bare.loss(batch, model(batch["img"]))
        else:
            loss, items = trainer.model(batch)
        return loss, items

    def _validated(self, callbacks: TrainingCallbacks) -> Row:
        """Validate the trained epoch; a notice, or the loss of a peer, keeps the trained steps."""
        callbacks.enter(Phase.VALIDATION)
        trainer = self.trainer
        try:
            self._gather_evidence()
            with callbacks.interruptible():
                row = self._validate_epoch()
            decides = (row, trainer.fitness, trainer.best_fitness)
            row, trainer.fitness, trainer.best_fitness = self.plan.group.broadcast(decides)
        except (PreemptionError, PeerError):
            callbacks.commit(self.snapshot)
            raise
        return row

    def _validate_epoch(self) -> Row:
        trainer = self.trainer
        if self.plan.group.is_rank_zero:  # the others take its word
            self._require_finite(float(trainer.loss.detach()), "loss")
        trainer.loss_names = tuple(trainer.loss_items)
        trainer.ema.update_attr(trainer.model, include=["yaml", "nc", "args", "names", "stride", "class_weights"])
        trainer._clear_memory(0.5)  # noqa: SLF001 -- as the stock loop, against a peak of memory in validation
        trainer.validator.args.plots = False
        trainer.metrics, trainer.fitness = trainer.validate()
        self._require_finite(trainer.fitness, "fitness")
        rates = {f"lr/pg{index}": group["lr"] for index, group in enumerate(trainer.optimizer.param_groups)}
        return _plain({**trainer.label_loss_items(trainer.tloss), **trainer.metrics, **rates})

    def _close_epoch(self, row: Row) -> None:
        trainer, progress = self.trainer, self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self._count_time()
        progress.rows.append({"epoch": progress.epoch, "time": progress.train_s, **row})
        last = progress.epoch >= self.num_epochs
        waited = progress.epoch - progress.waits_from >= trainer.stopper.patience
        if (trainer.stopper(progress.epoch, trainer.fitness) and waited) or last:
            progress.phase, progress.stopped_early = "evaluating", not last
        self.last = self._export()
        if trainer.fitness == trainer.best_fitness:
            self.best = self.last

    def _evaluate(self, epoch: int) -> tuple[Row, bytes]:
        """Validate the EMA without changing the best fitness; return the metrics, and the detections as JSON."""
        trainer = self.trainer
        trainer.epoch = epoch
        head: Any = unwrap_model(trainer.model).model[-1]
        trainer.loss_names = LOSSES if head.reg_max > 1 else LOSSES_WITHOUT_BINS
        trainer.loss_items = {name: torch.zeros(1, device=trainer.device) for name in trainer.loss_names}
        with detections_collected(trainer.validator) as seen:
            measured = trainer.validator(trainer)
        seen = list(chain.from_iterable(self.plan.group.all_gather(seen, WORK_S)))
        row = _plain({name: value for name, value in measured.items() if name != "fitness"})
        return row, as_json(describe_validation(trainer.validator, seen, row).model_dump(mode="json"))

    def _evaluate_best(self, callbacks: TrainingCallbacks) -> None:
        """Validate the best weights, read back from their file, and draw Ultralytics' plots."""
        trainer, progress, folder = self.trainer, self.progress, self.plan.folder
        if self.best is None:
            raise TrainingError("training: ended without a best epoch; this is a defect, please report it")
        files = {LAST: self.last.to_bytes(), BEST: self.best.to_bytes(), **self._texts()}
        for name, data in files.items():
            (folder / name).write_bytes(data)
        self._finish_copy(callbacks)
        trainer.ema.ema.load_state_dict(load_weights(folder / BEST).state_dict())
        trainer.validator.args.plots = bool(trainer.args.plots)
        last_epoch = trainer.epochs - 1  # the only one with plots (engine/validator.py: 180)
        after, evaluation = self._evaluate(last_epoch)
        (folder / EVALUATION).write_bytes(evaluation)
        if trainer.args.plots and self.plan.group.is_rank_zero:
            plot_results(file=folder / RESULTS)
        self.before_and_after = progress.before, after

    def _export(self) -> Weights:
        """Copy the EMA as a finished checkpoint of Ultralytics, with the learning curve so far."""
        trainer = self.trainer
        rows = self.progress.rows
        columns = {name: [row[name] for row in rows if name in row] for name in (rows[0] if rows else {})}
        return Weights(
            trainer.ema.ema,
            train_args=dict(vars(trainer.args)),
            train_metrics=_plain({**trainer.metrics, "fitness": trainer.fitness or 0.0}),
            train_results=columns,
        )

    def _count_time(self) -> None:
        """Add the time since the last call to the training time of all attempts."""
        now = time.monotonic()
        self.progress.train_s += now - self._counted_until
        self._counted_until = now

    def _require_finite(self, value: float, what: str) -> None:
        if not np.isfinite(value):
            raise TrainingError(
                f"training: the {what} is not a number in epoch {self.progress.epoch + 1}, found {value}; the last "
                "good checkpoint is kept; lower --lr0 or augment less, and start a new run"
            )


def _timed(batches: Iterator[Batch], callbacks: TrainingCallbacks, device: torch.device) -> Iterator[Batch]:
    """Enter `Phase.DATA_WAIT` while waiting for a batch, and `Phase.USEFUL` while it trains.

    A GPU is given a step before it has done the one before: as long as it is busy, no wait is one for data.
    """
    wait = BusyWait(device)
    callbacks.enter(Phase.DATA_WAIT)
    wait.begin()
    for batch in batches:
        wait.end()
        callbacks.enter(Phase.USEFUL)
        yield batch
        if busy_s := wait.busy_s():
            callbacks.rebook(busy_s, Phase.DATA_WAIT, Phase.USEFUL)
        callbacks.enter(Phase.DATA_WAIT)
        wait.begin()
    callbacks.enter(Phase.USEFUL)
    synchronize(device)


def results_csv(rows: list[Row]) -> str:
    """Write rows as Ultralytics writes ``results.csv``."""
    if not rows:
        return ""
    lines = [",".join(rows[0])]
    lines += [",".join(f"{value:.6g}" for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def _plain(values: Mapping[str, Any]) -> Row:
    return {name: float(value) for name, value in values.items()}
