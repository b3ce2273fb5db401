"""HTML page of a run's report: verdict, learning curves, classes, examples, attempts, cost."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Literal
from urllib.parse import quote

from job.analysis.class_falls import find_class_falls
from job.analysis.falls import Schedule, find_falls
from job.analysis.learning_curve import BEST, EARLY_GAIN, FALLEN, PLATEAU, RULES, STEADY_GAIN, notes_on
from job.analysis.metrics import LABELS
from job.errors import EndReason
from job.goodput import Phase
from job.recipes.recognition import shown_recipe
from job.report import charts
from job.report.charts import Series
from job.report.data import Facts
from job.report.examples import KINDS, make_pictures
from job.report.mistakes import confusion_matrix, mistakes_by_class
from job.report.reproduce import command_of, resume_of, use_of
from job.report.template import render_template
from job.runs.cost import RunCost
from job.runs.resume import warnings_of
from job.runs.run import BEST_WEIGHTS
from job.text import MINUTE, clock, counted, percent
from job.training.evaluation_record import SIZES_PX, SizeEvaluation

METRIC_CHARTS = {
    "F1": ("f1",),
    "Precision and recall": ("precision", "recall"),
    "mAP50": ("map50",),
    "mAP50-95": ("map50_95",),
}
METRIC_COLOURS = {"f1": "blue", "precision": "violet", "recall": "teal", "map50": "blue", "map50_95": "blue"}

METRIC_STYLES: dict[str, Literal["--", ":"]] = {"precision": "--", "recall": ":"}

PHASE_GROUPS = {
    "set-up": ("grey", (Phase.BOOT, Phase.PULL, Phase.CHECK, Phase.START_UP)),
    "useful steps": ("blue", (Phase.USEFUL, Phase.RECOMPUTED)),
    "evaluation": ("teal", (Phase.VALIDATION, Phase.FINAL_EVALUATION)),
    "waiting": ("amber", (Phase.DATA_WAIT, Phase.STALL, Phase.IDLE, Phase.SUSPENDED)),
    "lost": ("red", (Phase.LOST,)),
    "unknown": ("violet", (Phase.UNKNOWN,)),
}
"""Phases of one colour: more colours could not be told apart by everybody."""

PHASE_COLOURS = {phase: colour for colour, phases in PHASE_GROUPS.values() for phase in phases}

COURSE = (EARLY_GAIN, STEADY_GAIN, FALLEN, PLATEAU, BEST)
"""Notes that tell the course of a run."""

PLOT = re.compile(r"[^/]+\.(png|jpg)")
"""Name of a picture that Ultralytics draws, in the run's folder."""


def render(facts: Facts) -> str:
    """Return the report as HTML."""
    record, evaluation, before = facts.record, facts.newest_evaluation, facts.evaluation_before
    sizes, recalls = _recall_by_size(facts)
    epochs = _epochs(facts)
    return render_template(
        "report.html.j2",
        facts=facts,
        cost=facts.cost,
        state=state_of(facts),
        verdict=verdict_of(facts),
        recipe=shown_recipe(record.request),
        labels=LABELS,
        ended=_ended(facts),
        resume=resume_of(facts.run),
        mistakes=mistakes_by_class(evaluation) if evaluation else [],
        matrix=confusion_matrix(evaluation) if evaluation else None,
        kinds=KINDS,
        thresholds=_thresholds(facts),
        best_weights=facts.objects.get(BEST_WEIGHTS),
        plots={name: _folder(facts) + _in_address(name) for name in sorted(filter(PLOT.fullmatch, facts.objects))},
        metric_charts=list(_metric_charts(facts)),
        loss_charts=list(_loss_charts(facts)),
        epochs=epochs,
        falls=[fall.describe(Schedule.of(facts.record)) for fall in find_falls(*_f1_of(facts))],
        course={note: at for note in COURSE if (at := [epoch for epoch, _, notes in epochs if note in notes])},
        rules=RULES,
        class_falls=find_class_falls(before, facts.evaluation),
        evaluation=evaluation,
        f1_before={each.name: each.f1 for each in before.classes} if before else {},
        confidence_chart=_confidence_chart(facts),
        pictures=make_pictures(facts.run.store, record.dataset, before, facts.evaluation),
        sizes=sizes,
        recalls=recalls,
        sizes_chart=charts.sizes_chart(list(sizes), recalls) if sizes else "",
        timeline="" if record.imported else _timeline(facts.cost),
        colours=PHASE_COLOURS,
        phase_groups={
            name: colour for name, (colour, phases) in PHASE_GROUPS.items() if any(map(facts.cost.seconds.get, phases))
        },
        trained_on=_trained_on(facts),
        attempts=list(zip(facts.cost.attempts, facts.attempts, strict=True)),
        warnings=warnings_of(facts.attempts),
        receipts=[attempt.receipt for attempt in facts.attempts if attempt.receipt],
        command=command_of(record),
        use=use_of(facts.run),
    )


