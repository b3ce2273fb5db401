"""Runs side by side: where their recipes, data, results and costs differ.

Guarantees that metrics are called comparable only if they were measured on the same validation set, and that a best
run is named only then. Knows nothing of how it is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from job.analysis.metrics import LABELS
from job.analysis.summary import RunSummary

DIGITS_OF_DIGEST = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing about each run, in words."""

    label: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs differ in it."""
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Runs side by side."""

    runs: tuple[str, ...]
    sections: dict[str, tuple[Line, ...]]
    """Of `recipe`, `data`, `result` and `cost`."""

    not_comparable: str | None
    """Why metrics may not be compared; nothing if they may."""

    best: str | None
    """The run with the highest F1, if metrics may be compared and a run is finished."""

    def to_json(self) -> dict[str, Any]:
        """Return the sheet as plain values."""
        lines = {
            section: {line.label: dict(zip(self.runs, line.values, strict=True)) for line in lines}
            for section, lines in self.sections.items()
        }
        return {
            "runs": list(self.runs),
            "comparable": self.not_comparable is None,
            "not_comparable": self.not_comparable,
            "best": self.best,
            **lines,
        }


def compare(runs: Sequence[RunSummary]) -> Sheet:
    """Put runs side by side."""

    def line(label: str, value: Callable[[RunSummary], object]) -> Line:
        return Line(label=label, values=tuple("" if (said := value(run)) is None else str(said) for run in runs))

    arguments = [name for name in runs[0].train if len({str(run.train.get(name)) for run in runs}) > 1]
    recipe = (
        line("recipe", lambda run: run.recipe),
        line("profile", lambda run: run.profile),
        line("start", _start),
        *(line(name, lambda run, name=name: run.train.get(name)) for name in arguments),  # type: ignore[misc]  # mypy does not infer a default's type
        line("optimizer", lambda run: run.record.facts.optimizer),
    )
    data = (
        line("dataset", lambda run: run.record.dataset.name),
        line("digest", lambda run: run.record.dataset.digest[:DIGITS_OF_DIGEST]),
        line("training images", lambda run: run.record.facts.num_train_images),
        line("validation images", lambda run: run.record.facts.num_val_images),
        line("validation set", lambda run: run.val and run.val[:DIGITS_OF_DIGEST]),
        line("set aside", lambda run: len(run.record.dataset.set_aside)),
    )
    result = (
        line("state", lambda run: run.final.reason if run.final else "not finished"),
        line("epochs", lambda run: run.final and run.final.num_epochs),
        line("best epoch", lambda run: run.final and run.final.best_epoch),
        line("F1 before", lambda run: run.before and f"{run.before['f1']:.1%}"),
        *(line(label, lambda run, name=name: _metric(run, name)) for name, label in LABELS.items()),  # type: ignore[misc]  # as above
    )
    cost = (
        line("hours", lambda run: f"{run.hours:.2f}"),
        line("useful", _useful),
        line("epoch", lambda run: run.epoch_s and f"{run.epoch_s:.3g} s"),
        line("attempts", lambda run: len(run.attempts)),
        line("dollars", lambda run: "unknown" if run.usd is None else f"{run.usd:.2f}"),
        line("machine", lambda run: "; ".join(run.machines)),
    )
    not_comparable = _why_not_comparable(runs)
    finished = [(run.after["f1"], run.run) for run in runs if run.after]
    return Sheet(
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


def _metric(run: RunSummary, name: str) -> str | None:
    return f"{run.after[name]:.1%}" if run.after else None


def _useful(run: RunSummary) -> str | None:
    return f"{run.cost.goodput:.0%}" if run.attempts else None
