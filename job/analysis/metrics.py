"""What came of a run, for people: before and after, against what the recipe expected."""

from dataclasses import dataclass
from typing import Any

from job.recipes.recipe import Band

COLUMNS = {
    "precision": "metrics/precision(B)",
    "recall": "metrics/recall(B)",
    "map50": "metrics/mAP50(B)",
    "map50_95": "metrics/mAP50-95(B)",
}
"""Our names for Ultralytics' columns."""

LABELS = {"f1": "F1", "precision": "precision", "recall": "recall", "map50": "mAP50", "map50_95": "mAP50-95"}

LOUD_DROP = 0.5
"""F1 or mAP50 below this share of what they were is a loud warning."""

TOO_LOW_TO_DROP = 0.1
"""What was below this has nowhere to fall to; a detector that has just begun to learn scatters so much."""


def metrics_of(row: dict[str, float]) -> dict[str, float]:
    """Return the metrics of a row of ``results.csv`` as fractions of 1, with F1, the harmonic mean of P and R."""
    metrics = {name: row[column] for name, column in COLUMNS.items()}
    total = metrics["precision"] + metrics["recall"]
    f1 = 2 * metrics["precision"] * metrics["recall"] / total if total else 0.0
    return {"f1": round(f1, 5), **metrics}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Before and after, metric by metric."""

    before: dict[str, float]
    after: dict[str, float]
    expect: dict[str, Band]

    def table(self, profile: str = "full") -> str:
        """Return a table for a terminal; values are percent.

        Args:
            profile: What was expected is meant for the full profile, which the table of another one says.
        """
        expected = "expected" if profile == "full" else "expected at full scale"
        lines = [f"{'':10}{'before':>8}{'after':>8}{'change':>9}   {expected}"]
        for name, label in LABELS.items():
            before, after = self.before[name], self.after[name]
            band = self.expect.get(name)
            verdict = ""
            if band is not None:
                verdict = f"{band.text(100, ' %')}: {'reached' if band.reached(after) else 'not reached'}"
            lines.append(f"{label:10}{before:8.1%}{after:8.1%}{100 * (after - before):+9.1f}   {verdict}".rstrip())
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison for the final record."""
        return {
            "before": self.before,
            "after": self.after,
            "change": {name: round(self.after[name] - self.before[name], 5) for name in self.before},
            "expected": {name: [band.low, band.high] for name, band in self.expect.items()},
            "reached": {
                name: band.reached(self.after[name]) for name, band in self.expect.items() if name in self.after
            },
        }


def dropped(best: dict[str, float], metrics: dict[str, float]) -> bool:
    """Whether a detector is far worse than it was at its best."""
    return any(_has_dropped(best[name], metrics[name]) for name in ("f1", "map50"))


def warn_of_drop(best: dict[str, float], best_epoch: int, metrics: dict[str, float], epoch: int) -> str:
    """Return a warning for an epoch that has dropped.

    Args:
        best: The metrics of the best epoch before, or of the start weights.
        best_epoch: Which that was; 0 is the start weights.
        metrics: Those after the epoch.
        epoch: Which it is.
    """
    fallen = [
        f"{label} {best[name]:.1%} -> {metrics[name]:.1%}"
        for name, label in LABELS.items()
        if _has_dropped(best[name], metrics[name])
    ]
    than = f"after epoch {best_epoch}" if best_epoch else "its start weights"
    why = "the learning rate may be too high" if best_epoch else (
        "the learning rate may be too high, or the labels or class order differ from those the weights were trained on"
    )  # fmt: skip
    return (
        f"after epoch {epoch} the detector is far worse than {than}: {', '.join(fallen)}; {why}; if the next epochs do "
        "not win it back, stop and start a new run with a smaller --lr0"
    )


def _has_dropped(best: float, now: float) -> bool:
    return best >= TOO_LOW_TO_DROP and now < LOUD_DROP * best
