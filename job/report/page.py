"""A report as HTML: facts as text, tables and charts in the template.

Guarantees one self-contained file: nothing in it makes a request, and no text of a run is taken for markup.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from job.analysis.learning_curve import RULES, notes_on
from job.analysis.metrics import LABELS
from job.errors import EndReason
from job.goodput import Phase
from job.recipes.recognition import shown_recipe
from job.report import charts
from job.report.charts import Series
from job.report.data import Facts
from job.report.examples import make_pictures
from job.report.reproduce import command_of
from job.report.template import format_clock, render_template
from job.runs.cost import AttemptCost, RunCost
from job.runs.resume import warnings_of
from job.text import MINUTE, percent

ULTRALYTICS_CONFIDENCE = 0.25
"""Default of ``yolo predict``."""

LABEL_COLOURS = {
    Phase.BOOT: "grey1",
    Phase.PULL: "grey2",
    Phase.CHECK: "grey3",
    Phase.START_UP: "grey4",
    Phase.USEFUL: "blue",
    Phase.DATA_WAIT: "violet",
    Phase.VALIDATION: "teal",
    Phase.STALL: "amber",
    Phase.RECOMPUTED: "orange",
    Phase.FINAL_EVALUATION: "green",
    Phase.IDLE: "pale",
    Phase.SUSPENDED: "muted",
    Phase.LOST: "red",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One line of before and after."""

    label: str
    before: float | None
    after: float | None
    expected: str
    reached: bool | None


def render(facts: Facts) -> str:
    """Return the report as HTML."""
    return render_template("report.html.j2", **_context(facts))


def _context(facts: Facts) -> dict[str, Any]:
    names = (facts.evaluation or facts.evaluation_before or {}).get("names", [])
    dataset = facts.record.dataset
    return {
        "facts": facts,
        "bill": facts.cost,
        "state": state_of(facts),
        "verdict": verdict_of(facts),
        "asked": _asked(facts),
        "changes": list(_changes(facts)),
        "expected_label": "expected" if _is_full(facts) else "expected at full scale",
        "metric_charts": list(_metric_charts(facts)),
        "loss_charts": list(_loss_charts(facts)),
        "epochs": _epochs(facts),
        "rules": RULES,
        "classes": _classes(facts),
        "confidence": _confidence(facts),
        "pictures": make_pictures(facts.run.store, dataset, names, facts.evaluation_before, facts.evaluation),
        "sizes": _sizes(facts),
        "timeline": _timeline(facts.cost),
        "phases": _phases(facts.cost),
        "attempts": list(_attempts(facts)),
        "warnings": warnings_of(facts.attempts),
        "receipts": [attempt.receipt for attempt in facts.attempts if attempt.receipt],
        "command": command_of(facts.record),
    }


def state_of(facts: Facts) -> str:
    """Say how far the run is; of one that runs, when that was."""
    if facts.final is not None:
        return f"{facts.final.reason} after {len(facts.rows)} epochs"
    ended = facts.cost.attempts[-1].ended if facts.cost.attempts else EndReason.VANISHED
    when = f" at {format_clock(facts.at)} UTC," if ended is EndReason.RUNNING else ""
    return f"{ended}{when} after epoch {len(facts.rows)} of {facts.num_epochs}"


def verdict_of(facts: Facts) -> str:
    """Say in a sentence what came of the run, or is coming of it."""
    before, after = facts.before, facts.after
    if before is None or after is None:
        return "Nothing was measured yet."
    change = 100 * (after["f1"] - before["f1"])
    moved = f"rose by {change:.1f} points" if change >= 0 else f"fell by {-change:.1f} points"
    when = "" if facts.final else f" so far, in epoch {facts.best_epoch}"
    result = f"F1 {moved}{when}, from {percent(before['f1'])} to {percent(after['f1'])}."
    if (band := facts.expect.get("f1")) is None:
        return f"{result} The recipe states no expectation."
    scale = "" if _is_full(facts) else " at full scale"
    not_reached = "that is not reached" if facts.final else "that is not reached yet"
    reached = "that is reached" if band.reached(after["f1"]) else not_reached
    return f"{result} The recipe expects {band.text(100, ' %')}{scale}: {reached}."


