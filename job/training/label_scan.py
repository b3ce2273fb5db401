"""Scan of a split's labels: Ultralytics' own, without reading images whose heights and widths are known.

Guarantees the labels and counts that the stock scan has for the same files (``data/utils.py``: 436-511): what is
not plain boxes, or could be refused, is left to it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from ultralytics.data import dataset

NUM_COLUMNS = 5
"""Class, x, y, width and height."""


@contextmanager
def known_shapes(shapes: Mapping[str, tuple[int, int]]) -> Iterator[None]:
    """Let datasets that are built in a block take heights and widths ``(h, w)`` of checked images, by path."""
    stock = dataset.ThreadPool
    dataset.ThreadPool = functools.partial(_LabelPool, shapes)
    try:
        yield
    finally:
        dataset.ThreadPool = stock


class _LabelPool(ThreadPool):
    """Threads for what is left to Ultralytics; they would hand the interpreter over at each label that is read here."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], num_threads: int) -> None:
        super().__init__(num_threads)
        self._shapes = shapes

    def imap(  # type: ignore[override]  # Ultralytics takes it for an iterator alone
        self, func: Callable[[Any], Any], iterable: Iterable[tuple[Any, ...]]
    ) -> Iterator[Any]:
        """Return what Ultralytics' ``verify_image_label`` returns for each image and its label."""
        words = list(iterable)
        found = [self._read(*given) for given in words]
        left = super().imap(func, [given for given, known in zip(words, found, strict=True) if known is None])
        return (next(left) if known is None else known for known in found)

    def _read(self, image: str, label: str, *options: Any) -> tuple[Any, ...] | None:  # noqa: ANN401 -- stock's words
        _prefix, has_keypoints, num_classes, *_ = options
        shape = self._shapes.get(image)
        boxes = None if shape is None or has_keypoints else read_boxes(label, num_classes)
        return None if boxes is None else (image, boxes, shape, [], None, 0, 1, int(not len(boxes)), 0, "")


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
