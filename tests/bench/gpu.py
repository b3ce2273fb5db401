"""Training on an NVIDIA GPU, beside stock Ultralytics: ``python -m tests.bench.gpu --out gpu.json``.

Pictures have 12 megapixels. The file holds every figure with its count and spread, the card, its driver and the
versions; it is written anew after each, so that a machine that is taken away leaves what was measured.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from job.datasets.synthetic import draw_demo_dataset
from job.recipes.recipe import load_recipe
from job.runs import checkpoint
from job.session.environment import claim_fields, versions
from job.training.cores import num_cores
from job.training.isolation import isolate_ultralytics
from tests.bench.training import Bench, finish
from tests.support.tiny_training import plan_tiny_training

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from job.training.trainer import Trainer

BATCH = 4

NUM_VAL = 8

NUM_STEPS, NUM_WARM = 12, 4
"""Steps on one batch, and those of them that are not counted."""

MEANINGLESS = {
    "epochs": "other work on the card or its cores; epochs of less than 2 s, of which validation is most",
    "checkpoints": "fewer than 5 checkpoints; a disk that other programs write to",
    "loading": "other work on the cores; more loader processes than cores",
    "start": "the first pair, which reads files from the disk, and in which stock may fetch a model for its check",
}
"""By part: what would make its figures meaningless."""


@dataclasses.dataclass
class Figures:
    """The figures so far, in a file."""

    file: Path
    about: dict[str, object]
    parts: dict[str, dict[str, object]] = dataclasses.field(default_factory=dict)

    def add(self, part: str, name: str, **values: object) -> None:
        """Add a row, print it, and write the file anew."""
        self.parts.setdefault(part, {"meaningless_if": MEANINGLESS[part]})[name] = values
        self.file.write_text(json.dumps({**self.about, **self.parts}, indent=1) + "\n")
        print(f"{part} {name}: {json.dumps(values)}", flush=True)


def spread_of(values: list[float]) -> dict[str, float]:
    """Return count, median, minimum and maximum."""
    named = {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else {}
    return {"count": len(values), **{name: round(value, 4) for name, value in named.items()}}


def draw_photographs(folder: Path, num_images: int, px: int) -> None:
    """Draw the demo's pictures in the size of a drone's, with the noise of a sensor."""
    draw_demo_dataset(folder / "data", num_images={"train": num_images, "val": NUM_VAL})
    noise = np.random.default_rng(0).normal(0, 6, (px, px, 1)).astype(np.int16)

    def enlarge(file: Path) -> None:
        large = cv2.resize(cv2.imread(str(file)), (px, px), interpolation=cv2.INTER_CUBIC)
        pixels = np.clip(large + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(file), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])

    with ThreadPoolExecutor() as pool:
        list(pool.map(enlarge, folder.glob("data/images/*/*.jpg")))


def bench_epochs(bench: Bench, figures: Figures, model: str, px: int, num_epochs: int) -> None:
    """Compare the time of an epoch, validation included, with stock and with kernels that are not deterministic."""
    name, changes = f"{model}-{px}", {"imgsz": px, "batch": BATCH}
    file = f"yolo11{model}.yaml"
    programs: dict[str, Callable[[str], subprocess.Popen[bytes]]] = {
        "stock": lambda run: bench.stock(run, num_epochs, model=file, changes=changes),
        "ours": lambda run: bench.ours(run, num_epochs, model=file, changes=changes),
        "not_deterministic": lambda run: bench.ours(
            run, num_epochs, model=file, changes=changes | {"deterministic": False}
        ),
    }
    found = {}
    for program, start in programs.items():
        found[program] = epoch_times(bench, f"{name}-{program}", start)
    medians = {program: statistics.median(times) for program, times in found.items() if times}
    ratios = {
        f"ours_to_{other}": round(medians["ours"] / medians[other], 4)
        for other in ("stock", "not_deterministic")
        if {"ours", other} <= medians.keys()
    }
    figures.add("epochs", name, **{f"{program}_s": spread_of(times) for program, times in found.items()}, **ratios)


def epoch_times(bench: Bench, run: str, start: "Callable[[str], subprocess.Popen[bytes]]") -> list[float]:
    """Return the seconds of each epoch of a training but the first."""
    process, ends = start(run), []
    while process.poll() is None:
        if bench.num_epochs(run) > len(ends):
            ends.append(time.monotonic())
        time.sleep(0.01)
    assert process.returncode == 0, bench.said(run)
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def bench_checkpoints(bench: Bench, figures: Figures, model: str, px: int) -> None:
    """Measure how long a checkpoint stops training, and its bytes."""
    name = f"checkpoints-{model}-{px}"
    changes = {"imgsz": px, "batch": BATCH}
    finish(bench.ours(name, 2, every_s=0.5, model=f"yolo11{model}.yaml", changes=changes))
    run = bench.run(name)
    stalls = run.attempt(1).heartbeat.checkpoints
    files = checkpoint.read_manifest(run, checkpoint.committed(run)[-1]).files
    sizes = {f"{file.name}_bytes": file.size_bytes for file in files}
    figures.add("checkpoints", f"{model}-{px}", count=stalls["num"], mean_stall_s=stalls["stall_s"], **sizes)


def bench_loading(bench: Bench, figures: Figures, model: str, px: int, workers: list[int]) -> None:
    """Compare how many images a second the loader makes, and the device trains, each without the other."""
    trained: list[float] = []
    loaded = {}
    for number in workers:
        trainer = make_trainer(bench, model, px, number)
        batch = next(iter(trainer.epoch_of_batches(0, 0)))
        trainer._model_train()
        trained += [len(batch["im_file"]) / seconds_of_step(trainer, batch) for _ in range(NUM_STEPS)][NUM_WARM:]
        loaded[number] = [images_per_s(trainer, epoch) for epoch in range(1, 4)][1:]
        trainer.shut_loaders()
    rate = statistics.median(trained)
    figures.add(
        "loading",
        f"{model}-{px}",
        device_images_per_s=spread_of(trained),
        loader_images_per_s={str(number): spread_of(rates) for number, rates in loaded.items()},
        bound_by={str(n): "loader" if statistics.median(r) < rate else "device" for n, r in loaded.items()},
    )


def make_trainer(bench: Bench, model: str, px: int, workers: int) -> "Trainer":
    """Set up recipe A with so many loader processes."""
    from job.training.trainer import Trainer  # noqa: PLC0415 -- after `isolate_ultralytics`

    train = load_recipe("A").train | {"imgsz": px, "batch": BATCH, "plots": False, "max_det": None}
    folder, data_yaml = bench.folder / "loading", bench.folder / "data.yaml"
    plan = plan_tiny_training(folder, data_yaml, train, workers=workers, device=bench.device)
    return Trainer(dataclasses.replace(plan, architecture=f"yolo11{model}.yaml"))


def seconds_of_step(trainer: "Trainer", batch: dict[str, Any]) -> float:
    """Train on a batch that is there, to the end of the device's work."""
    from ultralytics.utils.torch_utils import autocast  # noqa: PLC0415 -- after `isolate_ultralytics`

    started = time.monotonic()
    with autocast(trainer.amp, device=trainer.device.type):
        loss, _ = trainer.model(trainer.preprocess_batch(dict(batch)))
    trainer.scaler.scale(loss.sum()).backward()
    trainer.optimizer_step()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return time.monotonic() - started


