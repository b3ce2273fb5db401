"""W&B events: committed rows after the server's last epoch, and the result, read from a run's records."""

from pathlib import Path

from job.report.data import Facts, read_facts
from job.report.examples import make_pictures
from job.runs.listing import RunListing
from job.runs.progress import metrics_of, read_progress
from job.runs.records import RunRecord
from job.runs.run import BEST_WEIGHTS, Run
from job.tracking.client import AXIS, NO_EPOCH, WandbRun
from job.training.files import BEST


class CommittedRows:
    """The committed rows of a run: Ultralytics' columns, F1, and the attempt that trained the epoch."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._resumed_at = {
            attempt.number: attempt.receipt.checkpoint.epoch if attempt.receipt else NO_EPOCH
            for attempt in RunListing(run).attempts()
            if attempt.start
        }

    def after(self, epoch: int) -> list[dict[str, float]]:
        """Return the rows after an epoch, in order; row 0 is the evaluation of the start weights."""
        progress = read_progress(self._run)
        before = progress.evaluation_before
        rows = ([{AXIS: 0, **before.row}] if before else []) + progress.rows
        return [self._complete(row, int(row[AXIS])) for row in rows if row[AXIS] > epoch]

    def _complete(self, row: dict[str, float], epoch: int) -> dict[str, float]:
        own = [number for number, resumed_at in self._resumed_at.items() if resumed_at < epoch]
        attempt = max(own, default=1)  # rows of an extended run count as the first attempt's
        return row | {AXIS: epoch, "metrics/F1(B)": metrics_of(row)["f1"], "attempt": attempt}


def log_result(run: Run, record: RunRecord, wandb_run: WandbRun, folder: Path) -> None:
    """Log the result of a finished run: summary, validation images before and after, best weights. Then finish."""
    facts = read_facts(run, record)
    wandb_run.update_summary(_summary(facts))
    if facts.evaluation is not None:
        pictures = make_pictures(run.store, record.dataset, facts.evaluation_before, facts.evaluation)
        wandb_run.log_predictions(pictures)
    if facts.final is not None:
        best = folder / BEST
        run.store.get(run.key(BEST_WEIGHTS), best)
        wandb_run.log_model(best, facts.final.weights[BEST].model_dump())
    wandb_run.finish()


def _summary(facts: Facts) -> dict[str, object]:
    """Return metrics before, after and change, and the run's cost."""
    final, cost = facts.final, facts.cost
    measured = final.comparison.model_dump(include={"before", "after", "change"}) if final else {}
    return measured | {
        "reason": final.reason if final else None,
        "best_epoch": facts.best_epoch,
        "preemptions": cost.num_cut_off,
        "cut_at_epochs": facts.cuts,
        "exact": facts.bits.model_dump(exclude_unset=True),
        "goodput": cost.goodput,
        "seconds": {str(label): seconds for label, seconds in cost.seconds.items() if seconds},
        "usd": cost.usd,
    }
