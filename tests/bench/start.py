"""Start: time to the first step, and what a long past adds to it: ``python -m tests.bench.start``.

New trainings beside stock Ultralytics, on a dataset of many pictures and on the small one of the demo: on a new
machine, where nothing of the dataset is kept, and where both keep what they have. They begin from scratch; then from
weights, which ours measures before its first step on the pictures to validate on, and stock does not. Then resumptions
and lists of runs, in a bucket of an emulator.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from job.datasets.prepare import pull_dataset
from job.runs.listing import RunListing
from job.storage.open_store import open_store
from tests.bench.loading import draw_ground, draw_picture
from tests.bench.rows import print_row, ratios, spread
from tests.bench.training import Bench, finish
from tests.support.emulator import running_emulator
from tests.support.run_records import add_attempts, copy_run, record_run

HEIGHT, WIDTH, GROUND = 480, 640, 3000
"""Pixels of one of many pictures, and of the ground that all of them show a part of."""

NUM_VAL = 48
"""Pictures of the large dataset to validate on, as many as the small one has."""

NUM_ATTEMPTS, NUM_RUNS = 200, 300


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="how many times each is started")
    parser.add_argument("--images", type=int, default=20_000, help="pictures of the large dataset")
    parser.add_argument("--only", nargs="+", choices=["large", "small", "weights", "attempts", "runs"])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as base, running_emulator() as emulator:
        folder = Path(base)
        os.environ |= emulator.env
        parts = {
            "large": lambda: compare_starts(
                Bench(folder / "large", lambda place: draw_many(place / "data", chosen.images)),
                f"{chosen.images} pictures",
                chosen.pairs,
            ),
            "small": lambda: compare_starts(Bench(folder / "small"), "the demo", chosen.pairs),
            "weights": lambda: compare_starts_from_weights(Bench(folder / "weights"), chosen.pairs),
            "attempts": lambda: compare_pasts(
                Bench(folder / "attempts", bucket=f"{emulator.make_bucket()}/wild"), chosen.pairs
            ),
            "runs": lambda: time_lists(folder / "runs", emulator.make_bucket(), chosen.pairs),
        }
        for name, part in parts.items():
            if chosen.only is None or name in chosen.only:
                part()


def draw_many(folder: Path, num_images: int) -> None:
    """Draw a dataset of small pictures, each of another place."""
    random = np.random.default_rng(0)
    ground = draw_ground(random, GROUND, GROUND)
    rows, columns = GROUND - HEIGHT, GROUND - WIDTH
    places = iter(random.choice(rows * columns, num_images, replace=False))
    for split, num in (("train", num_images - NUM_VAL), ("val", NUM_VAL)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for name in range(num):
            top, left = divmod(int(next(places)), columns)
            draw_picture(folder, split, name, ground[top : top + HEIGHT, left : left + WIDTH], random)
    (folder / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [zebra, elephant, giraffe, ostrich]\n"
    )


def compare_starts(bench: Bench, what: str, num_pairs: int) -> None:
    """Compare the time to the first step of new trainings."""
    pull: list[float] = []
    stock_new, ours_new, stock_kept, ours_kept = (list[float]() for _ in range(4))
    for pair in range(num_pairs):
        forget(bench)
        pull.append(time_pull(bench))
        forget(bench)
        for machine, stock, ours in (("new", stock_new, ours_new), ("kept", stock_kept, ours_kept)):
            stock.append(bench.first_step_s(f"stock-{machine}-{pair}", lambda run: bench.stock(run, 2)))
            ours.append(bench.first_step_s(f"ours-{machine}-{pair}", lambda run: bench.ours(run, 2, trace=True)))
    without_pull = [total_s - pull_s for total_s, pull_s in zip(ours_new, pull, strict=True)]
    print_row(
        f"{what}, from start to first step on a new machine, less the time of a pull alone, ours / stock (goal 1.0)",
        ratios(without_pull, stock_new),
        f"other programs ran; stock took {spread(stock_new, 2)} s, ours {spread(ours_new, 2)} s, a pull "
        f"{spread(pull, 2)} s; all files are in the system's cache",
    )
    print_row(
        "the same where the dataset is kept, ours / stock (goal 1.0; for small ones 1.02)",
        ratios(ours_kept, stock_kept),
        f"other programs ran; stock took {spread(stock_kept, 2)} s, ours {spread(ours_kept, 2)} s",
    )


def compare_starts_from_weights(bench: Bench, num_pairs: int) -> None:
    """Compare the same where the dataset is kept and both start from the weights of a run, which ours measures."""
    finish(bench.ours("trained", 1))
    weights = f"{bench.bucket}/runs/trained/weights/last.pt"
    asked = {"weights": weights}
    stock, ours = list[float](), list[float]()
    for pair in range(num_pairs):
        stock.append(bench.first_step_s(f"stock-{pair}", lambda run: bench.stock(run, 2, model=weights)))
        ours.append(bench.first_step_s(f"ours-{pair}", lambda run: bench.ours(run, 2, changes=asked, trace=True)))
    print_row(
        f"the demo, from start to first step from weights, which ours measures on {NUM_VAL} pictures, ours / stock",
        ratios(ours, stock),
        f"other programs ran; stock took {spread(stock, 2)} s, ours {spread(ours, 2)} s",
    )


def forget(bench: Bench) -> None:
    """Put away what a machine keeps of the dataset: our copy, and stock's caches of labels.

    Nothing is deleted, since ext4 passes over each inode that was freed a moment before, and takes seconds more.
    """
    kept = bench.folder / "work"
    if kept.exists():
        kept.rename(Path(tempfile.mkdtemp(prefix="put-away-", dir=bench.folder)) / kept.name)
    for cache in bench.folder.glob("data/labels/*.cache"):
        cache.unlink()


def time_pull(bench: Bench) -> float:
    """Return the seconds of a pull into a new folder."""
    started = time.monotonic()
    pull_dataset(open_store(bench.bucket), "demo", bench.folder / "work")
    return time.monotonic() - started


def compare_pasts(bench: Bench, num_pairs: int) -> None:
    """Compare the time to the first step of resumptions after few and after many attempts."""
    for name in ("few", "many"):
        for _ in range(2):
            bench.first_step_s(name, lambda run: bench.ours(run, 20, trace=True), 3)
    add_attempts(bench.run("many"), NUM_ATTEMPTS)
    bench.first_step_s("many", lambda run: bench.ours(run, 20, trace=True))  # bundles them, as each of them would have
    found: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(num_pairs):
        for name, times in found.items():
            times.append(bench.first_step_s(name, lambda run: bench.ours(run, 20, trace=True)))
    few, many = found.values()
    print_row(
        f"from start to first step of a resumption after {NUM_ATTEMPTS} attempts / after few",
        ratios(many, few),
        f"other programs ran; after few it took {spread(few, 2)} s, after many {spread(many, 2)} s",
    )


def time_lists(folder: Path, bucket: str, num_times: int) -> None:
    """Measure lists of many finished runs."""
    run = record_run(folder, (0.62, 0.66))
    RunListing(run).write_bundle()
    copy_run(run, open_store(bucket), NUM_RUNS)
    took_s = []
    for _ in range(num_times):
        started = time.monotonic()
        words = [sys.executable, "-m", "job", "runs", "list", "--bucket", bucket]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        took_s.append(time.monotonic() - started)
        assert said.count("complete") == NUM_RUNS
    print_row(f"job runs list of {NUM_RUNS} runs, in s (goal 2)", took_s, "other programs ran", digits=2)


if __name__ == "__main__":
    main()
