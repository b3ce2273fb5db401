"""Pictures of the bench of tiles: a drawn landscape with animals, and photographs of tree crowns."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import yaml

from job.datasets import synthetic
from job.training.tiles import Tile, visible_boxes

LANDSCAPE_PX = 2 * synthetic.SIZE
"""Four times the pixels of the demo's pictures; animals are as long as there, 24 to 66 px."""

NUM_LANDSCAPES = {"train": 64, "val": 16, "test": 64}

REQUIREMENT = Path(__file__).with_name("deepforest.txt")
"""Names the wheel that has the photographs (MIT licence), by version and digest; it is unpacked, never installed."""

VISIBLE = 0.5
"""Share of a crown that lies in a crop, at least, for it to count there."""


class Photograph(NamedTuple):
    """A photograph of the wheel, and into how many crops it is cut."""

    name: str
    num_crowns: int
    rows: int
    columns: int


TRAINED_ON = Photograph("2019_YELL_2_528000_4978000_image_crop2", 574, 7, 7)
SCORED_ON = Photograph("2019_YELL_2_541000_4977000_image_crop", 279, 3, 4)

EVERY_NTH_IS_VAL = 6
"""Of the crops to train on; they choose the threshold."""


def draw_landscape(folder: Path) -> None:
    """Draw the demo's landscape at four times the pixels, with a split to score on."""
    with patch.multiple(synthetic, SIZE=LANDSCAPE_PX, NUM_IMAGES=NUM_LANDSCAPES):
        synthetic.draw_demo_dataset(folder)
    with (folder / "data.yaml").open("a") as opened:
        opened.write("test: images/test\n")


def cut_photographs(folder: Path) -> None:
    """Fetch the photographs, and cut each into crops: one to train on and to choose the threshold, one to score on."""
    wheels = folder / "wheels"
    words = ["download", "--no-deps", "--require-hashes", "--requirement", REQUIREMENT, "--dest", wheels, "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], check=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as opened:
        for photograph, splits in ((TRAINED_ON, ("train", "val")), (SCORED_ON, ("test",))):
            picture = cv2.imdecode(np.frombuffer(opened.read(_inside(photograph, "png")), np.uint8), cv2.IMREAD_COLOR)
            boxes = _crowns(opened.read(_inside(photograph, "xml")))
            assert len(boxes) == photograph.num_crowns, f"{photograph.name}: {len(boxes)} crowns"
            for number, crop in enumerate(_crops(picture, photograph)):
                is_val = len(splits) > 1 and number % EVERY_NTH_IS_VAL == EVERY_NTH_IS_VAL - 1
                _write(folder, splits[is_val], number, picture, boxes, crop)
    data = {split: f"images/{split}" for split in ("train", "val", "test")} | {"names": ["crown"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    wheel.unlink()
    wheels.rmdir()


def _inside(photograph: Photograph, suffix: str) -> str:
    return f"deepforest/data/{photograph.name}.{suffix}"


def _crowns(annotation: bytes) -> np.ndarray:
    """Return the boxes ``(n, 4)`` of an annotation, in pixels of its photograph."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    root = ET.fromstring(annotation)  # noqa: S314 -- of a wheel with a known digest
    return np.array([[float(box.findtext(corner)) for corner in corners] for box in root.iter("bndbox")])


def _crops(picture: np.ndarray, photograph: Photograph) -> Iterator[Tile]:
    """Yield the crops of a photograph, which do not overlap."""
    tops = np.linspace(0, picture.shape[0], photograph.rows + 1).astype(int)
    lefts = np.linspace(0, picture.shape[1], photograph.columns + 1).astype(int)
    for top, bottom in pairwise(tops):
        for left, right in pairwise(lefts):
            yield Tile(int(left), int(top), int(right), int(bottom))


def _write(folder: Path, split: str, number: int, picture: np.ndarray, boxes: np.ndarray, crop: Tile) -> None:
    """Write a crop and its labels."""
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    size = np.array([crop.right - crop.left, crop.bottom - crop.top])
    _, clipped = visible_boxes(boxes, crop, VISIBLE)
    shares = np.hstack([(clipped[:, :2] + clipped[:, 2:]) / 2 / size, (clipped[:, 2:] - clipped[:, :2]) / size])
    pixels = picture[crop.top : crop.bottom, crop.left : crop.right]
    cv2.imwrite(str(folder / "images" / split / f"{number:03}.png"), pixels)
    lines = [f"0 {' '.join(f'{share:.6f}' for share in row)}\n" for row in shares]
    (folder / "labels" / split / f"{number:03}.txt").write_text("".join(lines))