def state_of(facts: Facts) -> str:
    """Return state and progress in a sentence; with the time if the run is running."""
    if facts.final is not None:
        return f"{facts.final.reason} after {counted(len(facts.rows), 'epoch')}"
    ended = _ended(facts)
    when = f" at {clock(facts.at)} UTC," if ended is EndReason.RUNNING else ""
    return f"{ended}{when} after epoch {len(facts.rows)} of {facts.num_epochs}"


def verdict_of(facts: Facts) -> str:
    """Return the result in a sentence: F1 after, and before if it was measured, against the recipe's expectation."""
    before, after = facts.before, facts.after
    if facts.record.imported and after is not None:
        return f"F1 is {percent(after['f1'])} in epoch {facts.best_epoch}; the run was trained elsewhere, and imported."
    if after is None:
        return "Nothing was measured yet."
    when = "" if facts.final else f" so far, in epoch {facts.best_epoch}"
    result = f"F1 is {percent(after['f1'])}{when}."
    if before is not None:
        change = round(100 * (after["f1"] - before["f1"]), 1)
        moved = f"rose by {change:.1f} points" if change > 0 else f"fell by {-change:.1f} points"
        result = f"F1 {moved}{when}, from {percent(before['f1'])} to {percent(after['f1'])}."
        if not change:
            result = f"F1 is {percent(after['f1'])}{when}, as before."
    if (band := facts.expect.get("f1")) is None:
        return result
    if not facts.is_full:
        return f"{result} The recipe expects {band.text(100, ' %')} at full scale, which a demo cannot show."
    not_reached = "that is not reached" if facts.final else "that is not reached yet"
    return f"{result} The recipe expects {band.text(100, ' %')}: {'that is reached' if facts.reached else not_reached}."


def _ended(facts: Facts) -> EndReason:
    """Return how the last attempt ended, or `RUNNING`."""
    return facts.cost.attempts[-1].ended if facts.cost.attempts else EndReason.VANISHED


def _folder(facts: Facts) -> str:
    """Return the address of the run's folder as seen from the report; of a bucket, one that a browser can open."""
    uri = facts.run.store.uri
    return (
        f"https://storage.cloud.google.com/{_in_address(uri.removeprefix('gs://'))}/{facts.run.key('')}"
        if "://" in uri
        else ""
    )


def _in_address(name: str) -> str:
    """Return a name as a part of an address, with the bytes of one that is no UTF-8 text."""
    return quote(name, errors="surrogateescape")


def _trained_on(facts: Facts) -> tuple[list[str], dict[str, list[int]]]:
    """Return the ranges of size of the training objects, and of each class the objects in them, the fewest first."""
    statistics = facts.record.dataset.statistics
    counts = statistics.train if statistics else {}
    filled = [i for i in range(len(SIZES_PX)) if any(each[i] for each in counts.values())]
    if not filled:
        return [], {}
    shown = slice(filled[0], filled[-1] + 1)
    labels = [size_label(low, high) for low, high in zip(SIZES_PX, (*SIZES_PX[1:], None), strict=True)]
    return labels[shown], {name: each[shown] for name, each in sorted(counts.items(), key=lambda entry: sum(entry[1]))}


def _thresholds(facts: Facts) -> dict[str, object] | None:
    """Return what the page's slider shows: figures over confidence, and where it stands at first."""
    if (evaluation := facts.newest_evaluation) is None or not evaluation.curves:
        return None
    return {
        **evaluation.curves,
        "found": evaluation.num_found,
        "alarms": evaluation.num_false_alarms,
        "objects": evaluation.num_objects,
        "at": round(100 * evaluation.operating_point["confidence"]),
    }


def _metric_charts(facts: Facts) -> Iterator[tuple[str, str]]:
    curve = [*([facts.before] if facts.before else []), *facts.learning_curve]
    if not curve:
        return
    for title, names in METRIC_CHARTS.items():
        alone = len(names) == 1
        chart = charts.curve_chart(
            [_metric_series(name, [metrics[name] for metrics in curve]) for name in names],
            first_epoch=0 if facts.before else 1,
            num_epochs=facts.num_epochs,
            cuts=facts.cuts,
            band=facts.expect.get(names[0]) if alone else None,
            best_epoch=facts.best_epoch if alone else None,
        )
        yield title, chart


