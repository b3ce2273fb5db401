"""Labelled images of a split: pixels and boxes, read from a checked dataset on this machine."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.datasets.image import read_picture
from job.datasets.labels import LabelledBox, read_boxes
from job.datasets.layout import label_of, read_layout
from job.errors import DataError


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image and its label."""

    folder: Path
    name: str
    """Relative to the dataset's folder, as is `label`."""

    num_keypoint_columns: int
    single_class: bool

    @property
    def label(self) -> str:
        """Name of the label; the file need not exist."""
        return label_of(self.name)

    def pixels(self, num_channels: int) -> np.ndarray:
        """Return the pixels ``(h, w, c)``, BGR and uint8.

        Raises:
            DataError: If they cannot be read.
        """
        try:
            return read_picture((self.folder / self.name).read_bytes(), self.name, num_channels)
        except DataError as error:
            raise DataError(f"{self.name}: {error}; replace the image") from error

    def boxes(self, categories: Collection[int] | None = None) -> list[LabelledBox]:
        """Return the boxes of the label, or those of some classes; none without a label."""
        path = self.folder / self.label
        data = path.read_bytes() if path.is_file() else b""
        found = read_boxes(data, self.num_keypoint_columns, single_class=self.single_class)
        return [box for box in found if categories is None or box.category in categories]


def read_split(folder: Path, split: str, *, single_class: bool) -> list[LabelledImage]:
    """Return the images of a split, ``train``, ``val`` or ``test``, each once, in the order of their names.

    Raises:
        DataError: If the dataset has no such split.
    """
    layout = read_layout(folder)
    if split not in layout.splits:
        raise DataError(f"dataset {folder.name}: has no split {split}; there are {', '.join(layout.splits)}")
    columns = layout.data.num_keypoint_columns
    names = sorted(set(layout.splits[split].images))
    return [LabelledImage(layout.folder, name, columns, single_class) for name in names]