def images_per_s(trainer: "Trainer", epoch: int) -> float:
    """Load an epoch; like every later one it begins with what was made ahead, and ends making ahead."""
    started = time.monotonic()
    num_images = sum(len(batch["im_file"]) for batch in trainer.epoch_of_batches(epoch, 0))
    return num_images / (time.monotonic() - started)


def bench_start(bench: Bench, figures: Figures, model: str, px: int, num_pairs: int) -> None:
    """Compare the time from the start of a process to the first step of a new training."""
    changes, file = {"imgsz": px, "batch": BATCH}, f"yolo11{model}.yaml"
    programs: dict[str, Callable[[str], subprocess.Popen[bytes]]] = {
        "stock": lambda run: bench.stock(run, 2, model=file, changes=changes),
        "ours": lambda run: bench.ours(run, 2, model=file, trace=True, changes=changes),
    }
    found: dict[str, list[float]] = {program: [] for program in programs}
    for pair in range(num_pairs):
        for program, start in programs.items():
            found[program].append(bench.first_step_s(f"start-{model}-{px}-{program}-{pair}", start))
    ratios = [ours / stock for ours, stock in zip(found["ours"], found["stock"], strict=True)]
    figures.add(
        "start",
        f"{model}-{px}",
        **{f"{program}_s": spread_of(times) for program, times in found.items()},
        ours_to_stock=spread_of(ratios),
    )


def describe_machine(device: str) -> dict[str, object]:
    """Return card, driver and versions."""
    from job.training.device import describe_device  # noqa: PLC0415 -- after `isolate_ultralytics`

    found = describe_device(torch.device("cpu" if device == "cpu" else "cuda:0"))
    return {"machine": claim_fields()["machine"], **found, "versions": versions()}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-bench.json"), help="the file with the figures")
    parser.add_argument("--device", default="0", help="cpu rehearses; take small numbers for the others then")
    parser.add_argument("--models", nargs="+", default=["n", "s", "m"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[640, 2048], help="pixels to train at")
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 4, 8, 16], help="loader processes")
    parser.add_argument("--images", type=int, default=96, help="pictures to train on")
    parser.add_argument("--picture-px", type=int, default=3464, help="width and height of a picture")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3, help="how many times each is started")
    parser.add_argument("--minutes", type=float, default=60, help="after so many no further measurement begins")
    chosen = parser.parse_args()
    if chosen.device != "cpu" and not torch.cuda.is_available():
        parser.error("no NVIDIA GPU is here; --device cpu rehearses")
    return chosen


def main() -> None:
    """Measure one case of each part, then the others."""
    chosen = parse()
    began, out = time.monotonic(), chosen.out.resolve()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as base:
        folder = Path(base)
        isolate_ultralytics(folder / "ultralytics")
        figures = Figures(out, describe_machine(chosen.device))
        draw = functools.partial(draw_photographs, num_images=chosen.images, px=chosen.picture_px)
        bench = Bench(folder, draw, device=chosen.device, workers=min(8, num_cores()), num_threads=num_cores())
        cases = list(itertools.product(chosen.sizes[::-1], chosen.models))
        epochs = [functools.partial(bench_epochs, bench, figures, model, px, chosen.epochs) for px, model in cases]
        loading = [functools.partial(bench_loading, bench, figures, model, px, chosen.workers) for px, model in cases]
        parts: list[Callable[[], None]] = [
            epochs[0],
            loading[0],
            *(functools.partial(bench_checkpoints, bench, figures, model, chosen.sizes[-1]) for model in chosen.models),
            functools.partial(bench_start, bench, figures, chosen.models[0], chosen.sizes[0], chosen.pairs),
            *epochs[1:],
            *loading[1:],
        ]
        for number, part in enumerate(parts):
            if time.monotonic() - began > 60 * chosen.minutes:
                print(f"after {chosen.minutes:g} minutes {len(parts) - number} of {len(parts)} are left out")
                break
            part()


if __name__ == "__main__":
    main()
