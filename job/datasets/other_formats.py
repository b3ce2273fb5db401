"""Exports of labelling programs that are not read: recognised, with the choice to make in that program."""

from collections.abc import Iterable
from pathlib import Path

from job.datasets.archive import OTHER_SUFFIXES

NUM_BYTES = 65_536
"""Read of a file to recognise it."""

EVERYWHERE = (
    "choose YOLOv11 in Roboflow, Ultralytics YOLO Detection with images in CVAT, YOLO with Images in Label Studio"
)

BY_CONTENT = {
    ".xml": (
        (
            b"<annotations>",
            "CVAT for images",
            "in CVAT choose Ultralytics YOLO Detection or COCO, and tick Save images",
        ),
        (b"<annotation", "Pascal VOC", EVERYWHERE),
    ),
    ".json": (
        (b'"_via_img_metadata"', "a project of VIA", "in VIA choose Annotation, Export Annotations (COCO format)"),
        (b'"imagePath"', "Labelme's own", "run labelme2coco.py of Labelme, and pass what it writes"),
        (
            b'"detection_categories"',
            "detections of MegaDetector",
            "that is no work of a person; label the pictures first",
        ),
        (b'"file_upload"', "Label Studio's own JSON", "in Label Studio choose YOLO with Images"),
        (b'"original_width"', "Label Studio's own JSON", "in Label Studio choose YOLO with Images"),
        (b'"coordinates"', "CreateML", EVERYWHERE),
    ),
}
"""By suffix: bytes that tell a format, its name, and what to choose instead; the first match counts."""

BY_SUFFIX = {
    ".csv": ("a table of boxes", EVERYWHERE),
    ".tfrecord": ("TFRecord", EVERYWHERE),
    ".ndjson": ("a list of JSON records", EVERYWHERE),
}


def describe_other(root: Path, names: Iterable[str]) -> str:
    """Return what is wrong with a folder that is no dataset which is read, and what to do."""
    seen = sorted(names)
    for suffix, known in BY_CONTENT.items():
        for name in [name for name in seen if name.lower().endswith(suffix)][:1]:
            with (root / name).open("rb") as opened:
                head = opened.read(NUM_BYTES)
            for mark, what, advice in known:
                if mark in head:
                    return f"{name} is {what}, which is not read; {advice}"
    for suffix, (what, advice) in BY_SUFFIX.items():
        for name in seen:
            if name.lower().endswith(suffix):
                return f"{name} is {what}, which is not read; {advice}"
    for name in seen:
        if name.lower().endswith((".zip", *OTHER_SUFFIXES)):
            return f"has no labels, but the archive {name}; pass that if it is a ZIP, or unpack it"
    return f"has no data.yaml, no COCO annotations and no YOLO labels; export the dataset: {EVERYWHERE}"