def _is_full(facts: Facts) -> bool:
    return facts.record.request["profile"] == "full"


def _asked(facts: Facts) -> list[tuple[str, str]]:
    record = facts.record
    point, train, known = record.start.point, record.request["train"], record.facts
    start = point.source or f"{point.architecture}, from scratch"
    if point.sha256:
        start += f" ({point.sha256[:12]})"
    dataset = record.dataset
    data = f"{dataset.name} ({dataset.digest[:12]}), {known.num_train_images} images to train on"
    data += f", {known.num_val_images} to validate on"
    if dataset.set_aside:
        data += f", {len(dataset.set_aside)} broken files set aside"
    return [
        ("recipe", f"{shown_recipe(record.request)}, profile {record.request['profile']}"),
        ("asked for", f"{train['epochs']} epochs, batch {train['batch']}, {train['imgsz']} px"),
        ("start weights", start),
        ("data", data),
    ]


def _changes(facts: Facts) -> Iterator[Change]:
    for name, label in LABELS.items():
        before, after = ((metrics or {}).get(name) for metrics in (facts.before, facts.after))
        band = facts.expect.get(name)
        reached = band.reached(after) if band is not None and after is not None else None
        yield Change(label, before, after, band.text(100, " %") if band is not None else "", reached)


def _metric_charts(facts: Facts) -> Iterator[tuple[str, str]]:
    curve = [*([facts.before] if facts.before else []), *facts.learning_curve]
    if not curve:
        return
    charted = (
        ("F1", "f1", (("F1", "f1", "blue"),)),
        ("Precision and recall", None, (("precision", "precision", "violet"), ("recall", "recall", "teal"))),
        ("mAP50", "map50", (("mAP50", "map50", "blue"),)),
        ("mAP50-95", "map50_95", (("mAP50-95", "map50_95", "blue"),)),
    )
    for title, target, lines in charted:
        yield (
            title,
            charts.curve_chart(
                [Series(label, colour, [metrics[name] for metrics in curve]) for label, name, colour in lines],
                first_epoch=0 if facts.before else 1,
                num_epochs=facts.num_epochs,
                cuts=facts.cuts,
                band=facts.expect.get(target) if target else None,
                best_epoch=facts.best_epoch if target else None,
            ),
        )


def _loss_charts(facts: Facts) -> Iterator[tuple[str, str]]:
    if not facts.rows:
        return
    for short, title in (("box", "Box loss"), ("cls", "Class loss"), ("dfl", "DFL loss")):
        lines = [
            Series(label, colour, [row[f"{split}/{short}_loss"] for row in facts.rows], dashed)
            for label, split, colour, dashed in (
                ("training", "train", "blue", False),
                ("validation", "val", "teal", True),
            )
        ]
        yield title, _over_epochs(facts, lines)
    yield "Learning rate", _over_epochs(facts, [Series("rate", "blue", [row["lr/pg0"] for row in facts.rows])])


def _over_epochs(facts: Facts, lines: Sequence[Series]) -> str:
    return charts.curve_chart(lines, first_epoch=1, num_epochs=facts.num_epochs, cuts=facts.cuts, shares=False)


def _epochs(facts: Facts) -> list[tuple[int, dict[str, float], tuple[str, ...]]]:
    """Return epoch, metrics and notes, row 0 first."""
    target, curve = facts.expect.get("f1"), facts.learning_curve
    notes = notes_on(
        [metrics["f1"] for metrics in curve],
        before=facts.before["f1"] if facts.before else None,
        target=target.low if target else None,
        num_epochs=facts.num_epochs,
        best_epoch=facts.best_epoch,
        stopped_early=bool(facts.final and facts.final.reason == "stopped early"),
    )
    rows = [(epoch, metrics, noted) for epoch, (metrics, noted) in enumerate(zip(curve, notes, strict=True), start=1)]
    return [(0, facts.before, ("start weights",)), *rows] if facts.before else rows


