"""Model card of an export in Markdown: what the file finds, how well, at which threshold, and where it comes from.

Guarantees that text of others, such as names of classes, does not become markup.
"""

import re
from collections.abc import Iterable, Sequence

from job.export.records import METRICS, ExportRecord
from job.log import one_line
from job.prediction.threshold import Threshold
from job.recipes.arguments import validation_tiles
from job.recipes.recognition import shown_recipe
from job.runs.records import FinalRecord, RunRecord
from job.text import counted, percent
from job.training.evaluation_record import Evaluation
from job.training.files import BEST

LICENCE = """\
AGPL-3.0. The weights were trained with Ultralytics, which puts its code, its published weights and the models that are
made with them under AGPL-3.0, also those in ONNX; an Enterprise Licence of Ultralytics is the alternative. The pictures
of the data set may have a licence of their own."""


def model_card(
    record: RunRecord, final: FinalRecord, evaluation: Evaluation | None, threshold: Threshold, export: ExportRecord
) -> str:
    """Return the card as Markdown.

    Args:
        record: Of the run.
        final: The run's end.
        evaluation: Of its best weights on the whole validation set, if there is one.
        threshold: Of the run, with its metrics there.
        export: The export, with the digest of the model's file.
    """
    sections = {
        "Use": _use(threshold, export),
        "Classes": _classes(evaluation),
        "Data": _data(record, evaluation),
        "Lineage": _lineage(record, final),
        "Check of the export": _check(export),
        "Versions": _table(("package", "version"), export.versions.items()),
        "Licence": [LICENCE],
    }
    lines = [f"# {escape(record.run)}, ONNX at {export.px} px", ""]
    for title, text in sections.items():
        lines += [f"## {title}", "", *text, ""]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Return text in one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", one_line(text))


def _use(threshold: Threshold, export: ExportRecord) -> list[str]:
    px, (name, digest) = export.px, next(iter(export.files.items()))
    known = ", ".join(f"{METRICS[metric]} {percent(value)}" for metric, value in threshold.metrics.items())
    reached = f"On the whole validation set that gives {known}." if known else "No validation metrics are recorded."
    return [
        f"- File: `{name}`, SHA-256 `{digest}`.",
        f"- Input `images`: 1 x channels x {px} x {px}, RGB from 0 to 1. The picture is scaled until its longer side",
        f"  has {px} px and centred on grey (114), as `yolo predict` does by itself.",
        "- Output `output0`: 1 x (4 + classes) x candidates; x, y, width and height in pixels of the input, then a",
        "  confidence for each class. Suppression of overlapping boxes is left to the program that reads it.",
        f"- Threshold: **{threshold.confidence:g}**. {reached}",
        f"- With Ultralytics: `yolo predict model={name} imgsz={px} conf={threshold.confidence:g} source=PICTURES`.",
    ]


def _classes(evaluation: Evaluation | None) -> list[str]:
    if evaluation is None:
        return ["The run has no evaluation; the names are in the file."]
    measured = {each.name: each for each in evaluation.classes}
    rows = []
    for number, name in enumerate(evaluation.names or measured):
        found = measured.get(name)
        figures = (found.precision, found.recall, found.f1, found.map50) if found else ()
        cells = [str(found.num_objects), *map(percent, figures)] if found else ["0", *[""] * 4]
        rows.append((str(number), escape(name), *cells))
    point = evaluation.operating_point["confidence"]
    return [
        f"At a confidence of {point:g}, on {counted(evaluation.num_images, 'validation picture')}:",
        "",
        *_table(("number", "class", "objects", "precision", "recall", "F1", "mAP50"), rows),
    ]


def _data(record: RunRecord, evaluation: Evaluation | None) -> list[str]:
    data, facts, train = record.dataset, record.facts, record.train
    tiles, _ = validation_tiles(train)
    with_tiles = (
        [f"- Its metrics were measured with tiles of {tiles} px besides; the file sees one picture or tile at once."]
        if tiles
        else []
    )
    return [
        f"- Data set {escape(data.name)}, digest `{data.digest}`.",
        f"- Pictures: {facts.num_train_images or 'unknown'} to train on, "
        f"{facts.num_val_images or 'unknown'} to validate on"
        + (f", {counted(len(data.set_aside), 'broken file')} set aside." if data.set_aside else "."),
        f"- Trained at {evaluation.imgsz if evaluation else train['imgsz']} px.",
        *with_tiles,
    ]


def _lineage(record: RunRecord, final: FinalRecord) -> list[str]:
    point = record.start.point
    source = escape(str(point)) + (f", SHA-256 `{point.sha256}`" if point.sha256 else "")
    return [
        f"- Run {escape(record.run)}, recipe {escape(shown_recipe(record.request))}, begun {record.created_at}.",
        f"- Start weights: {source}.",
        f"- {counted(final.num_epochs, 'epoch')} ({escape(final.reason)}), best in epoch {final.best_epoch}.",
        f"- `{BEST}`: SHA-256 `{final.weights[BEST].sha256}`.",
    ]


def _check(export: ExportRecord) -> list[str]:
    parity = export.parity
    return [
        f"{parity.num_pictures} of {counted(parity.num_of, 'validation picture')} through both models on the CPU,",
        f"padded to squares, with {counted(parity.num_candidates, 'candidate')}. Precision, recall and F1 are at",
        f"{parity.at:g}: {counted(parity.num_in_both, 'box', 'boxes')} in both, and {parity.num_in_one} in one alone.",
        "",
        *_table(("greatest difference", BEST, "this file", "difference", "bound"), parity.rows(export.request.bounds)),
    ]


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)]
