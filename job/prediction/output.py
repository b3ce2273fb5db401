"""Final files of a prediction, written from its shards: counts, detections, and MegaDetector's JSON.

Guarantees that the files are a function of the request and the shards, and that memory does not grow with pictures.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from job.prediction.records import PictureResult, PredictionFinal, PredictionRequest, ShardRecord
from job.storage.checksums import sha256_of

COUNTS, DETECTIONS, MEGADETECTOR = "counts.csv", "detections.csv", "detections.json"

FILES = (COUNTS, DETECTIONS, MEGADETECTOR)

FORMAT_VERSION = "1.4"
"""Of MegaDetector's output format, https://lila.science/megadetector-output-format."""

MAX_LISTED = 100
"""Unreadable pictures in the final record; all of them are in the files."""

DIGITS = 6
"""Decimals of a share of the picture's size: a thousandth of a pixel of a large picture."""


def write_files(
    folder: Path, request: PredictionRequest, names: Sequence[str], shards: Iterable[ShardRecord]
) -> PredictionFinal:
    """Write the final files into a folder, and return the record of the prediction's end.

    Args:
        folder: Of the files.
        request: The prediction.
        names: Of the model's classes, by number.
        shards: In their order.
    """
    totals, with_objects = Counter[str](), Counter[str]()
    unreadable: dict[str, str] = {}
    num_unreadable = num_full = 0
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
            found = Counter(names[detection.category] for detection in result.detections)
            totals += found
            with_objects.update(found.keys())
            num_full += len(result.detections) >= request.max_det
            if result.failure is not None:
                num_unreadable += 1
                if len(unreadable) < MAX_LISTED:
                    unreadable[result.picture] = result.failure
        json_file.write("\n ]\n}\n")
    return PredictionFinal(
        num_pictures=request.num_pictures,
        num_unreadable=num_unreadable,
        unreadable=unreadable,
        totals={name: totals[name] for name in names},
        num_with_objects={name: with_objects[name] for name in names},
        num_full=num_full,
        files={name: sha256_of(folder / name) for name in FILES},
    )


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
        "detector": f"{request.run}/best.pt",
        "detector_metadata": {
            "sha256": request.weights,
            "image_size": request.imgsz,
            "typical_detection_threshold": request.conf,
            "conservative_detection_threshold": request.conf,
        },
    }
    categories = {str(number): name or f"class {number}" for number, name in enumerate(names, start=1)}
    return f'{{\n "info": {json.dumps(info)},\n "detection_categories": {json.dumps(categories)},\n "images": ['


def _counts(result: PictureResult, num_classes: int) -> list[int | str]:
    """Return the objects of each class; empty for a picture that could not be read."""
    if result.failure is not None:
        return [""] * num_classes
    found = Counter(detection.category for detection in result.detections)
    return [found[category] for category in range(num_classes)]