def _classes(facts: Facts) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return each class as it is now, the worst F1 first, and as it was before."""
    earlier = {entry["name"]: entry for entry in (facts.evaluation_before or {}).get("classes", [])}
    if facts.evaluation is None:
        return [(entry, None) for entry in sorted(earlier.values(), key=lambda entry: float(entry["f1"]))]
    found = sorted(facts.evaluation["classes"], key=lambda entry: float(entry["f1"]))
    return [(entry, earlier.get(entry["name"])) for entry in found]


def _confidence(facts: Facts) -> dict[str, Any] | None:
    """Return the chart over confidence, and what the figures are at the points that matter."""
    seen = facts.evaluation or facts.evaluation_before
    if seen is None or not seen["curves"]:
        return None
    curves = seen["curves"]
    lines = [
        Series(label, colour, curves[name])
        for label, name, colour in (
            ("F1", "f1", "blue"),
            ("precision", "precision", "violet"),
            ("recall", "recall", "teal"),
        )
    ]
    earlier = (facts.evaluation_before or {}).get("curves")
    if facts.evaluation and earlier:
        lines.append(Series("F1 before", "muted", earlier["f1"], dashed=True))
    best = seen["operating_point"]
    return {
        "chart": charts.confidence_chart(curves["confidence"], lines, best["confidence"]),
        "best": best,
        "usual": _at_confidence(curves, ULTRALYTICS_CONFIDENCE),
        "points": [_at_confidence(curves, tenth / 10) for tenth in range(1, 10)],
    }


def _at_confidence(curves: dict[str, list[float]], confidence: float) -> dict[str, float]:
    at = min(range(len(curves["confidence"])), key=lambda i: abs(curves["confidence"][i] - confidence))
    return {name: values[at] for name, values in curves.items()}


def _sizes(facts: Facts) -> dict[str, Any] | None:
    """Return recall by object size, before and after, with a chart; bins at the ends that are empty are left out."""
    seen = facts.evaluation or facts.evaluation_before
    if seen is None or not seen["num_objects"]:
        return None
    filled = [i for i, entry in enumerate(seen["sizes"]) if entry["num_objects"]]
    shown = slice(filled[0], filled[-1] + 1)
    series = [("now", "blue", seen)]
    if facts.evaluation and facts.evaluation_before:
        series = [("before", "grey2", facts.evaluation_before), ("after", "blue", facts.evaluation)]
    bins = seen["sizes"][shown]
    labels = [f"{b['from_px']}-{b['to_px']}" if b["to_px"] else f"{b['from_px']} +" for b in bins]
    lines = [Series(label, colour, [_recall(b) for b in entry["sizes"][shown]]) for label, colour, entry in series]
    return {
        "chart": charts.sizes_chart(labels, lines),
        "bins": list(zip(labels, bins, zip(*(line.values for line in lines), strict=True), strict=True)),
        "series": [line.label for line in lines],
        "imgsz": seen["imgsz"],
    }


def _recall(entry: dict[str, Any]) -> float:
    return float(entry["num_found"] / entry["num_objects"]) if entry["num_objects"] else 0.0


def _timeline(bill: RunCost) -> str:
    rows = [
        (str(attempt.attempt), [(label, s / MINUTE) for label, s in attempt.seconds.items() if s])
        for attempt in bill.attempts
    ]
    gaps = [(attempt.away_s or 0.0) / MINUTE for attempt in bill.attempts[:-1]]
    return charts.timeline(rows, gaps, {str(label): colour for label, colour in LABEL_COLOURS.items()})


def _phases(bill: RunCost) -> list[tuple[str, str, float, float, float | None]]:
    """Return phase, colour, seconds, share and dollars of each phase that took time."""
    usd = bill.usd_by_label
    return [
        (str(label), LABEL_COLOURS[label], s, s / bill.total_s, usd[label] if usd else None)
        for label, s in bill.seconds.items()
        if s
    ]


def _attempts(facts: Facts) -> Iterator[tuple[AttemptCost, str]]:
    """Yield each attempt and the position that it resumed from."""
    for cost, attempt in zip(facts.cost.attempts, facts.attempts, strict=True):
        yield cost, attempt.receipt.checkpoint.description if attempt.receipt else "the start"
