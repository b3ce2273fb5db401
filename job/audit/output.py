"""Files of an audit: a table for labelling tools, and a page with crops."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from job.audit.findings import ORDER, RULES, Corners, Finding, Kind
from job.prediction.drawing import cut
from job.prediction.threshold import Threshold
from job.report.examples import data_address
from job.report.template import render_template

COLUMNS = (
    *("rank", "kind", "score", "picture", "class", "class_number", "confidence", "labelled_class", "label_line"),
    *("left", "top", "right", "bottom", "x", "y", "width", "height"),
)
"""Of the table: left to bottom in pixels, x to height in YOLO's shares of the picture."""

NUM_SHOWN = 40
"""Findings of each kind on the page; all are in the table."""

MIN_CROP_PX, CONTEXT = 96, 4.0
"""Sides of a crop: at least so many pixels of the picture, and so many times the longer side of the boxes."""

MAX_DRAWN_PX = 320


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a picture around a finding."""

    data: str
    """A JPEG as a ``data:`` address."""

    left: int
    top: int
    width: int
    """In pixels of the picture, as is `height`."""

    height: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What was audited."""

    run: str
    dataset: str
    digest: str
    split: str
    num_images: int
    num_labels: int
    names: Sequence[str]
    """Of the classes, by number."""

    threshold: Threshold


def write_table(findings: Sequence[Finding], names: Sequence[str]) -> str:
    """Return ranked findings as CSV, with `COLUMNS` as its heading."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(COLUMNS)
    for rank, found in enumerate(findings, 1):
        left, top, right, bottom = (round(value, 2) for value in found.box)
        center = ((left + right) / 2 / found.width, (top + bottom) / 2 / found.height)
        extent = ((right - left) / found.width, (bottom - top) / found.height)
        rows.writerow(
            [
                *(rank, found.kind, f"{found.score:.4f}", found.image, names[found.category], found.category),
                "" if found.confidence is None else f"{found.confidence:.4f}",
                *((names[found.label.category], found.label.line) if found.label else ("", "")),
                *(left, top, right, bottom),
                *(f"{value:.6f}" for value in (*center, *extent)),
            ]
        )
    return written.getvalue()


def write_page(audit: Audit, findings: Sequence[Finding], read: Callable[[str], np.ndarray]) -> str:
    """Return the page of ranked findings as HTML.

    Args:
        audit: What was audited.
        findings: Ranked.
        read: Returns the pixels ``(h, w, c)`` of an image, BGR.
    """
    counts = Counter(found.kind for found in findings)
    shown: dict[Kind, list[tuple[int, Finding, Crop]]] = {kind: [] for kind in Kind}
    for rank, found in enumerate(findings, 1):
        if len(shown[found.kind]) < NUM_SHOWN:
            shown[found.kind].append((rank, found, make_crop(read(found.image), found)))
    return render_template(
        "audit.html.j2", audit=audit, counts=counts, shown=shown, rules=RULES, order=ORDER, num_shown=NUM_SHOWN
    )


def make_crop(pixels: np.ndarray, found: Finding) -> Crop:
    """Cut a square around a finding out of a picture, within its edges."""
    boxes: list[Corners] = [found.box, *([found.label.box] if found.label else [])]
    left, top = (min(box[i] for box in boxes) for i in (0, 1))
    right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
    side = max(MIN_CROP_PX, CONTEXT * max(right - left, bottom - top))
    across, down = (round(min(side, limit)) for limit in (found.width, found.height))
    first = round(min(max((left + right - across) / 2, 0), found.width - across))
    upper = round(min(max((top + bottom - down) / 2, 0), found.height - down))
    jpeg = cut(pixels, (first, upper, first + across, upper + down), MAX_DRAWN_PX)
    return Crop(data_address(jpeg), first, upper, across, down)