def _metric_series(name: str, values: Sequence[float]) -> Series:
    return Series(LABELS[name], METRIC_COLOURS[name], values, METRIC_STYLES.get(name, "-"))


def _loss_charts(facts: Facts) -> Iterator[tuple[str, str]]:
    if not facts.rows:
        return
    for short, title in (("box", "Box loss"), ("cls", "Class loss"), ("dfl", "DFL loss"), ("l1", "L1 loss")):
        if f"train/{short}_loss" not in facts.rows[0]:  # a head has one of the last two
            continue
        lines = [
            Series("training", "blue", [row[f"train/{short}_loss"] for row in facts.rows]),
            Series("validation", "teal", [row[f"val/{short}_loss"] for row in facts.rows], "--"),
        ]
        yield title, _over_epochs(facts, lines)
    yield "Learning rate", _over_epochs(facts, [Series("rate", "blue", [row["lr/pg0"] for row in facts.rows])])


def _over_epochs(facts: Facts, lines: Sequence[Series]) -> str:
    return charts.curve_chart(lines, first_epoch=1, num_epochs=facts.num_epochs, cuts=facts.cuts, shares=False)


def _f1_of(facts: Facts) -> tuple[list[float], float | None]:
    """Return F1 after each epoch, and that of the start weights once it is known."""
    return [metrics["f1"] for metrics in facts.learning_curve], facts.before["f1"] if facts.before else None


def _epochs(facts: Facts) -> list[tuple[int, dict[str, float], tuple[str, ...]]]:
    """Return epoch, metrics and notes, row 0 first."""
    target, curve = facts.expect.get("f1") if facts.reached else None, facts.learning_curve
    f1, before = _f1_of(facts)
    notes = notes_on(
        f1,
        before=before,
        target=target.low if target else None,
        num_epochs=facts.num_epochs,
        best_epoch=facts.best_epoch,
        stopped_early=bool(facts.final and facts.final.reason == "stopped early"),
    )
    rows = [(epoch, metrics, noted) for epoch, (metrics, noted) in enumerate(zip(curve, notes, strict=True), start=1)]
    return [(0, facts.before, ("start weights",)), *rows] if facts.before else rows


def _confidence_chart(facts: Facts) -> str:
    if (evaluation := facts.newest_evaluation) is None or not evaluation.curves:
        return ""
    curves = evaluation.curves
    some = {
        "precision": [
            value if recall else math.nan for value, recall in zip(curves["precision"], curves["recall"], strict=True)
        ]
    }
    lines = [_metric_series(name, (curves | some)[name]) for name in ("f1", "precision", "recall")]
    before = facts.evaluation_before
    if facts.evaluation and before and before.curves:
        lines.append(Series("F1 before", "muted", before.curves["f1"], "-."))
    return charts.confidence_chart(curves["confidence"], lines, evaluation.operating_point["confidence"])


def _recall_by_size(facts: Facts) -> tuple[dict[str, SizeEvaluation], list[Series]]:
    """Return the bins of object sizes by label, without empty ones at the ends, and the recall in each."""
    evaluation, before = facts.newest_evaluation, facts.evaluation_before
    if evaluation is None or not evaluation.num_objects:
        return {}, []
    filled = [i for i, size in enumerate(evaluation.sizes) if size.num_objects]
    shown = slice(filled[0], filled[-1] + 1)
    sizes = {size_label(size.from_px, size.to_px): size for size in evaluation.sizes[shown]}
    compared = [("now", "blue", evaluation)]
    if facts.evaluation and before:
        compared = [("before", "amber", before), ("after", "blue", facts.evaluation)]
    recalls = [
        Series(label, colour, [size.num_found / max(1, size.num_objects) for size in each.sizes[shown]])
        for label, colour, each in compared
    ]
    return sizes, recalls


def size_label(from_px: int, to_px: int | None) -> str:
    """Return a range of sizes as text."""
    return f"{from_px} +" if to_px is None else f"{from_px}-{to_px}"


def _timeline(cost: RunCost) -> str:
    rows = [
        (str(attempt.attempt), [(label, s / MINUTE) for label, s in attempt.seconds.items() if s])
        for attempt in cost.attempts
    ]
    gaps = [(attempt.away_s or 0.0) / MINUTE for attempt in cost.attempts[:-1]]
    return charts.timeline(rows, gaps, {str(label): colour for label, colour in PHASE_COLOURS.items()})
