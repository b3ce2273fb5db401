"""Prediction: pictures per second beside Ultralytics' own, and what shards cost: ``python -m tests.bench.prediction``.

All search the same pictures with the same weights and arguments, taking turns, each in a process with one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.rows import print_row, ratios, spread
from tests.support.cli_process import ROOT
from tests.support.learned_weights import learn
from tests.support.predicting import make_finished_run
from tests.support.tiny_dataset import make_tiny_dataset

NUM_PICTURES, SHARD = 100, 10

CONF, IMGSZ, PX = 0.05, 640, 1280

STOCK = """
import json, sys, time
from ultralytics import YOLO
weights, pictures, arguments = json.loads(sys.argv[1])
model = YOLO(weights)
model.predict(pictures[0], **arguments)
began = time.perf_counter()
num = sum(1 for _ in model.predict(pictures, stream=True, **arguments))
print(json.dumps([num / (time.perf_counter() - began), 0]))
"""

OURS = """
import json, sys, time
import numpy as np
from job.cli.app import main
from job.prediction.predict import _Work
load, finish = _Work._load, _Work._finish
times = []

def loaded(work):
    detector = load(work)
    detector.detect([np.zeros((1280, 1280, 3), np.uint8)])
    times.append(time.perf_counter())
    return detector

def finished(work, detector):
    times.append(time.perf_counter())
    return finish(work, detector)

_Work._load, _Work._finish = loaded, finished
assert main(sys.argv[2:]) == 0
times.append(time.perf_counter())
print(json.dumps([int(sys.argv[1]) / (times[1] - times[0]), times[2] - times[1]]))
"""


class Bench:
    """A place with pictures, a run, and the two programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = learn(folder)
        self.bucket = make_finished_run(folder / "bucket", self.weights, imgsz=IMGSZ)
        data = make_tiny_dataset(folder / "data", num_train=NUM_PICTURES, num_val=1, px=PX)
        self.pictures = data / "images" / "train"
        self.num = 0

    def stock(self) -> tuple[float, float]:
        """Return pictures per second of Ultralytics, which writes a text file for each."""
        arguments = {
            "conf": CONF,
            "imgsz": IMGSZ,
            "device": "cpu",
            "verbose": False,
            "save_txt": True,
            "save_conf": True,
        }
        pictures = [str(path) for path in sorted(self.pictures.iterdir())]
        return self._run(STOCK, json.dumps([str(self.weights), pictures, arguments | {"project": str(self.folder)}]))

    def ours(self, shard: int) -> tuple[float, float]:
        """Return pictures per second until the last shard is committed, and the seconds of the final files."""
        self.num += 1
        flags = {"out": self.folder / f"out{self.num}", "bucket": self.bucket, "workdir": self.folder / "work"}
        flags |= {"conf": CONF, "device": "cpu", "shard": shard}
        words = [
            "predict",
            "zebra",
            str(self.pictures),
            "--json",
            *(f"--{name}={value}" for name, value in flags.items()),
        ]
        return self._run(OURS, str(NUM_PICTURES), *words)

    def _run(self, *words: str) -> tuple[float, float]:
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "YOLO_CONFIG_DIR": str(self.folder / "settings"),
            "YOLO_OFFLINE": "true",
        }
        done = subprocess.run(
            [sys.executable, "-c", *words], env=env, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        rate, finish_s = json.loads(done.stdout.splitlines()[-1])
        return rate, finish_s


def main() -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each program")
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder))
        turns = {
            "stock": bench.stock,
            "ours": lambda: bench.ours(SHARD),
            "in one shard": lambda: bench.ours(NUM_PICTURES),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
        for pair in range(pairs):
            for name in sorted(turns, reverse=bool(pair % 2)):
                found[name].append(turns[name]())
    stock, ours, whole = ([rate for rate, _ in found[name]] for name in turns)
    print_row(
        f"pictures/s of {PX} px at {IMGSZ} px, {NUM_PICTURES} in all, ours / stock",
        ratios(ours, stock),
        f"other programs ran; stock {spread(stock, 1)} pictures/s, ours {spread(ours, 1)}",
    )
    num_shards = NUM_PICTURES // SHARD
    print_row(f"the same with {num_shards} shards / with one", ratios(ours, whole), "other programs ran")
    cost_ms = [
        1000 * NUM_PICTURES * (1 / one - 1 / other) / (num_shards - 1) for one, other in zip(ours, whole, strict=True)
    ]
    print_row("a shard more takes, in ms", cost_ms, "its range holds 0", digits=0)
    print_row("the final files take, in s, once", [s for _, s in found["ours"]], "the disk was busy", digits=1)


if __name__ == "__main__":
    main()
