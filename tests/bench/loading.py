"""Loading: making samples, beside Ultralytics' own loader: ``python -m tests.bench.loading``.

On pictures of 12 megapixels, CPU seconds of one process, without and with prepared pixels, and whether stock transforms
make the same samples from the same draws; on smaller ones, time with worker processes. The loaders take turns on the
same files and arguments.
"""

import argparse
import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import cv2
import numpy as np

from job.recipes.recipe import load_recipe
from job.training import prepared_pixels
from job.training.isolation import isolate_ultralytics
from tests.bench.rows import print_row, ratios, spread
from tests.support.prepared_pixels import fill, pixel_folder
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.training.trainer import Trainer

NUM_IMAGES = 400

NUM_PICTURES, HEIGHT, WIDTH, QUALITY = 24, 3000, 4000, 90
"""Pictures of 12 megapixels, as a drone takes them."""

Batches = Callable[[int], Iterable[Any]]
"""The batches of an epoch (0-based)."""


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each loader")
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="bench-") as base:
        folder = Path(base)
        isolate_ultralytics(folder / "ultralytics")
        draw_pictures(folder / "pictures")
        compare_cpu(folder, pairs)
        compare_time(folder, pairs)


def compare_cpu(folder: Path, pairs: int) -> None:
    """Print CPU seconds of a sample of recipe A from pictures of 12 megapixels, and whether samples are equal."""
    pictures, imgsz = folder / "pictures", load_recipe("A").train["imgsz"]
    trainer = make_trainer(folder, pictures, 0, imgsz)
    with patch.object(prepared_pixels, "RESERVED_BYTES", 0):
        prepared = make_trainer(folder, pictures, 0, imgsz, pixels=pixel_folder(folder / "pixels", pictures))
        fill(prepared.train_loader.dataset)
    decoded = trainer.train_loader.dataset.recent
    seconds: dict[str, list[tuple[float, float]]] = {"": [], ", pixels prepared": []}
    digests: list[tuple[str, ...]] = []
    for turn in range(pairs + 1):
        decoded.clear()
        theirs, mine, read = in_turns(
            by_stock_decoder(stock_batches(trainer)(turn)),
            trainer.epoch_of_batches(turn, 0),
            prepared.epoch_of_batches(turn, 0),
        )
        decoded.clear()
        with stock_transforms(trainer):
            (same,) = in_turns(by_stock_decoder(trainer.epoch_of_batches(turn, 0)))
        digests.append((same[1], mine[1], read[1]))
        for pairs_of, (took, _) in zip(seconds.values(), (mine, read), strict=True):
            if turn:  # the first has the memory of all that follow to fetch
                pairs_of.append((theirs[0] / NUM_PICTURES, took / NUM_PICTURES))
    differ = "none" if all(len(set(of_turn)) == 1 for of_turn in digests) else "some"
    for kind, pairs_of in seconds.items():
        print_pairs(
            f"CPU time of a sample of recipe A from {WIDTH} x {HEIGHT} px{kind}",
            pairs_of,
            f"stock transforms make other samples (of {NUM_PICTURES * len(digests)}, {differ} differ)",
        )


def compare_time(folder: Path, pairs: int) -> None:
    """Print seconds of an image of 1280 px for each number of workers."""
    make_tiny_dataset(folder / "data", num_train=NUM_IMAGES, px=1280)
    for workers in (0, 1, 2):
        seconds: list[tuple[float, float]] = []
        for _ in range(pairs):
            trainer = make_trainer(folder, folder / "data", workers, 640)
            with stock_decoder():
                stock = seconds_of_an_image(stock_batches(trainer))
            ours = seconds_of_an_image(lambda epoch, trainer=trainer: trainer.epoch_of_batches(epoch, 0))
            trainer.shut_loaders()
            seconds.append((stock, ours))
        print_pairs(f"an image of 1280 px in a mosaic, {workers} workers", seconds, "other programs ran")


def print_pairs(what: str, seconds: list[tuple[float, float]], meaningless_if: str) -> None:
    """Print a ratio from pairs of stock's and our seconds of a sample."""
    stock_s, ours_s = zip(*seconds, strict=True)
    took = spread([1000 * s for s in stock_s], 1)
    print_row(f"{what}, ours / stock", ratios(ours_s, stock_s), f"{meaningless_if}; stock took {took} ms")


