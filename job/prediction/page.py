"""HTML page of a prediction: totals, confidences, the least certain pictures, unreadable ones.

Guarantees one self-contained file that is a function of request, results and pictures: no time and no place is in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from job.analysis.metrics import LABELS
from job.datasets.image import read_picture
from job.errors import DataError
from job.prediction.drawing import cut
from job.prediction.output import TABLES
from job.prediction.records import PictureResult, PredictionRequest
from job.prediction.source import Source, SourceChangedError
from job.prediction.summary import Summary, count_by_class, doubt
from job.report.charts import confidence_histogram
from job.report.examples import Box, data_address, find_window
from job.report.template import render_template
from job.text import between
from job.training.evaluation_record import Detection

PAGE = "report.html"

DOUBTFUL = 0.5
"""Boxes below this confidence are dashed."""

NUM_SOUGHT = 100
"""Of so many objects below that, the least certain ones, a large picture's shown part has as many as it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtfulPicture:
    """A picture to check by hand."""

    name: str
    doubt: float
    found: str
    """Objects by class: ``3 zebra, 1 gnu``."""

    confidences: str
    """The least and the greatest one."""

    data: str = ""
    """A JPEG as a ``data:`` address; empty if the picture is gone."""

    width: int = 0
    height: int = 0
    boxes: tuple[Box, ...] = ()
    cut_from: tuple[int, int] | None = None
    """Width and height of the picture, if this is a part of it."""


def render(
    request: PredictionRequest,
    names: Sequence[str],
    summary: Summary,
    pictures: Sequence[DoubtfulPicture],
    metrics: Mapping[str, float],
) -> str:
    """Return the page as HTML.

    Args:
        request: The prediction.
        names: Of the model's classes, by number.
        summary: Of all its results.
        pictures: The least certain ones.
        metrics: Of the validation set at the request's confidence, if they are known.
    """
    return render_template(
        "prediction.html.j2",
        request=request,
        summary=summary,
        totals=sorted(((name, summary.totals[name]) for name in dict.fromkeys(names)), key=lambda total: -total[1]),
        chart=confidence_histogram(summary.confidences, request.conf),
        pictures=pictures,
        metrics=metrics,
        labels=LABELS,
        files=TABLES,
    )


def show_doubtful(
    results: Sequence[PictureResult], source: Source, names: Sequence[str], num_channels: int
) -> Iterator[DoubtfulPicture]:
    """Yield results with the parts of their pictures that have the most doubtful objects.

    Args:
        results: Each with a detection.
        source: Has the pictures.
        names: Of the model's classes, by number.
        num_channels: Of the pictures that the model takes.

    Raises:
        StoreError: If the bucket refuses, or does not answer.
    """
    wanted = {result.picture for result in results}
    pictures = {picture.name: picture for picture in source.pictures if picture.name in wanted}
    for result in results:
        try:
            pixels = read_picture(source.read(pictures[result.picture]), result.picture, num_channels)
        except (DataError, SourceChangedError):  # it was there: its counts stand
            yield _described(result, names)
        else:
            yield _described(result, names, pixels)


def _described(result: PictureResult, names: Sequence[str], pixels: np.ndarray | None = None) -> DoubtfulPicture:
    found = count_by_class(result, names)
    confidences = [detection.confidence for detection in result.detections]
    picture = DoubtfulPicture(
        name=result.picture,
        doubt=doubt(result),
        found=", ".join(f"{num:,} {name}" for name, num in found.most_common()),
        confidences=between(f"{min(confidences):.2f}", f"{max(confidences):.2f}"),
    )
    if pixels is None:
        return picture
    height, width = pixels.shape[:2]
    least_certain = sorted(result.detections, key=lambda detection: detection.confidence)
    sought = [each for each in least_certain if each.confidence < DOUBTFUL][:NUM_SOUGHT] or least_certain[:1]
    middles = [((each.left + each.right) / 2 / width, (each.top + each.bottom) / 2 / height) for each in sought]
    window = find_window((width, height), middles)
    shown = window[2] - window[0], window[3] - window[1]
    return replace(
        picture,
        data=data_address(cut(pixels, window)),
        width=shown[0],
        height=shown[1],
        boxes=tuple(_boxes(result.detections, names, window)),
        cut_from=None if shown == (width, height) else (width, height),
    )


def _boxes(detections: Sequence[Detection], names: Sequence[str], window: tuple[int, int, int, int]) -> Iterator[Box]:
    """Yield the boxes that reach into a part of a picture, the least certain ones on top."""
    left, top, right, bottom = window
    for each in sorted(detections, key=lambda detection: -detection.confidence):
        if each.left < right and each.right > left and each.top < bottom and each.bottom > top:
            yield Box(
                left=round(each.left - left, 1),
                top=round(each.top - top, 1),
                width=round(each.right - each.left, 1),
                height=round(each.bottom - each.top, 1),
                kind="found" if each.confidence >= DOUBTFUL else "doubtful",
                label=f"{names[each.category]} {each.confidence:.2f}",
            )
