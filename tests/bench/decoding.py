"""Decoding: how often an epoch of tiles decodes each picture: ``python -m tests.bench.decoding``.

Counted in the real loader processes, with mosaic; a count depends on the order alone, not on the machine.
"""

import argparse
import dataclasses
import multiprocessing
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from job.recipes.recipe import load_recipe
from job.text import table
from job.training.isolation import isolate_ultralytics
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

if TYPE_CHECKING:
    from job.training.trainer import Trainer

NUM_PICTURES, PX, TILE = 200, 256, 64

WORKERS = (*range(1, 9), 12, 16)

ARGUMENTS = load_recipe("T").train | {"imgsz": 32, "tiles": TILE, "plots": False}
"""Of recipe T, on pictures that are four times as wide as a tile, as the recipe's may be."""


def main() -> None:
    """Print the decodes of each picture by seed and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="orders that are counted")
    seeds = range(parser.parse_args().seeds)
    with tempfile.TemporaryDirectory(prefix="bench-") as base:
        folder = Path(base)
        isolate_ultralytics(folder / "ultralytics")
        make_tiny_dataset(folder / "data", num_train=NUM_PICTURES, px=PX)
        data = folder / "data" / "data.yaml"
        data.write_text(f"path: {folder / 'data'}\n{data.read_text()}")
        rows = [["workers", *map(str, WORKERS)]]
        rows += [[f"seed {seed}", *(f"{decodes(folder, seed, workers):.2f}" for workers in WORKERS)] for seed in seeds]
    print(f"decodes of a picture in an epoch of tiles, {NUM_PICTURES} pictures of {PX} px, tiles of {TILE} px")
    print("\n".join(table(rows, right=range(1, len(rows[0])))))


def decodes(folder: Path, seed: int, workers: int) -> float:
    """Return how often an epoch decodes a picture, on average over those that have a tile in it."""
    trainer = make_trainer(folder, seed, workers)
    from job.training import dataset  # noqa: PLC0415  # after isolate_ultralytics

    count, read = multiprocessing.Value("i"), dataset.imread

    def counted(*args: object, **options: object) -> object:
        with count.get_lock():
            count.value += 1
        return read(*args, **options)

    tiles = trainer.train_loader.dataset
    shown = {int(tiles.picture_of[sample.image]) for batch in trainer.batches for sample in batch}
    with patch.object(dataset, "imread", counted):  # the loader's processes are forked within
        for _ in trainer.train_loader:
            pass
    trainer.shut_loaders()
    return count.value / len(shown)


def make_trainer(folder: Path, seed: int, workers: int) -> "Trainer":
    """Set up a trainer with so many workers, whatever the machine has."""
    from job.training import sampler, trainer  # noqa: PLC0415  # after isolate_ultralytics

    train = ARGUMENTS | {"seed": seed, "epochs": 20}
    plan = plan_tiny_training(folder / "run", folder / "data" / "data.yaml", train, workers)
    plan = dataclasses.replace(plan, mosaic_stride=sampler.choose_stride(workers, train["batch"], train["imgsz"]))
    with patch.object(trainer, "num_cores", return_value=max(WORKERS)):
        return trainer.Trainer(plan)


if __name__ == "__main__":
    main()
