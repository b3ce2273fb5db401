"""Loading: making samples, beside Ultralytics' own loader: ``python -m tests.bench.loading``.

On pictures of 12 megapixels, CPU seconds of one process, without and with prepared pixels, and whether stock transforms
make the same samples from the same draws; on smaller ones, time with worker processes. The loaders take turns on the
same files and arguments.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
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
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

    from job.training.trainer import Trainer

NUM_IMAGES = 400

NUM_PICTURES, HEIGHT, WIDTH, QUALITY = 24, 3000, 4000, 90
"""Pictures of 12 megapixels, as a drone takes them."""

NUM_NAMES = 6 * NUM_PICTURES
"""Files of them, some of the same content: more than a loader keeps decoded, as in a dataset of some size."""

STOCK, OURS, PREPARED, STOCK_TRANSFORMS = "stock", "decoded", "pixels prepared", "stock transforms"
"""Loaders: Ultralytics' own, ours, ours with prepared pixels, and ours with decoder and transforms of Ultralytics."""

KEYED = (OURS, PREPARED, STOCK_TRANSFORMS)
"""Those that have to make the same samples."""

Batches = Callable[[int], Iterable[Any]]
"""The batches of an epoch (0-based)."""

Loader = Callable[[int], tuple[float, str]]
"""Makes so many next samples; returns CPU seconds, and a digest of them."""


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="epochs of each loader")
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="bench-") as base:
        folder = Path(base)
        isolate_ultralytics(folder / "ultralytics")
        draw_pictures(folder / "pictures")
        compare_cpu(folder, pairs)
        compare_time(folder, pairs)


def compare_cpu(folder: Path, pairs: int) -> None:
    """Print CPU seconds of a sample of recipe A from pictures of 12 megapixels, and whether samples are equal.

    Each loader has a process of its own. They take turns batch by batch, after an epoch in which their caches fill. A
    pair is of whole epochs: pictures are decoded some batches ahead, as many as an epoch has in all.
    """
    with contextlib.ExitStack() as stack:
        loaders = {kind: stack.enter_context(running_loader(kind, folder)) for kind in (STOCK, *KEYED)}
        for ask in loaders.values():
            ask(NUM_NAMES)
        epochs = [take_turns(loaders) for _ in range(pairs)]
    differ = "none" if all(len({epoch[kind][1] for kind in KEYED}) == 1 for epoch in epochs) else "some"
    for kind in (OURS, PREPARED):
        print_pairs(
            f"CPU time of a sample of recipe A from {WIDTH} x {HEIGHT} px, {kind}",
            [(epoch[STOCK][0] / NUM_NAMES, epoch[kind][0] / NUM_NAMES) for epoch in epochs],
            f"stock transforms make other samples (of {NUM_NAMES * pairs}, {differ} differ)",
        )


def take_turns(loaders: dict[str, Loader]) -> dict[str, tuple[float, str]]:
    """Return CPU seconds of an epoch of each loader, batch by batch in turns, and digests of its samples."""
    found = dict.fromkeys(loaders, (0.0, ""))
    batch = load_recipe("A").train["batch"]
    for _ in range(NUM_NAMES // batch):
        for kind, ask in loaders.items():
            took_s, digest = ask(batch)
            found[kind] = (found[kind][0] + took_s, found[kind][1] + digest)
    return found


@contextlib.contextmanager
def running_loader(kind: str, folder: Path) -> Iterator[Loader]:
    """Yield a loader in a process of its own: how often it fetches memory depends on what was done there before."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(kind, folder, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process ends a wait for its answer

    def ask(num_samples: int) -> tuple[float, str]:
        ours.send(num_samples)
        made: tuple[float, str] = ours.recv()
        return made

    try:
        yield ask
    finally:
        process.kill()
        process.join()


def answer(kind: str, folder: Path, asked: "Connection") -> None:
    """Make as many of a loader's next samples as asked for; answer with CPU seconds and a digest of them."""
    (folder / kind).mkdir()
    isolate_ultralytics(folder / kind / "ultralytics")
    with contextlib.ExitStack() as patches:
        coming = make_batches(kind, folder, patches)
        while True:
            num_samples, digest, took_s = asked.recv(), hashlib.sha256(), 0.0
            while num_samples > 0:
                started = time.process_time()
                batch = next(coming)
                took_s += time.process_time() - started
                num_samples -= len(batch["img"])
                for name in ("img", "cls", "bboxes"):
                    digest.update(batch[name].numpy().tobytes())
            asked.send((took_s, digest.hexdigest()))


def make_batches(kind: str, folder: Path, patches: contextlib.ExitStack) -> Iterator[Any]:
    """Return the batches of one epoch after the other."""
    pictures, imgsz = folder / "pictures", load_recipe("A").train["imgsz"]
    prepared = {}
    if kind == PREPARED:
        patches.enter_context(patch.object(prepared_pixels, "RESERVED_BYTES", 0))
        prepared["pixels"] = pixel_folder(folder / "pixels", pictures)
    trainer = make_trainer(folder / kind, pictures, 0, imgsz, **prepared)
    if kind == PREPARED:
        fill(trainer.train_loader.dataset)
    if kind in (STOCK, STOCK_TRANSFORMS):
        patches.enter_context(stock_decoder())
    if kind == STOCK_TRANSFORMS:
        patches.enter_context(stock_transforms(trainer))
    batches = stock_batches(trainer) if kind == STOCK else lambda epoch: trainer.epoch_of_batches(epoch, 0)
    return itertools.chain.from_iterable(map(batches, itertools.count()))


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
    """Draw pictures with detail of all sizes and ten boxes in each, to train on under several names."""
    random = np.random.default_rng(0)
    for split, number in (("train", NUM_PICTURES), ("val", 1)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for name in range(number):
            draw_picture(folder, split, name, draw_ground(random, HEIGHT, WIDTH), random)
    for name in range(NUM_PICTURES, NUM_NAMES):
        for kind, ending in (("images", "jpg"), ("labels", "txt")):
            place = folder / kind / "train"
            os.link(place / f"{name % NUM_PICTURES}.{ending}", place / f"{name}.{ending}")
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


@contextlib.contextmanager
def stock_decoder() -> Iterator[None]:
    """Let Ultralytics decode images by itself."""
    from ultralytics.data import base  # noqa: PLC0415  # after isolate_ultralytics
    from ultralytics.utils import patches  # noqa: PLC0415  # after isolate_ultralytics

    with patch.object(base, "imread", patches.imread):
        yield


@contextlib.contextmanager
def stock_transforms(trainer: "Trainer") -> Iterator[None]:
    """Let the dataset of a trainer augment by Ultralytics' own transforms."""
    from job.training import dataset  # noqa: PLC0415  # after isolate_ultralytics

    ours = trainer.train_loader.dataset
    with patch.object(dataset, "keep_arrays", lambda _transforms: None):
        stock = ours.build_transforms(trainer.args)
    with patch.object(ours, "transforms", stock):
        yield


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
