"""Comparison of runs: recipe, data, result and cost side by side.

Guarantees that metrics count as comparable only if they were measured on the same validation set, and that a best run
is named only then. Knows nothing of terminals and pages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from job.analysis.metrics import LABELS
from job.analysis.summary import RunSummary

DIGITS_OF_DIGEST = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One property of every run, as text."""

    label: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs differ in it."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side."""

    runs: tuple[str, ...]
    sections: dict[str, tuple[Field, ...]]
    """Fields of ``recipe``, ``data``, ``result`` and ``cost``."""

    not_comparable: str | None
    """Why metrics must not be compared; None if they may."""

    best: str | None
    """The finished run with the highest F1, if metrics may be compared."""

    @property
    def recorded(self) -> dict[str, list[Field]]:
        """The sections, without fields that are empty for every run."""
        return {section: [field for field in fields if any(field.values)] for section, fields in self.sections.items()}

    @property
    def verdict(self) -> tuple[str, str]:
        """A label and a sentence."""
        if self.not_comparable is not None:
            return "warning", f"metrics are not comparable: {self.not_comparable}"
        if self.best is None:
            return "best", "none is finished"
        return "best", f"{self.best} by F1; all were measured on the same validation set"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        fields = {
            section: {field.label: dict(zip(self.runs, field.values, strict=True)) for field in fields}
            for section, fields in self.sections.items()
        }
        return {
            "runs": list(self.runs),
            "comparable": self.not_comparable is None,
            "not_comparable": self.not_comparable,
            "best": self.best,
            **fields,
        }


def compare(runs: Sequence[RunSummary]) -> Comparison:
    """Compare runs field by field."""

    def field(label: str, value: Callable[[RunSummary], object]) -> Field:
        return Field(label=label, values=tuple("" if (found := value(run)) is None else str(found) for run in runs))

    arguments = [name for name in runs[0].train if len({str(run.train.get(name)) for run in runs}) > 1]
    recipe = (
        field("recipe", lambda run: run.recipe),
        field("profile", lambda run: run.profile),
        field("start", _start),
        *(field(name, partial(_argument, name)) for name in arguments),
        field("optimizer", lambda run: run.record.facts.optimizer),
    )
    data = (
        field("dataset", lambda run: run.record.dataset.name),
        field("digest", lambda run: run.record.dataset.digest[:DIGITS_OF_DIGEST]),
        field("training images", lambda run: run.record.facts.num_train_images),
        field("validation images", lambda run: run.record.facts.num_val_images),
        field("validation set", lambda run: run.val and run.val[:DIGITS_OF_DIGEST]),
        field("set aside", lambda run: len(run.record.dataset.set_aside)),
    )
    result = (
        field("state", lambda run: run.final.reason if run.final else "not finished"),
        field("epochs", lambda run: run.final and run.final.num_epochs),
        field("best epoch", lambda run: run.final and run.final.best_epoch),
        field("F1 before", lambda run: run.before and f"{run.before['f1']:.1%}"),
        *(field(label, partial(_metric, name)) for name, label in LABELS.items()),
    )
    cost = (
        field("hours", lambda run: f"{run.hours:.2f}"),
        field("useful", _useful),
        field("epoch", lambda run: run.epoch_s and f"{run.epoch_s:.3g} s"),
        field("attempts", lambda run: len(run.attempts)),
        field("dollars", lambda run: "unknown" if run.usd is None else f"{run.usd:.2f}"),
        field("machine", lambda run: "; ".join(run.machines)),
    )
    not_comparable = _why_not_comparable(runs)
    finished = [(run.after["f1"], run.run) for run in runs if run.after]
    return Comparison(
        runs=tuple(run.run for run in runs),
        sections={"recipe": recipe, "data": data, "result": result, "cost": cost},
        not_comparable=not_comparable,
        best=max(finished)[1] if finished and not_comparable is None else None,
    )


def _why_not_comparable(runs: Sequence[RunSummary]) -> str | None:
    first = runs[0]
    others = [run for run in runs[1:] if not first.measured_alike(run)]
    if not others:
        return None
    names = ", ".join(run.run for run in others)
    if any(run.val is None for run in (first, *others)):
        return (
            f"the data of {first.run} and of {names} differ, and it was not recorded whether their validation sets do"
        )
    return f"{first.run} and {names} were measured on different validation sets"


def _start(run: RunSummary) -> str:
    point = run.record.start.point
    if point.kind == "end":
        return f"end of {point.run}"
    return point.run or point.source or f"{point.architecture} from scratch"


def _argument(name: str, run: RunSummary) -> object:
    return run.train.get(name)


def _metric(name: str, run: RunSummary) -> str | None:
    return f"{run.after[name]:.1%}" if run.after else None


def _useful(run: RunSummary) -> str | None:
    return f"{run.cost.goodput:.0%}" if run.attempts else None
