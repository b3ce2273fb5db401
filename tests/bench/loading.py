"""Loading: time of an epoch's batches, beside Ultralytics' own loader: ``python -m tests.bench.loading``.

Both make mosaics of the same JPEG files with the same arguments, taking turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.recipes.recipe import load_recipe
from job.training.isolation import isolate_ultralytics
from tests.bench.rows import print_row, ratios, spread
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

if TYPE_CHECKING:
    from job.training.trainer import Trainer

NUM_IMAGES = 400

Batches = Callable[[int], Iterable[Any]]
"""The batches of an epoch (0-based)."""


def main() -> None:
    """Print the ratio for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each loader")
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="bench-") as base:
        folder = Path(base)
        isolate_ultralytics(folder / "ultralytics")
        make_tiny_dataset(folder / "data", num_train=NUM_IMAGES, px=1280)
        data = folder / "data" / "data.yaml"
        data.write_text(f"path: {folder / 'data'}\n{data.read_text()}")
        for workers in (0, 1, 2):
            seconds: list[tuple[float, float]] = []
            for _ in range(pairs):
                trainer = make_trainer(folder, workers)
                stock = seconds_of_an_image(stock_batches(trainer))
                ours = seconds_of_an_image(lambda epoch, trainer=trainer: trainer.epoch_of_batches(epoch, 0))
                trainer.shut_loaders()
                seconds.append((stock, ours))
            stock_s, ours_s = zip(*seconds, strict=True)
            print_row(
                f"an image of 1280 px in a mosaic, {workers} workers, ours / stock",
                ratios(ours_s, stock_s),
                f"other programs ran; stock took {spread([1000 * s for s in stock_s], 1)} ms",
            )


def make_trainer(folder: Path, workers: int) -> "Trainer":
    """Set up recipe A at 640 px."""
    from job.training.trainer import Trainer  # noqa: PLC0415  # after isolate_ultralytics

    return Trainer(
        plan_tiny_training(
            folder / "run",
            folder / "data" / "data.yaml",
            load_recipe("A").train | {"imgsz": 640, "plots": False},
            workers,
        )
    )


def stock_batches(trainer: "Trainer") -> Batches:
    """Return the epochs of Ultralytics' own loader of the same data."""
    from ultralytics.data.build import build_dataloader, build_yolo_dataset  # noqa: PLC0415  # after isolate_ultralytics

    args, data = trainer.args, trainer.data
    dataset = build_yolo_dataset(args, data["train"], args.batch, data, mode="train", stride=32)
    loader = build_dataloader(dataset, args.batch, args.workers, shuffle=True, device="cpu")
    return lambda _epoch: loader


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
