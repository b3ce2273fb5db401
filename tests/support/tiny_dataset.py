"""A dataset in YOLO format, small enough to be drawn in every test."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

NAMES = ("animal", "bird", "cow", "deer")

COLOURS = ((230, 60, 40), (40, 90, 230), (240, 220, 60), (30, 30, 30))
"""One for each class."""


def make_tiny_dataset(
    folder: Path, num_train: int = 8, num_val: int = 4, px: int = 64, num_classes: int = 2, seed: int = 0
) -> Path:
    """Draw images of coloured rectangles on noise, with labels that match, and return the folder.

    Args:
        folder: Made if it is not there.
        num_train: How many images, each of another content.
        num_val: As well.
        px: Width and height of an image.
        num_classes: From 1 to 4.
        seed: Another seed, other images.
    """
    rng = np.random.default_rng(seed)
    for split, num_images in (("train", num_train), ("val", num_val)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(num_images):
            pixels = rng.integers(90, 150, (px, px, 3), dtype=np.uint8)
            rows = []
            for kind in rng.integers(0, num_classes, rng.integers(1, 4)):
                width, height = rng.integers(px // 6, px // 3, 2)
                left, top = rng.integers(0, px - width), rng.integers(0, px - height)
                pixels[top : top + height, left : left + width] = COLOURS[kind]
                box = np.array([left + width / 2, top + height / 2, width, height]) / px
                rows.append(" ".join([str(kind), *(f"{value:.6f}" for value in box)]))
            Image.fromarray(pixels).save(folder / "images" / split / f"{number:03}.jpg", quality=90)
            (folder / "labels" / split / f"{number:03}.txt").write_text("\n".join(rows) + "\n")
    data = {"train": "images/train", "val": "images/val", "names": list(NAMES[:num_classes])}
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder
