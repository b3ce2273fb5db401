"""Tiles: small objects found after equal seconds of training, on whole pictures and on tiles: ``make bench-tiles``.

Three arms from the same start weights: recipe A, the same weights of A with slices at detection, and recipe T. A and T
train at the same time, each in a process with one thread; their epochs are chosen so that they take equal seconds,
which are measured. The weights of the last epoch are scored, so that no picture chose them; the threshold of F1 is
chosen on one split, and all figures are of another. Intervals are of a bootstrap over its pictures.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from job import __version__
from job.analysis.bootstrap import Resamples, interval_estimate, ratio
from job.cli.app import main as job_main
from job.datasets.labelled import read_split
from job.datasets.labels import LabelledBox
from job.goodput import Phase
from job.runs.evaluation import IntervalEstimate
from job.runs.run import Run
from job.storage.open_store import open_store
from job.text import table
from job.training.evaluation_record import Detection
from job.training.isolation import isolate_ultralytics
from job.training.matching import match
from tests.bench.aerial_pictures import cut_photographs, draw_landscape
from tests.support.cli_process import ROOT

SHARED = {"batch": 8, "nbs": 8, "device": "cpu", "workers": 0, "plots": "false", "checkpoint-every": 0}
"""Flags of every training."""

OVERLAP = 0.2

MIN_PRECISION = 0.8
"""Recall is compared at this precision."""

SIZES_PX = (0, 8, 12, 16, 24)
"""Where ranges of sizes begin: the square root of a box's area, in pixels of a whole picture at `imgsz`."""

CONFIDENCES = np.linspace(0.01, 0.99, 99)

NUM_RESAMPLES = 2000

MAX_DIFFERENCE = 0.05
"""Of the two trainings' seconds; above it they are not comparable."""

TRIAL = {"A": 6, "T": 1}
"""Epochs by which the seconds of one are measured first; both take about as long."""

ARMS = {"A": ("A", False), "A, slices": ("A", True), "T, slices": ("T", True)}
"""The training of each arm, and whether it is scored with slices."""


@dataclass(frozen=True)
class Subject:
    """Pictures that the arms are compared on."""

    name: str
    make: Callable[[Path], None]
    imgsz: int
    """Of all trainings; also pixels of the file that a tile is wide and high."""


SUBJECTS = {
    subject.name: subject
    for subject in (Subject("landscape", draw_landscape, 192), Subject("crowns", cut_photographs, 128))
}


@dataclass(frozen=True)
class Training:
    """What a training did."""

    epochs: int
    seconds: float
    """In its steps and waiting for their pictures; neither set-up nor validation counts."""

    megapixels: float


@dataclass(frozen=True)
class Picture:
    """A picture's objects, and its detections."""

    sizes_px: np.ndarray
    """``(m,)`` of its objects, at `imgsz`."""

    found_at: np.ndarray
    """``(m,)`` confidence of the detection that is right about each object; 0 if none is."""

    confidences: np.ndarray
    """``(n,)`` of all detections."""


@dataclass
class Result:
    """What came out on some pictures."""

    subject: str
    imgsz: int
    num_pictures: int
    num_objects: dict[str, int]
    """By range of sizes."""

    trainings: dict[str, Training]
    figures: dict[str, dict[str, IntervalEstimate]] = field(default_factory=dict)
    """Shares of 1 by name and arm; the last arm is the difference of T to A."""

    @property
    def difference(self) -> float:
        """By how much the seconds of the two trainings differ, as a share of those of A."""
        return abs(self.trainings["T"].seconds / self.trainings["A"].seconds - 1)


class Bench:
    """Pictures in a bucket, and trainings on them."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder, self.bucket = subject, folder, folder / "bucket"
        self.data = folder / "data"
        subject.make(self.data)
        self.bucket.mkdir()
        pushed = ["data", "push", str(self.data), "--dataset", subject.name, "--bucket", str(self.bucket)]
        assert job_main(pushed) == 0

    def start(self, run: str, recipe: str, epochs: int, *words: str) -> "subprocess.Popen[bytes]":
        """Start a training; a tenth of its epochs is warm-up, and the last fifth has no mosaic."""
        flags = SHARED | {"recipe": recipe, "epochs": epochs, "imgsz": self.subject.imgsz, "run": run}
        flags |= {"warmup-epochs": round(epochs / 10, 2), "close-mosaic": round(epochs / 5)}
        flags |= {"dataset": self.subject.name, "bucket": self.bucket, "workdir": self.folder / "work"}
        if recipe == "T":
            flags |= {"tiles": self.subject.imgsz}
        named = [f"--{name}={value}" for name, value in flags.items()]
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        with (self.folder / f"{run}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "job", "train", *named, *words], env=env, stdout=log, stderr=log
            )

    def train_both(self, prefix: str, epochs: dict[str, int]) -> dict[str, Training]:
        """Train A and T at the same time from the start weights."""
        weights = ("--weights", str(self.bucket / "runs" / "start" / "weights" / "last.pt"))
        running = {recipe: self.start(f"{prefix}{recipe}", recipe, epochs[recipe], *weights) for recipe in epochs}
        return {recipe: self.finished(f"{prefix}{recipe}", process) for recipe, process in running.items()}

    def finished(self, run: str, process: "subprocess.Popen[bytes]") -> Training:
        """Wait for a training, and return what it did."""
        assert process.wait() == 0, (self.folder / f"{run}.log").read_text()[-3000:]
        found = Run(open_store(str(self.bucket)), run)
        spent, facts = found.attempt(1).seconds, found.record().facts
        epochs = found.final().num_epochs
        return Training(
            epochs=epochs,
            seconds=round(spent[Phase.USEFUL] + spent[Phase.DATA_WAIT], 1),
            megapixels=round(epochs * facts.num_train_images * facts.imgsz**2 / 1e6, 1),
        )

    def pictures(self, run: str, split: str, *, sliced: bool) -> list[Picture]:
        """Return what the last weights of a run find in the pictures of a split."""
        from job.training.detector import DetectionSettings, Detector  # noqa: PLC0415  # after isolate_ultralytics

        imgsz = self.subject.imgsz
        settings = DetectionSettings(
            conf=float(CONFIDENCES[0]), iou=0.7, imgsz=imgsz, max_det=300,
            tiles=imgsz if sliced else None, overlap=OVERLAP, batch=16,
        )  # fmt: skip
        detector = Detector(self.bucket / "runs" / run / "weights" / "last.pt", settings, "cpu", 1)
        found = []
        for image in read_split(self.data, split, single_class=False):
            pixels = image.pixels(detector.num_channels)
            (detections,) = detector.detect([pixels])
            found.append(matched(detections, image.boxes(), pixels.shape[:2], imgsz))
        return found


def matched(detections: list[Detection], labels: list[LabelledBox], shape: tuple[int, int], imgsz: int) -> Picture:
    """Match the detections in a picture of a height and width with its labels."""
    height, width = shape
    objects = np.array([label.in_pixels(width, height) for label in labels]).reshape(-1, 4)
    found = np.array(detections, float).reshape(-1, 6)
    about = match(objects, np.array([label.category for label in labels]), found[:, 2:], found[:, 0])[:, 0]
    found_at = np.zeros(len(objects))
    found_at[about[about >= 0]] = found[about >= 0, 1]
    sizes_px = np.sqrt((objects[:, 2:] - objects[:, :2]).prod(1)) * imgsz / max(height, width)
    return Picture(sizes_px, found_at, found[:, 1])


def counts(pictures: list[Picture]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return objects ``(p, s)``, and found ones ``(p, s, c)``, of each picture by size, and detections ``(p, c)``, by
    confidence.
    """
    ranges = [np.digitize(picture.sizes_px, SIZES_PX[1:])[:, None] == np.arange(len(SIZES_PX)) for picture in pictures]
    found = [
        np.einsum("ms,mc->sc", in_range, picture.found_at[:, None] >= CONFIDENCES)
        for in_range, picture in zip(ranges, pictures, strict=True)
    ]
    shown = [(picture.confidences[:, None] >= CONFIDENCES).sum(0) for picture in pictures]
    return np.array([in_range.sum(0) for in_range in ranges]), np.array(found), np.array(shown)


def figures_of(chosen_on: list[Picture], scored: list[Picture], resamples: Resamples) -> dict[str, np.ndarray]:
    """Return figures ``(1 + r,)`` of the scored pictures and of their resamples."""
    objects, found, shown = counts(chosen_on)
    f1 = 2 * found.sum((0, 1)) / np.maximum(shown.sum(0) + objects.sum(), 1)
    threshold = int(f1.argmax())
    objects, found, shown = counts(scored)
    by_size, found_by_size, shown = (resamples.total(each) for each in (objects, found, shown))
    num_found, num_objects = found_by_size.sum(1), by_size.sum(1)
    recalls, precisions = num_found / num_objects[:, None], num_found / np.maximum(shown, 1)
    figures = {
        f"recall at P {100 * MIN_PRECISION:.0f} %": np.where(precisions >= MIN_PRECISION, recalls, 0).max(1),
        "F1": (2 * num_found / (shown + num_objects[:, None]))[:, threshold],
        "precision": precisions[:, threshold],
        "recall": recalls[:, threshold],
    }
    shares = ratio(found_by_size[:, :, threshold], by_size)
    in_sizes = {f"recall, {size}": shares[:, i] for i, size in enumerate(sizes()) if objects[:, i].any()}
    return figures | in_sizes


