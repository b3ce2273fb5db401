"""Detection metrics of a run: F1, precision, recall, mAP; before against after, and against the recipe's bands.

Guarantees shares of 1 under the names of `LABELS`. Knows nothing of the source of rows.
"""

from dataclasses import dataclass
from typing import Self

from job.analysis.falls import LOUD_DROP, TOO_LOW_TO_DROP, Schedule
from job.recipes.recipe import Band
from job.runs.records import BeforeAfterRecord
from job.text import table

LABELS = {"f1": "F1", "precision": "precision", "recall": "recall", "map50": "mAP50", "map50_95": "mAP50-95"}


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Metrics of the start weights and of the best weights, and the bands that the recipe expects."""

    before: dict[str, float] | None
    """None if they were not measured."""

    after: dict[str, float]
    expect: dict[str, Band]

    @classmethod
    def from_record(cls, record: BeforeAfterRecord) -> Self:
        """Read the entry of the final record."""
        return cls(record.before, record.after, {name: Band(*ends) for name, ends in record.expected.items()})

    def table(self, profile: str = "full") -> str:
        """Return a table for a terminal, in percent; a demo neither reaches nor misses the bands of full scale."""
        is_full = profile == "full"
        expected = "expected" if is_full else "expected at full scale"
        rows = [("", "before", "after", "change", expected) if self.before else ("", "after", expected)]
        for name, label in LABELS.items():
            before, after = self.before[name] if self.before else None, self.after[name]
            verdict = ""
            if (band := self.expect.get(name)) is not None:
                verdict = band.text(100, " %")
                if is_full:
                    verdict += ": reached" if band.reached(after) else ": not reached"
            if before is None:
                rows.append((label, f"{after:.1%}", verdict))
            else:
                rows.append((label, f"{before:.1%}", f"{after:.1%}", f"{100 * (after - before):+.1f}", verdict))
        return "\n".join(table(rows, right=(1, 2, 3) if self.before else (1,)))

    def to_json(self) -> dict[str, object]:
        """Return the entry of the final record."""
        return {
            "before": self.before,
            "after": self.after,
            "change": {name: round(self.after[name] - value, 5) for name, value in (self.before or {}).items()},
            "expected": {name: [band.low, band.high] for name, band in self.expect.items()},
            "reached": {
                name: band.reached(self.after[name]) for name, band in self.expect.items() if name in self.after
            },
        }


def has_dropped(best: dict[str, float], metrics: dict[str, float]) -> bool:
    """Whether F1 or mAP50 is far below its best."""
    return any(_is_drop(best[name], metrics[name]) for name in ("f1", "map50"))


def drop_warning(
    best: dict[str, float], best_epoch: int, metrics: dict[str, float], epoch: int, schedule: Schedule
) -> str:
    """Return the warning for an epoch far below the best one, where epoch 0 is the start weights."""
    names = [name for name in LABELS if _is_drop(best[name], metrics[name])]
    fallen = [f"{LABELS[name]} {best[name]:.1%} -> {metrics[name]:.1%}" for name in names]
    than, why = f"after epoch {best_epoch}", schedule.cause(epoch)
    if not best_epoch:
        than = "its start weights"
        why += ", or the labels or class order differ from those the weights were trained on"
    return (
        f"after epoch {epoch} the detector is far worse than {than}: {', '.join(fallen)}; {why}; if the next epochs do "
        f"not win it back, stop and start a new run with {schedule.remedy}, a third of the rate"
    )


def _is_drop(best: float, now: float) -> bool:
    return best >= TOO_LOW_TO_DROP and now < LOUD_DROP * best
