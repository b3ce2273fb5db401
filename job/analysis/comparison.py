"""Comparison of runs: recipe, data, result and cost side by side.

Guarantees that metrics count as comparable only if they were measured on the same validation set, that a best run is
named only then, and that a run which is not distinguishable from it is named as such. Knows nothing of terminals and
pages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from job.analysis.metrics import LABELS
from job.analysis.paired import PAIRED, Paired, describe_difference, is_distinguishable
from job.analysis.summary import RunSummary
from job.text import counted

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
    """Fields of ``recipe``, ``data``, ``result``, ``by picture`` and ``cost``."""

    not_comparable: str | None
    """Why metrics must not be compared; None if they may."""

    best: str | None
    """The finished run with the highest F1, if metrics may be compared."""

    paired: Paired | None = None
    """The runs by picture, if they were measured on the same ones."""

    @property
    def like_best(self) -> list[str]:
        """The runs whose F1 is not distinguishable from that of the best."""
        if self.paired is None or self.best is None:
            return []
        best = self.runs.index(self.best)
        differences = {run: self.paired.difference(number, best, "f1") for number, run in enumerate(self.runs)}
        return [run for run, each in differences.items() if run != self.best and not is_distinguishable(each)]

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
        same = "all were measured on the same validation set"
        if self.paired is not None:
            pictures = counted(self.paired.num_pictures, "picture")
            same = f"all were measured on the same {pictures} of {self.paired.basis.split}"
        alike = f"; not distinguishable from it: {', '.join(self.like_best)}" if self.like_best else ""
        return "best", f"{self.best} by F1{alike}; {same}"

    def to_json(self) -> dict[str, object]:
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
            "not_distinguishable": self.like_best,
            **fields,
        }


def _field(label: str, values: Iterable[object]) -> Field:
    return Field(label=label, values=tuple("" if value is None else str(value) for value in values))


def compare(runs: Sequence[RunSummary], paired: Paired | None = None) -> Comparison:
    """Compare runs field by field.

    Args:
        runs: The runs.
        paired: The same runs by picture, if they were measured on the same ones.
    """
    arguments = [name for name in runs[0].train if len({str(run.train.get(name)) for run in runs}) > 1]
    recipe = (
        _field("recipe", (run.recipe for run in runs)),
        _field("profile", (run.profile for run in runs)),
        _field("start", map(_start, runs)),
        *(_field(name, (run.train.get(name) for run in runs)) for name in arguments),
        _field("optimizer", (run.record.facts.optimizer for run in runs)),
    )
    data = (
        _field("dataset", (str(run.record.dataset) for run in runs)),
        _field("digest", (run.record.dataset.digest[:DIGITS_OF_DIGEST] for run in runs)),
        _field("training images", (run.record.facts.num_train_images for run in runs)),
        _field("validation images", (run.record.facts.num_val_images for run in runs)),
        _field("validation set", (run.val and run.val[:DIGITS_OF_DIGEST] for run in runs)),
        _field("set aside", (len(run.record.dataset.set_aside) for run in runs)),
    )
    result = (
        _field("state", map(_state, runs)),
        _field("epochs", (run.final and run.final.num_epochs for run in runs)),
        _field("best epoch", (run.final and run.final.best_epoch for run in runs)),
        _field("F1 before", (run.before and f"{run.before['f1']:.1%}" for run in runs)),
        *(_field(label, (run.after and f"{run.after[name]:.1%}" for run in runs)) for name, label in LABELS.items()),
    )
    cost = (
        _field("hours", (f"{run.hours:.2f}" if run.attempts else None for run in runs)),
        _field("useful", (f"{run.cost.goodput:.0%}" if run.attempts else None for run in runs)),
        _field("epoch", (run.epoch_s and f"{run.epoch_s:.3g} s" for run in runs)),
        _field("attempts", (len(run.attempts) for run in runs)),
        _field("dollars", map(_dollars, runs)),
        _field("machine", ("; ".join(run.machines) for run in runs)),
    )
    not_comparable = _why_not_comparable(runs)
    finished = [(run.after["f1"], run.run) for run in runs if run.after]
    best = max(finished)[1] if finished and not_comparable is None else None
    if best is not None and paired is not None and paired.basis.split == "test":
        best = runs[paired.best].run
    names = tuple(run.run for run in runs)
    by_picture = _by_picture(paired, names.index(best) if best else paired.best) if paired else ()
    return Comparison(
        runs=names,
        sections={"recipe": recipe, "data": data, "result": result, "by picture": by_picture, "cost": cost},
        not_comparable=not_comparable,
        best=best,
        paired=paired,
    )


def _by_picture(paired: Paired, best: int) -> tuple[Field, ...]:
    """Return each figure minus that of the best run, with its interval."""
    runs = range(len(paired.figures))
    f1s = (paired.value(run, "f1") for run in runs)
    return (
        _field("pictures", (f"{paired.basis.split}, {paired.num_pictures}" for _ in runs)),
        _field("threshold of", (paired.basis.rule for _ in runs)),
        _field("F1 on them", (None if each.value is None else f"{each.value:.1%}" for each in f1s)),
        *(
            _field(
                f"{label} to best",
                (
                    "best" if run == best else describe_difference(paired.difference(run, best, name), name)
                    for run in runs
                ),
            )
            for name, label in PAIRED.items()
        ),
    )


def _why_not_comparable(runs: Sequence[RunSummary]) -> str | None:
    first = runs[0]
    others = [run for run in runs[1:] if not first.measured_alike(run)]
    if not others:
        return None
    names = ", ".join(run.run for run in others)
    if any(run.val is None for run in (first, *others)):
        why = "differ, and it was not recorded whether their validation sets do"
        return f"the data of {first.run} and of {names} {why}"
    return f"{first.run} and {names} were measured on different validation sets"


def _dollars(run: RunSummary) -> str | None:
    if not run.attempts:
        return None
    return "unknown" if run.usd is None else f"{run.usd:.2f}"


def _state(run: RunSummary) -> str:
    state = run.final.reason if run.final else "not finished"
    return f"{state}, imported" if run.record.imported else state


def _start(run: RunSummary) -> str:
    point = run.record.start.point
    if point.kind == "end":
        return f"end of {point.run}"
    return point.run or str(point)
