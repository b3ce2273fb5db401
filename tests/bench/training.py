"""Training: cost of exactness and checkpoints, beside stock Ultralytics: ``python -m tests.bench.training``.

Both train the same data with the same arguments, taking turns, each in processes of its own with one thread. With
``--before`` the code of another checkout trains beside them, with the libraries of this one.
"""

import argparse
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from job.datasets.synthetic import draw_demo_dataset
from job.recipes.arguments import requested
from job.recipes.recipe import load_recipe
from job.runs import checkpoint
from job.runs.flags import as_args
from job.runs.progress import read_progress
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.bench.rows import print_row, ratios, spread
from tests.support.cli_process import ROOT, python_path
from tests.support.fake_wandb_server import ACCEPTS, FAILS, HANGS, running_wandb_server

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "yolo11n.yaml"

ARGUMENTS = requested(load_recipe("A", "demo").train | {"best": "fitness"}) | {"plots": False, "close_mosaic": 1}
"""Of recipe A at the demo's scale, with the best epoch as stock has it."""

STOCK = """
import importlib.util, json, sys
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

class Trainer(DetectionTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback("on_train_batch_end", lambda _: open(mark, "a").write("step\\n"))

if importlib.util.find_spec("polars") is None:  # it reads the table of epochs for each file that is saved
    Trainer.read_results_csv = lambda _: {}
model, arguments, mark = json.loads(sys.argv[1])
YOLO(model).train(trainer=Trainer, **arguments)
"""

BEFORE = "before"
"""Folder of the trainings by another version, within that of the others."""

MEAN_LIFE_S = 40.0

IMGSZ_UNDER_KILLS = 96
"""At which 20 steps of the trainings under kills take about 5 s, on a slow machine."""

TURN_S = 0.5

NUM_KILLS = 12
"""Kills of each side from which their luck counts for little."""


def draw_demo_pictures(folder: Path, num_times: int = 1) -> None:
    """Draw the demo's images, or so many times as many to train on."""
    draw_demo_dataset(folder / "data")
    for seed in range(1, num_times):
        draw_demo_dataset(folder / "more", seed)
        for file in folder.glob("more/*/train/*"):
            file.rename(folder / "data" / file.parts[-3] / "train" / f"{seed}_{file.name}")
        shutil.rmtree(folder / "more")


