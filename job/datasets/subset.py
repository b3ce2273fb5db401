"""Small subset of a dataset, for trial runs on real images."""

import shutil
from pathlib import Path

import yaml

from job.datasets.layout import label_of, read_layout
from job.errors import DataError


def take_subset(folder: Path, target: Path, num_images: dict[str, int]) -> None:
    """Copy images with their labels, evenly spaced over each split and at least one of them labelled.

    A split with fewer than `num_images` is copied whole, an empty one is a `DataError`.
    """
    layout = read_layout(folder)
    for split, wanted in num_images.items():
        images = layout.splits[split].images if split in layout.splits else ()
        if not images:
            raise DataError(f"{folder}: has no images in {split}; see `job data check`")
        every = max(len(images) / wanted, 1.0)
        chosen = [images[int(number * every)] for number in range(min(wanted, len(images)))]
        if not any(_is_labelled(folder, image) for image in chosen):
            chosen[0] = next((image for image in images if _is_labelled(folder, image)), chosen[0])
        for kind in ("images", "labels"):
            (target / kind / split).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(chosen):
            shutil.copyfile(folder / image, target / "images" / split / f"{number:05}{Path(image).suffix}")
            label = folder / label_of(image)
            if label.exists():
                shutil.copyfile(label, target / "labels" / split / f"{number:05}.txt")
    data = {"train": "images/train", "val": "images/val", "names": list(layout.data.names), **layout.data.options}
    (target / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def _is_labelled(folder: Path, image: str) -> bool:
    label = folder / label_of(image)
    return label.is_file() and bool(label.read_bytes().strip())
