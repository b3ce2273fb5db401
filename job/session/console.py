"""Console output of a training: one live line for the whole run, a line for each epoch, the table at the end."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from job.analysis.falls import Schedule, find_falls
from job.analysis.metrics import BeforeAfter, drop_warning, has_dropped
from job.analysis.summary import finished_runs, read_summary, with_evaluation
from job.datasets.versions import newer_version
from job.errors import JobError
from job.log import LiveLine
from job.report.reproduce import use_of
from job.runs.progress import metrics_of
from job.runs.records import FinalRecord, Request, RunRecord
from job.runs.request import command_for
from job.runs.run import BEST_WEIGHTS, REPORT, Run
from job.runs.search import find_run
from job.text import HOUR, NUM_LABEL, command_line, counted, dataset_and_version, dollars, duration, labelled
from job.training.callbacks import Step

if TYPE_CHECKING:
    from job.training.state import Row

log = logging.getLogger(__name__)

RESULTS = {"report": REPORT, "weights": BEST_WEIGHTS}
"""Objects of a finished run that a person wants, by label."""

IN_A_LINE = {"f1": "F1", "precision": "P", "recall": "R", "map50": "mAP50"}


class Reporter:
    """Shows one attempt's progress, on from row 0 (`before`, of the start weights) and the rows of earlier attempts."""

    def __init__(
        self,
        num_epochs: int,
        before: "Row | None",
        rows: "Sequence[Row]" = (),
        usd_per_hour: float | None = None,
        *,
        record: RunRecord,
        usd_so_far: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_epochs = num_epochs
        self._schedule = Schedule.of(record)
        self._f1: dict[int, float] = {}
        self._usd_per_hour, self._usd_so_far, self._clock = usd_per_hour, usd_so_far, clock
        self._epoch_since: float | None = None
        self._logged_time_left = False
        self._best: tuple[int, dict[str, float]] | None = None
        self._has_dropped = False
        for row in (*([{"epoch": 0, **before}] if before else []), *rows):
            self._judge(int(row["epoch"]), metrics_of(row))
        self._line = LiveLine(num_epochs)
        self._done, self._num_validated = float(len(rows)), 0
        self._measured_from: tuple[float, float] | None = None

    def on_step(self, step: Step) -> None:
        """Show the batch, and of the run the share that is done, the time left and the cost so far."""
        self._done, self._num_validated = step.epoch - 1 + step.batch / step.num_batches, 0
        if self._measured_from is None:
            self._measured_from = self._done, self._clock()
        self._show(f"epoch {step.epoch}/{self._num_epochs}, batch {step.batch}/{step.num_batches}")

    def on_validation_batch(self) -> None:
        """Show that validation moves."""
        self._num_validated += 1
        self._show(f"validation, batch {self._num_validated}")

    def _show(self, label: str) -> None:
        self._line.show(label, self._done, ", ".join(self._notes()))

    def _notes(self) -> Iterator[str]:
        """Yield the time left, by the pace of this attempt so far, and the cost so far, where they are known."""
        done_before, since = self._measured_from or (self._done, 0.0)
        if self._done > done_before:
            pace_s = (self._clock() - since) / (self._done - done_before)
            yield f"{duration(pace_s * (self._num_epochs - self._done))} left"
        if (usd := self._usd_so_far()) is not None:
            yield f"{dollars(usd)} so far"

    def on_epoch(self, row: "Row") -> None:
        """Log the metrics of an epoch, or, for row 0, those of the start weights."""
        self._num_validated = 0
        metrics = metrics_of(row)
        epoch = int(row["epoch"])
        shown = "  ".join(f"{label} {metrics[name]:6.1%}" for name, label in IN_A_LINE.items())
        digits = len(str(self._num_epochs))
        since, self._epoch_since = self._epoch_since, self._clock()
        warning = self._judge(epoch, metrics)
        if epoch == 0:
            log.info("before%s  %s", " " * 2 * digits, shown, extra={"epoch": 0, **metrics})
            return
        losses = "  ".join(f"{name} {row[f'train/{name}_loss']:.2f}" for name in ("box", "cls"))
        log.info(
            "epoch %*d/%d  %s  %s",
            *(digits, epoch, self._num_epochs, shown, losses),
            extra={"epoch": epoch, **metrics},
        )
        if warning is not None:
            log.warning("%s", warning)
        self._tell_fall(epoch, warned=warning is not None)
        if since is not None and not self._logged_time_left and epoch < self._num_epochs:
            self._logged_time_left = True
            self._log_time_left(self._num_epochs - epoch, self._epoch_since - since)

    def _judge(self, epoch: int, metrics: dict[str, float]) -> str | None:
        """Return a warning if the metrics of an epoch drop far below the best; once for each drop."""
        self._f1[epoch] = metrics["f1"]
        best_epoch, best = self._best or (epoch, metrics)
        if metrics["f1"] >= best["f1"]:
            self._best = epoch, metrics
        fell_before, self._has_dropped = self._has_dropped, has_dropped(best, metrics)
        if fell_before or not self._has_dropped:
            return None
        return drop_warning(best, best_epoch, metrics, epoch, self._schedule)

    def _tell_fall(self, epoch: int, *, warned: bool) -> None:
        """Log a fall that is too small for a warning, and that F1 is back."""
        curve = [f1 for number, f1 in self._f1.items() if number]
        for fall in find_falls(curve, self._f1.get(0)):
            if fall.epoch == epoch and not warned:
                log.info("%s", fall.describe(self._schedule))
            if fall.back_by == epoch:
                log.info("after epoch %d F1 is back at that of %s", epoch, fall.best_place)

    def _log_time_left(self, num_epochs: int, epoch_s: float) -> None:
        """Log the time left, once, by the first epoch that this attempt trained from its beginning."""
        hours = num_epochs * epoch_s / 3600
        usd = None if self._usd_per_hour is None else hours * self._usd_per_hour
        log.info(
            "at %.3g s an epoch the rest takes %s%s",
            *(epoch_s, duration(hours * HOUR), "" if usd is None else f" and costs {usd:.2f} USD"),
            extra={"epoch_s": epoch_s, "hours_left": hours, "usd_left": usd},
        )

    def close(self) -> None:
        """Close the live line."""
        self._line.close()


def say_finished(run: Run, record: RunRecord, final: FinalRecord, *, already: bool) -> None:
    """Print the result of a finished run, where it is, and the commands that use it and that go on."""
    state = "was finished before" if already else "is finished"
    advice = "; to train it again, pass --run with a new name" if already else ""
    log.info(
        "run %s %s: %s after %s, best in epoch %d%s",
        *(run.name, state, final.reason, counted(final.num_epochs, "epoch"), final.best_epoch, advice),
    )
    if not final.bits.exact:
        log.warning("not bit-exact from attempt %d: %s", final.bits.from_attempt, "; ".join(final.bits.because))
    table = BeforeAfter.from_record(final.comparison).table(final.profile)
    lines = [f"{label:{NUM_LABEL}}{run.store.uri}/{run.key(name)}" for label, name in RESULTS.items()]
    lines += [*command_line("to use it", use_of(run)), *_next_step(run, record)]
    print("\n".join(["", table, "", *lines]))  # noqa: T201 -- the result is data


def _next_step(run: Run, record: RunRecord) -> list[str]:
    """Return the advice after a finished run and its command as lines; none, with a warning, if it cannot be read."""
    from job.analysis.advice import advise  # noqa: PLC0415 -- a training waits for it at its end, not at its start

    try:
        summary = with_evaluation(run.store, read_summary(run, record))
        advice = advise(summary, finished_runs(run.store), bucket=run.store.uri)
    except JobError as error:
        log.warning("run %s: the next step is not known, %s", run.name, error)
        return []
    if not advice.options:
        return labelled("next", advice.because)
    option = advice.options[0]
    return [*labelled("next", f"{option.title}, by the rule {advice.rule!r}"), *command_line("", option.command)]


def say_newer_data(run: Run, record: RunRecord, request: Request, *, finished: bool) -> None:
    """Log that a run's dataset has a newer version; of a finished run with the command that trains on it.

    A request for a certain version asks for no other.
    """
    dataset = record.dataset
    if dataset_and_version(str(request["dataset"]))[1] is not None:
        return
    newest = newer_version(run.store, dataset.name, dataset.digest)
    if newest is None or newest <= (dataset.version or 0):
        return
    kept = "an earlier version" if dataset.version is None else f"version {dataset.version}"
    told = f"dataset {dataset.name}: has version {newest} now, run {run.name}"
    if not finished:
        log.info("%s stays on %s", told, kept)
        return
    newer: Request = {**request, "dataset": f"{dataset.name}@{newest}"}
    other, _ = find_run(run.store, None, newer)
    command = command_for("train", newer, other.name, run.store.uri)
    log.info("%s was trained on %s; to train on the newer:\n  %s", told, kept, command)