def draw_pictures(folder: Path) -> None:
    """Draw pictures with detail of all sizes, and ten boxes in each."""
    random = np.random.default_rng(0)
    for split, number in (("train", NUM_PICTURES), ("val", 1)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for name in range(number):
            draw_picture(folder, split, name, draw_ground(random, HEIGHT, WIDTH), random)
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [animal]\n")


def draw_ground(random: np.random.Generator, height: int, width: int) -> "NDArray[np.uint8]":
    """Return pixels with detail of all sizes."""
    grain = np.zeros((height, width, 3), np.float32)
    for px in (1, 2, 8, 32, 200):
        rough = random.normal(0, 6 + px / 10, (height // px, width // px, 3)).astype(np.float32)
        grain += cv2.resize(rough, (width, height))
    return np.clip(grain + 120, 0, 255).astype(np.uint8)


def draw_picture(folder: Path, split: str, name: int, pixels: "NDArray[np.uint8]", random: np.random.Generator) -> None:
    """Write a picture and the labels of ten boxes in it."""
    cv2.imwrite(str(folder / "images" / split / f"{name}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    boxes = "".join(f"0 {x:.6f} {y:.6f} 0.02 0.02\n" for x, y in random.uniform(0.1, 0.9, (10, 2)))
    (folder / "labels" / split / f"{name}.txt").write_text(boxes)


def make_trainer(folder: Path, data: Path, workers: int, imgsz: int, **of_plan: object) -> "Trainer":
    """Set up recipe A."""
    from job.training.trainer import Trainer  # noqa: PLC0415  # after isolate_ultralytics

    yaml = folder / "data.yaml"
    yaml.write_text(f"path: {data}\n{(data / 'data.yaml').read_text()}")
    train = load_recipe("A").train | {"imgsz": imgsz, "plots": False}
    return Trainer(dataclasses.replace(plan_tiny_training(folder / "run", yaml, train, workers), **of_plan))


def stock_batches(trainer: "Trainer") -> Batches:
    """Return the epochs of Ultralytics' own loader of the same data."""
    from ultralytics.data.build import build_dataloader, build_yolo_dataset  # noqa: PLC0415  # after isolate_ultralytics

    args, data = trainer.args, trainer.data
    dataset = build_yolo_dataset(args, data["train"], args.batch, data, mode="train", stride=32)
    loader = build_dataloader(dataset, args.batch, args.workers, shuffle=True, device="cpu")
    return lambda _epoch: loader


@contextmanager
def stock_decoder() -> Iterator[None]:
    """Let Ultralytics decode images by itself."""
    from ultralytics.data import base  # noqa: PLC0415  # after isolate_ultralytics
    from ultralytics.utils import patches  # noqa: PLC0415  # after isolate_ultralytics

    with patch.object(base, "imread", patches.imread):
        yield


def by_stock_decoder(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches that this process makes with images decoded by Ultralytics itself."""
    found = iter(batches)
    while True:
        with stock_decoder():
            batch = next(found, None)
        if batch is None:
            return
        yield batch


@contextmanager
def stock_transforms(trainer: "Trainer") -> Iterator[None]:
    """Let the dataset of a trainer augment by Ultralytics' own transforms."""
    from job.training import dataset  # noqa: PLC0415  # after isolate_ultralytics

    ours = trainer.train_loader.dataset
    with patch.object(dataset, "keep_arrays", lambda _transforms: None):
        stock = ours.build_transforms(trainer.args)
    with patch.object(ours, "transforms", stock):
        yield


def in_turns(*epochs: Iterable[Any]) -> list[tuple[float, str]]:
    """Let epochs make a batch each in turns, so that the drift of the machine meets all alike.

    Returns:
        CPU seconds of each in this process, and a digest of its pixels and boxes.
    """
    running, digests, seconds = [*map(iter, epochs)], [hashlib.sha256() for _ in epochs], [0.0] * len(epochs)

    def make_batch(number: int) -> Any:
        started = time.process_time()
        batch = next(running[number], None)
        seconds[number] += time.process_time() - started
        for name in ("img", "cls", "bboxes") if batch is not None else ():
            digests[number].update(batch[name].numpy().tobytes())
        return batch

    while None not in [make_batch(number) for number in range(len(epochs))]:
        pass
    return [(took, digest.hexdigest()) for took, digest in zip(seconds, digests, strict=True)]


def seconds_of_an_image(batches: Batches) -> float:
    """Time a loader's second epoch: like every later one it begins with what was made ahead and ends making ahead."""
    started = 0.0
    for epoch in range(2):
        started = time.monotonic()
        for _ in batches(epoch):
            pass
    return (time.monotonic() - started) / NUM_IMAGES


if __name__ == "__main__":
    main()
