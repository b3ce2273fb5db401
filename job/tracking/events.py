"""What is told of a run: a row for each epoch, and what came of it in the end."""

from pathlib import Path
from typing import Any

from job.analysis.metrics import metrics_of
from job.report.data import Facts, read_facts
from job.report.examples import make_pictures
from job.runs.progress import Progress
from job.runs.records import RunRecord
from job.runs.run import Run
from job.tracking.client import AXIS, Curve


def rows_after(progress: Progress, epoch: int) -> list[dict[str, float]]:
    """Return the committed rows after an epoch, row 0 first: Ultralytics' columns, and F1."""
    before = progress.evaluation_before
    all_rows = ([{AXIS: 0, **before["row"]}] if before else []) + progress.rows
    return [
        row | {AXIS: int(row[AXIS]), "metrics/F1(B)": metrics_of(row)["f1"]} for row in all_rows if row[AXIS] > epoch
    ]


def tell_the_end(run: Run, record: RunRecord, curve: Curve, folder: Path) -> None:
    """Say what came of a finished run; what only the server can keep (pictures, weights) if it listens. Then close.

    Args:
        run: The run, finished.
        record: Its own.
        curve: Open.
        folder: For the weights on their way.
    """
    facts = read_facts(run, record)
    curve.summarize(_summary(facts))
    if curve.online and facts.evaluation is not None:
        names = facts.evaluation["names"]
        curve.show(make_pictures(run.store, record.dataset, names, facts.evaluation_before, facts.evaluation))
    if curve.online and facts.final is not None:
        best = folder / "best.pt"
        run.store.get(run.key("weights/best.pt"), best)
        curve.keep(best, facts.final.weights["best.pt"].model_dump())
    curve.close()


def _summary(facts: Facts) -> dict[str, Any]:
    """Return before, after and change, and what it took."""
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