class Bench:
    """A place with the data, and the two programs."""

    def __init__(
        self,
        folder: Path,
        draw: "Callable[[Path], None]" = draw_demo_pictures,
        *,
        device: str = "cpu",
        workers: int = 0,
        num_threads: int = 1,
        checkout: Path = ROOT,
        bucket: str = "",
    ) -> None:
        """Let a function draw pictures of the demo's classes into ``data`` of a folder; a checkout has our program.

        The bucket is a folder if none is named.
        """
        self.folder, self.device, self.workers = folder, device, workers
        self.bucket = bucket or str(folder / "bucket")
        draw(folder)
        data = {"path": str(folder / "data"), "train": "images/train", "val": "images/val"}
        names = json.dumps(dict(enumerate(["zebra", "elephant", "giraffe", "ostrich"])))
        (folder / "data.yaml").write_text(
            "\n".join(f"{key}: {value}" for key, value in data.items()) + f"\nnames: {names}\n"
        )
        if not bucket:
            (folder / "bucket").mkdir()
        self.env = os.environ | {
            "PYTHONPATH": python_path(checkout),
            "OMP_NUM_THREADS": str(num_threads),
            "YOLO_CONFIG_DIR": str(folder / "settings"),
            "YOLO_OFFLINE": "true",
            "LOG": "json",  # whose messages `num_epochs` counts
            "WANDB_MODE": "disabled",  # as stock Ultralytics has it
        }
        push = ["data", "push", str(folder / "data"), "--dataset", "demo", "--bucket", self.bucket]
        finish(self._start([sys.executable, "-m", "job", *push], "push", {}))

    def stock(
        self, name: str, epochs: int, *, model: str = MODEL, changes: dict[str, object] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start stock Ultralytics, or resume it if it has a checkpoint."""
        place = self.folder / "stock" / name
        last = place / "weights" / "last.pt"
        arguments = {**ARGUMENTS, **(changes or {}), "epochs": epochs, "data": str(self.folder / "data.yaml")}
        arguments |= {"device": self.device, "workers": self.workers}
        arguments |= {"project": str(place.parent), "name": name, "exist_ok": True, "verbose": False}
        started = [str(last), {"resume": True}] if last.exists() else [model, arguments]
        words = [sys.executable, "-c", STOCK, json.dumps([*started, str(self.mark(name))])]
        return self._start(words, name, {})

    def ours(
        self,
        name: str,
        epochs: int,
        *,
        every_s: float | str = 0,
        model: str = MODEL,
        trace: bool = False,
        env: dict[str, str] | None = None,
        changes: dict[str, object] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start our training, or resume it."""
        asked = ARGUMENTS | (changes or {})
        flags = {name: value for name, value in asked.items() if value is not None}
        flags |= {"epochs": epochs, "model": model, "checkpoint-every": every_s}
        flags |= {"device": self.device, "workers": self.workers}
        flags |= {"run": name, "bucket": self.bucket, "workdir": self.folder / "work"}
        words = [sys.executable, "-m", "job", "train", "--recipe", "base"]
        words += as_args(flags)
        return self._start(words, name, (env or {}) | ({"JOB_TRACE": str(self.mark(name))} if trace else {}))

    def mark(self, name: str) -> Path:
        """Return the file that gets a line for each step."""
        return self.folder / f"{name}.steps"

    def num_steps(self, name: str) -> int:
        """Return how many steps a training has reported."""
        return len(self.mark(name).read_text().splitlines()) if self.mark(name).exists() else 0

    def first_step_s(self, name: str, start: "Callable[[str], subprocess.Popen[bytes]]", num_steps: int = 1) -> float:
        """Return the seconds from the start of a training to a step of it that is new; the training is killed."""
        goal, started = self.num_steps(name) + num_steps, time.monotonic()
        process = start(name)
        while self.num_steps(name) < goal:
            assert process.poll() is None, self.said(name)
            time.sleep(0.01)
        took_s = time.monotonic() - started
        kill(process)
        return took_s

    def run(self, name: str) -> Run:
        """Return one of our runs."""
        return Run(open_store(self.bucket), name)

    def num_epochs(self, name: str) -> int:
        """Return how many epochs a training has finished: in stock's table, or in our log."""
        rows = self.folder / "stock" / name / "results.csv"
        if rows.exists():
            return rows.read_bytes().count(b"\n") - 1
        return (self.folder / f"{name}.log").read_bytes().count(b'"message": "epoch ')

    def said(self, name: str) -> str:
        """Return the last line of a training's log."""
        return (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-1]

    def _start(self, words: list[str], name: str, env: dict[str, str]) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                words, env=self.env | env, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process that has to end well."""
    assert process.wait() == 0, f"exit {process.returncode}"


def take_turns(bench: Bench, programs: "dict[str, subprocess.Popen[bytes]]") -> dict[str, list[float]]:
    """Let trainings run a moment each, the others stopped, so that the drift of the machine meets all alike.

    Returns:
        The time of each epoch with all that belongs to it, in seconds; the first is left out.
    """
    used_s = dict.fromkeys(programs, 0.0)
    ends: dict[str, list[float]] = {name: [] for name in programs}
    for process in programs.values():
        os.killpg(process.pid, signal.SIGSTOP)
    while running := [name for name, process in programs.items() if process.poll() is None]:
        for name in running:
            process, started = programs[name], time.monotonic()
            os.killpg(process.pid, signal.SIGCONT)
            while (turn_s := time.monotonic() - started) < TURN_S and process.poll() is None:
                if bench.num_epochs(name) > len(ends[name]):
                    ends[name].append(used_s[name] + turn_s)
                time.sleep(0.01)
            used_s[name] += turn_s
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGSTOP)
            else:
                finish(process)
    return {name: [later - earlier for earlier, later in pairwise(found)] for name, found in ends.items()}


def bench_epochs(bench: Bench, before: Bench | None, num_epochs: int) -> None:
    """Compare the time of epochs, without checkpoints within them and with one every few seconds."""
    every_s = 15  # by the clock, which goes on during the turns of the others
    programs = {
        "epochs-stock": bench.stock("epochs-stock", num_epochs),
        "epochs-ours": bench.ours("epochs-ours", num_epochs),
        "epochs-often": bench.ours("epochs-often", num_epochs, every_s=every_s),
    }
    if before:
        programs[f"{BEFORE}/epochs"] = before.ours("epochs", num_epochs)
    stock, ours, often, *theirs = take_turns(bench, programs).values()
    meaningless_if = f"an epoch lasts but a few turns of {TURN_S} s; one of stock took {spread(stock, 2)} s"
    print_row("time of an epoch, ours / stock (goal 1.005)", ratios(ours, stock), meaningless_if)
    for each in theirs:
        print_row("time of an epoch, ours / before", ratios(ours, each), meaningless_if)
    num_taken = bench.run("epochs-often").attempt(1).heartbeat.checkpoints["num"] - num_epochs - 1
    if num_taken < 1:
        print(f"what a checkpoint within an epoch adds: not measured, none fell within the {num_epochs} epochs")
        return
    print_row(
        f"the same with a checkpoint every {every_s} s, {num_taken} within {num_epochs} epochs",
        ratios(often, stock),
        "few checkpoints fell within epochs",
    )
    added_ms = [
        1000 * num_epochs * (with_s - without_s) / num_taken for with_s, without_s in zip(often, ours, strict=True)
    ]
    print_row(
        "what a checkpoint within an epoch adds, in ms (goal 300: 0.5 % of 60 s)",
        added_ms,
        "its range holds 0: then nothing was told apart from the noise",
        digits=0,
    )


def bench_checkpoint(bench: Bench, before: Bench | None) -> None:
    """Measure how long a checkpoint of yolo11s stops training, and how large it is."""
    names = [f"stall{number}" for number in range(3)]
    sides = [bench, *([before] if before else [])]
    for name in names:
        for side in sides:
            finish(side.ours(name, 1, every_s=1, model="yolo11s.yaml"))
    runs = [bench.run(name) for name in names]
    taken, *theirs = ([side.run(name).attempt(1).heartbeat.checkpoints for name in names] for side in sides)
    stalls = [1000 * each["stall_s"] for each in taken]
    meaningless_if = "another program needs the memory's bandwidth"
    means = " and ".join(str(each["num"]) for each in taken)
    print_row(
        f"a checkpoint of yolo11s stops training, in ms, means of {means} (goal 100)", stalls, meaningless_if, digits=0
    )
    for each in theirs:
        found = ratios(stalls, [1000 * one["stall_s"] for one in each])
        print_row("the same, ours / before", found, meaningless_if)
    manifest = checkpoint.read_manifest(runs[0], checkpoint.committed(runs[0])[-1])
    sizes = {file.name: file.size_bytes / 1e6 for file in manifest.files}
    print("its bytes: " + ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))


def bench_restart(bench: Bench, before: Bench | None, num_pairs: int) -> None:
    """Compare the time from the start of a process to its first new step after a resume."""
    programs: dict[str, tuple[Bench, Callable[[str], subprocess.Popen[bytes]]]] = {
        "restart-stock": (bench, lambda name: bench.stock(name, 20)),
        "restart-ours": (bench, lambda name: bench.ours(name, 20, trace=True)),
    }
    if before:
        programs["restart-before"] = (before, lambda name: before.ours(name, 20, trace=True))
    for name, (side, start) in programs.items():
        side.first_step_s(name, start, 2 * 20 + 3)  # in the third epoch
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(num_pairs):
        for name, (side, start) in programs.items():
            found[name].append(side.first_step_s(name, start))
    stock, ours, *theirs = found.values()
    meaningless_if = f"other programs ran; stock took {spread(stock, 2)} s, ours {spread(ours, 2)} s"
    print_row("from start to first step after a resume, ours / stock (goal 1.02)", ratios(ours, stock), meaningless_if)
    for each in theirs:
        print_row("the same, ours / before", ratios(ours, each), meaningless_if)


def bench_tracking(bench: Bench, num_epochs: int) -> None:
    """Compare the time of epochs that are tracked with that of epochs that are not, for servers of each temper."""
    with contextlib.ExitStack() as servers:
        programs = {"untracked": bench.ours("untracked", num_epochs)}
        for behaviour in (ACCEPTS, HANGS, FAILS):
            name = f"tracked-{behaviour.replace(' ', '-')}"
            env = servers.enter_context(running_wandb_server(behaviour)).env
            programs[name] = bench.ours(name, num_epochs, env=env)
        untracked, *tracked = take_turns(bench, programs).values()
    for behaviour, found in zip((ACCEPTS, HANGS, FAILS), tracked, strict=True):
        print_row(
            f"time of an epoch with a W&B server that {behaviour} / without W&B",
            ratios(found, untracked),
            f"an epoch lasts but a few turns of {TURN_S} s",
        )


def bench_goodput(bench: Bench, imgsz: int, num_epochs: int, num_steps: int, seed: int) -> None:
    """Compare how long a training takes that is killed by the same schedule, restarted at once each time.

    Ours takes checkpoints as often as is best for the lives that it has had.
    """
    changes = {"imgsz": imgsz}
    stock, ours = train_under_kills(
        {
            "goodput-stock": (bench, lambda name: bench.stock(name, num_epochs, changes=changes)),
            "goodput-ours": (bench, lambda name: bench.ours(name, num_epochs, every_s="auto", changes=changes)),
        },
        seed,
    )
    print(f"  stock trained {bench.num_steps('goodput-stock')} steps for {num_steps}")
    print_goodput(describe_epochs(bench.run("goodput-ours"), num_steps), num_steps, stock=stock, ours=ours)


def bench_goodput_before(bench: Bench, before: Bench, imgsz: int, num_epochs: int, num_steps: int, seed: int) -> None:
    """Compare the same of two versions of the job."""
    changes = {"imgsz": imgsz}
    theirs, ours = train_under_kills(
        {
            name: (side, lambda name, side=side: side.ours(name, num_epochs, every_s="auto", changes=changes))
            for name, side in {"goodput-theirs": before, "goodput-again": bench}.items()
        },
        seed,
    )
    print_goodput(describe_epochs(bench.run("goodput-again"), num_steps), num_steps, before=theirs, ours=ours)


def describe_epochs(run: Run, num_steps: int) -> str:
    """Describe a run's epochs: number, steps, and seconds without the steps that kills took."""
    ends_s = [row["time"] for row in read_progress(run).rows]
    took = spread([later - earlier for earlier, later in pairwise([0.0, *ends_s])], 1)
    return f"{len(ends_s)} epochs of {num_steps // len(ends_s)} steps, {took} s each"


def train_under_kills(
    sides: "dict[str, tuple[Bench, Callable[[str], subprocess.Popen[bytes]]]]", seed: int
) -> list[tuple[float, int]]:
    """Train each side to its end; return its seconds, and how many times it was killed.

    They take turns, a life each of the same length, so that the drift of the machine meets both alike.
    """
    chances = {name: random.Random(seed) for name in sides}  # noqa: S311  # not for secrets
    seconds, kills = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0)
    left = list(sides)
    while left:
        for name in list(left):
            bench, start = sides[name]
            started, process = time.monotonic(), start(name)
            try:
                if process.wait(chances[name].expovariate(1 / MEAN_LIFE_S)) == 0:
                    left.remove(name)
                else:
                    last = bench.folder / "stock" / name / "weights" / "last.pt"
                    assert last.exists(), bench.said(name)
                    print(f"  stock cannot go on and begins again: {bench.said(name)}", flush=True)
                    last.unlink()
            except subprocess.TimeoutExpired:
                kill(process)
                kills[name] += 1
            seconds[name] += time.monotonic() - started
    return [(seconds[name], kills[name]) for name in sides]


