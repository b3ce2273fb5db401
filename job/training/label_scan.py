"""Scan of a split's labels: Ultralytics' own, without reading images whose heights and widths are known.

Guarantees the labels and counts that the stock scan has for the same files (``data/utils.py``: 436-511): what is
not plain boxes, or could be refused, is left to it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from ultralytics.data import dataset

NUM_COLUMNS = 5
"""Class, x, y, width and height."""


@contextmanager
def known_shapes(shapes: Mapping[str, tuple[int, int]]) -> Iterator[None]:
    """Let datasets that are built in a block take heights and widths ``(h, w)`` of checked images, by path."""
    stock = dataset.verify_image_label

    def verify(words: tuple[Any, ...]) -> Any:  # noqa: ANN401 -- a tuple, or of what is refused a list
        image, label, _prefix, has_keypoints, num_classes, *_ = words
        shape = shapes.get(image)
        boxes = None if shape is None or has_keypoints else read_boxes(label, num_classes)
        if boxes is None:
            return stock(words)
        return image, boxes, shape, [], None, 0, 1, int(not len(boxes)), 0, ""

    dataset.verify_image_label = verify
    try:
        yield
    finally:
        dataset.verify_image_label = stock


def read_boxes(label: str, num_classes: int) -> np.ndarray | None:
    """Return the rows ``(n, 5)`` float32 of a label file; None if it is absent, or is not of plain, different boxes."""
    try:
        with open(label, encoding="utf-8-sig") as opened:  # noqa: PTH123 -- as text: thousands are named in a row
            rows = [row for line in opened.read().splitlines() if (row := line.split())]
        if any(len(row) != NUM_COLUMNS for row in rows):
            return None
        boxes = np.array(rows, np.float32).reshape(-1, NUM_COLUMNS)
    except (OSError, ValueError):
        return None
    values = boxes.tolist()
    is_plain = all(
        0 <= number < num_classes and number % 1 == 0 and all(0 <= share <= 1 for share in box)
        for number, *box in values
    )
    return boxes if is_plain and len(set(map(tuple, values))) == len(values) else None