def sizes() -> list[str]:
    """Return the names of the ranges of sizes."""
    return [
        f"{low}+ px" if high is None else f"{low}-{high} px"
        for low, high in zip(SIZES_PX, (*SIZES_PX[1:], None), strict=True)
    ]


def shown_figure(figure: IntervalEstimate) -> str:
    """Return a figure with its interval in percent."""
    value, low, high = (100 * (np.nan if share is None else share) for share in figure)
    return f"{value:.1f} [{low:.0f}, {high:.0f}]"


def compare(subject: Subject, folder: Path, start_epochs: int, seconds: float) -> Result:
    """Train and score the three arms on some pictures."""
    bench = Bench(subject, folder)
    bench.finished("start", bench.start("start", "base", start_epochs, "--model", "yolo11n.yaml"))
    trial = bench.train_both("trial", TRIAL)
    epoch_s = {recipe: training.seconds / training.epochs for recipe, training in trial.items()}
    epochs = {"T": max(2, round(seconds / epoch_s["T"]))}
    epochs["A"] = round(epochs["T"] * epoch_s["T"] / epoch_s["A"])
    trainings = bench.train_both("", epochs)
    found = {arm: [bench.pictures(run, split, sliced=sliced) for split in ("val", "test")]
             for arm, (run, sliced) in ARMS.items()}  # fmt: skip
    scored = found["A"][1]
    resamples = Resamples.of(len(scored), NUM_RESAMPLES)
    figures = {arm: figures_of(*pictures, resamples) for arm, pictures in found.items()}
    figures["T - A"] = {name: figures["T, slices"][name] - values for name, values in figures["A"].items()}
    objects = dict(zip(sizes(), counts(scored)[0].sum(0).tolist(), strict=True))
    named = {name: {arm: interval_estimate(values[name]) for arm, values in figures.items()} for name in figures["A"]}
    return Result(subject.name, subject.imgsz, len(scored), objects, trainings, named)


def lines_of(result: Result) -> list[str]:
    """Return a result as lines of a table."""
    arms = [*ARMS, "T - A"]
    rows = [["%, 95 % interval", *arms]]
    rows += [[name, *(shown_figure(by_arm[arm]) for arm in arms)] for name, by_arm in result.figures.items()]
    objects = ", ".join(f"{number} of {size}" for size, number in result.num_objects.items())
    lines = [f"{result.subject}: {result.num_pictures} pictures, imgsz {result.imgsz}; objects: {objects}"]
    lines += [
        f"training of {recipe}: {one.epochs} epochs, {one.seconds:.0f} s, {one.megapixels:.0f} megapixels"
        for recipe, one in result.trainings.items()
    ]
    return [*lines, *table(rows, right=range(1, len(rows[0])))]


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "version": __version__,
    }


def main() -> None:
    """Compare, print the tables, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=210, help="of each training, about")
    parser.add_argument("--start-epochs", type=int, default=40, help="epochs of the start weights, from scratch")
    parser.add_argument("--only", choices=SUBJECTS, help="pictures to compare on")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-tiles.json", help="file of the results")
    chosen = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        isolate_ultralytics(base / "ultralytics")
        results = []
        for name in [chosen.only] if chosen.only else SUBJECTS:
            (base / name).mkdir()
            results.append(compare(SUBJECTS[name], base / name, chosen.start_epochs, chosen.seconds))
            print("\n".join(lines_of(results[-1])), end="\n\n", flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"command": " ".join(["make bench-tiles", *sys.argv[1:]]), **machine()}
    chosen.out.write_text(json.dumps(about | {"results": [asdict(result) for result in results]}, indent=1) + "\n")
    print(f"{chosen.out}: written; {json.dumps(about)}")
    if different := [result.subject for result in results if result.difference > MAX_DIFFERENCE]:
        sys.exit(f"{', '.join(different)}: seconds of training differ by over {MAX_DIFFERENCE:.0%}; measure again")


if __name__ == "__main__":
    main()