def print_goodput(what: str, num_steps: int, **sides: tuple[float, int]) -> None:
    """Print the useful steps per second of two sides, of which each has its seconds and kills."""
    rates = {name: num_steps / seconds for name, (seconds, _) in sides.items()}
    told = ", ".join(f"{name} {rates[name]:.2f} ({seconds:.0f} s)" for name, (seconds, _) in sides.items())
    other, ours = rates.values()
    print(
        f"useful steps per second under kills {MEAN_LIFE_S:g} s apart on average, {what}: {told}, "
        f"ratio {ours / other:.2f}, n = 1 schedule\n"
        f"  meaningless if a side was killed fewer than {NUM_KILLS} times; kills were "
        f"{' and '.join(str(num_kills) for _, num_kills in sides.values())}",
        flush=True,
    )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and all it started."""
    os.killpg(process.pid, 9)
    process.wait()


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="how many times each is restarted")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of the trainings that take turns")
    parser.add_argument("--imgsz", type=int, default=IMGSZ_UNDER_KILLS, help="image size of the trainings under kills")
    parser.add_argument("--before", type=Path, help="checkout of another version, which trains beside")
    parts_of_all = ["epochs", "checkpoint", "restart", "tracking", "goodput", "long-epochs", "goodput-before"]
    parser.add_argument("--only", nargs="+", choices=parts_of_all, help="the last one is for --before")
    chosen = parser.parse_args()
    if "goodput-before" in (chosen.only or ()) and chosen.before is None:
        parser.error("goodput-before compares with another version: name its checkout with --before")
    base = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        bench = Bench(base)
        before = Bench(base / BEFORE, checkout=chosen.before.resolve()) if chosen.before else None
        parts: dict[str, Callable[[], None]] = {
            "epochs": lambda: bench_epochs(bench, before, chosen.epochs),
            "checkpoint": lambda: bench_checkpoint(bench, before),
            "restart": lambda: bench_restart(bench, before, chosen.pairs),
            "tracking": lambda: bench_tracking(bench, chosen.epochs),
            "goodput": lambda: bench_goodput(bench, chosen.imgsz, num_epochs=100, num_steps=2000, seed=1),
            "long-epochs": lambda: bench_goodput(
                Bench(base / "long", functools.partial(draw_demo_pictures, num_times=8)),
                chosen.imgsz,
                num_epochs=12,
                num_steps=1920,
                seed=1,
            ),
        }
        if before:
            parts["goodput-before"] = lambda: bench_goodput_before(
                bench, before, chosen.imgsz, num_epochs=100, num_steps=2000, seed=1
            )
        for name, part in parts.items():
            if chosen.only is None or name in chosen.only:
                part()
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
