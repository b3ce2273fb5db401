"""Conversion of COCO annotations to YOLO labels, by Ultralytics' converter.

Knows nothing of images.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from job.training.isolation import isolate_ultralytics


class CocoPicture(NamedTuple):
    """Size of a picture, px, and its boxes: class from 0, then left, top, width and height, px."""

    width: int
    height: int
    boxes: Sequence[tuple[int, tuple[float, float, float, float]]]


def write_labels(pictures: Mapping[str, CocoPicture], folder: Path, settings: Path) -> None:
    """Write the label of each picture, ``a/b.txt`` for a picture called ``a/b.jpg``, into a folder that does not exist.

    Names are keys: relative, and none leads out. Boxes without area are left out. `settings` is the folder for
    Ultralytics' settings. Raises `MachineError` if it is not installed.
    """
    isolate_ultralytics(settings)
    with TemporaryDirectory(prefix=".coco-", dir=folder.parent) as name:
        scratch = Path(name)
        from ultralytics.data.converter import convert_coco  # noqa: PLC0415 -- reads the variables set above

        (scratch / "annotations").mkdir()
        # The converter drops `instances_` from the name, so that labels lie right below its folder.
        (scratch / "annotations" / "instances_.json").write_text(json.dumps(_as_coco(pictures)), encoding="utf-8")
        convert_coco(str(scratch / "annotations"), str(scratch / "converted"), cls91to80=False)
        (scratch / "converted" / "labels").rename(folder)
    for picture in pictures:  # the converter writes none for a picture without boxes
        label = (folder / picture).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.touch()


def _as_coco(pictures: Mapping[str, CocoPicture]) -> dict[str, object]:
    images = [
        {"id": number, "file_name": name, "width": picture.width, "height": picture.height}
        for number, (name, picture) in enumerate(pictures.items())
    ]
    annotations = [
        {"image_id": number, "category_id": category + 1, "bbox": box}
        for number, picture in enumerate(pictures.values())
        for category, box in picture.boxes
    ]
    return {"images": images, "annotations": annotations}
