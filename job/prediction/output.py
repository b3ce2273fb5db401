"""Tables of a prediction, written from its shards: counts, detections, and MegaDetector's JSON.

Guarantees that the files are a function of the request and the shards, and that memory does not grow with pictures.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from job.prediction.records import PictureResult, PredictionRequest, ShardRecord
from job.prediction.summary import Summary

TABLES = COUNTS, DETECTIONS, MEGADETECTOR = "counts.csv", "detections.csv", "detections.json"

FORMAT_VERSION = "1.4"
"""Of MegaDetector's output format, https://lila.science/megadetector-output-format."""

DIGITS = 6
"""Decimals of a share of the picture's size: a thousandth of a pixel of a large picture."""


def write_tables(
    folder: Path, request: PredictionRequest, names: Sequence[str], shards: Iterable[ShardRecord]
) -> Summary:
    """Write the tables into a folder, and return what the results come to.

    Args:
        folder: Of the tables.
        request: The prediction.
        names: Of the model's classes, by number.
        shards: In their order.
    """
    summary = Summary(names, request.max_det)
    with (
        (folder / COUNTS).open("w", encoding="utf-8", newline="") as counts_file,
        (folder / DETECTIONS).open("w", encoding="utf-8", newline="") as detections_file,
        (folder / MEGADETECTOR).open("w", encoding="utf-8") as json_file,
    ):
        counts, detections = (csv.writer(opened, lineterminator="\n") for opened in (counts_file, detections_file))
        counts.writerow(["picture", *names])
        detections.writerow(["picture", "class", "confidence", "left", "top", "right", "bottom"])
        json_file.write(_json_head(request, names))
        separator = "\n"
        for result in (result for shard in shards for result in shard.pictures):
            counts.writerow([result.picture, *_counts(result, len(names))])
            detections.writerows(
                [result.picture, names[category], *figures] for category, *figures in result.detections
            )
            json_file.write(f"{separator}  {json.dumps(megadetector_entry(result))}")
            separator = ",\n"
            summary.add(result)
        json_file.write("\n ]\n}\n")
    return summary


def megadetector_entry(result: PictureResult) -> dict[str, object]:
    """Return a picture in MegaDetector's format: categories from 1, boxes left, top, width, height in shares."""
    if result.failure is not None:
        return {"file": result.picture, "detections": None, "failure": result.failure}
    width, height = result.width, result.height
    return {
        "file": result.picture,
        "detections": [
            {
                "category": str(category + 1),
                "conf": confidence,
                "bbox": [
                    round(left / width, DIGITS),
                    round(top / height, DIGITS),
                    round((right - left) / width, DIGITS),
                    round((bottom - top) / height, DIGITS),
                ],
            }
            for category, confidence, left, top, right, bottom in result.detections
        ],
        "failure": None,
    }


def _json_head(request: PredictionRequest, names: Sequence[str]) -> str:
    info = {
        "format_version": FORMAT_VERSION,
        "detector": f"{request.run}.pt",
        "detector_metadata": {
            "sha256": request.weights,
            "image_size": request.imgsz,
            "typical_detection_threshold": request.conf,
            "conservative_detection_threshold": request.conf,
        },
    }
    categories = {str(number): name.strip() or f"class {number}" for number, name in enumerate(names, start=1)}
    return f'{{\n "info": {json.dumps(info)},\n "detection_categories": {json.dumps(categories)},\n "images": ['


def _counts(result: PictureResult, num_classes: int) -> list[int | str]:
    """Return the objects of each class; empty for a picture that could not be read."""
    if result.failure is not None:
        return [""] * num_classes
    found = Counter(detection.category for detection in result.detections)
    return [found[category] for category in range(num_classes)]
