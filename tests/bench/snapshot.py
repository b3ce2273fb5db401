"""Snapshots on a CPU: stall, cost, memory and pauses of the background: ``python -m tests.bench.snapshot``.

Beside them, in one training, copies that are made at once and files that are built in memory, as all were before.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import io
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from job.errors import JobError
from job.recipes.recipe import load_recipe
from job.training.callbacks import Step, TrainingCallbacks
from job.training.cores import num_cores
from job.training.files import STATE
from job.training.isolation import isolate_ultralytics
from tests.bench.rows import print_row, ratios, spread
from tests.support.tiny_dataset import make_tiny_dataset
from tests.support.tiny_training import plan_tiny_training

if TYPE_CHECKING:
    from job.training.loop import Training
    from job.training.state import Row, Snapshot

BATCH, ACCUMULATE, IMGSZ = 2, 2, 320

NUM_WARM = 2 * ACCUMULATE
"""Steps before the first window: the optimizer has its moments by then."""

AT_ONCE, BACKGROUND, NONE = "at once", "in the background", "none"
"""Kinds of a window, which is an optimizer step's batches, by the snapshot at its beginning."""


class EnoughError(JobError):
    """Ends the training."""


class Windows(TrainingCallbacks):
    """Measures windows in turn, and commits after the epoch."""

    def __init__(self, training: "Training", folder: Path) -> None:
        self.training, self.folder = training, folder
        self.kinds, self.kind = cycle([AT_ONCE, BACKGROUND, NONE]), ""
        self.stalls_s: dict[str, list[float]] = {AT_ONCE: [], BACKGROUND: []}
        self.took_s: dict[str, list[float]] = {AT_ONCE: [], BACKGROUND: [], NONE: []}
        self.began = 0.0

    def on_step(self, step: Step, snapshot: "Callable[[], Snapshot]") -> None:
        """End a window and begin the next one."""
        if step.batch % ACCUMULATE or step.batch < NUM_WARM:
            return
        if self.kind:
            self.took_s[self.kind].append(time.monotonic() - self.began)
        if step.batch == step.num_batches:
            return
        self.kind, self.began = next(self.kinds), time.monotonic()
        if self.kind == AT_ONCE:
            capture_at_once(self.training)
        elif self.kind == BACKGROUND:
            snapshot()
        if self.kind != NONE:
            self.stalls_s[self.kind].append(time.monotonic() - self.began)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Add what the optimizer step waits."""
        began = time.monotonic()
        yield
        self.stalls_s[BACKGROUND][-1] += time.monotonic() - began

    def on_epoch(self, row: "Row", snapshot: "Callable[[], Snapshot]") -> None:
        """Print the windows of the epoch, and measure what writes their checkpoint."""
        if not row["epoch"]:
            return
        took = spread([1000 * s for s in self.stalls_s[AT_ONCE]], 0)
        print_row(
            "stall of a snapshot, in the background / at once (goal 0.5)",
            ratios(self.stalls_s[BACKGROUND], self.stalls_s[AT_ONCE]),
            f"other programs need the memory's bandwidth; at once it took {took} ms",
        )
        for kind in (AT_ONCE, BACKGROUND):
            print_row(
                f"what a snapshot {kind} adds to an optimizer step of {num_cores()} busy cores, in ms",
                [1000 * (one - none) for one, none in zip(self.took_s[kind], self.took_s[NONE], strict=False)],
                "its range holds 0: then nothing was told apart from the noise",
                digits=0,
            )
        print_commits(self.training, snapshot, self.folder)
        raise EnoughError("all is measured")


def capture_at_once(training: "Training") -> "dict[str, object]":
    """Copy the state while training waits."""
    from job.training.state import capture  # noqa: PLC0415  # after isolate_ultralytics

    state, _ = capture(training.trainer, training.progress, in_background=False)
    return state


def print_commits(training: "Training", snapshot: "Callable[[], Snapshot]", folder: Path) -> None:
    """Print memory and pauses of the thread that writes a checkpoint."""
    from job.training.state import digest_state  # noqa: PLC0415  # after isolate_ultralytics

    def streamed() -> Callable[[], object]:
        taken = snapshot()
        return lambda: taken.write(folder)

    def in_memory() -> Callable[[], object]:
        state = capture_at_once(training)

        def write() -> None:
            file = io.BytesIO()
            torch.save(state, file)
            (folder / STATE).write_bytes(file.getbuffer())
            digest_state(state)

        return write

    for name, begin in {"built in memory, the state alone": in_memory, "written as they are": streamed}.items():
        found = [commit(begin) for _ in range(5)]
        memory, pauses, undisturbed = zip(*found, strict=True)
        size = (folder / STATE).stat().st_size
        print_row(
            f"host memory of a checkpoint whose files are {name}, at its peak / bytes of the state (goal 1.2)",
            [num_bytes / size for num_bytes in memory],
            f"less than the state itself was measured, {size / 1e6:.0f} MB",
        )
        print_row(
            f"longest pause of the training thread by files {name}, in ms (goal 50)",
            [1000 * s for s in pauses],
            f"without them it pauses as long: {spread([1000 * s for s in undisturbed], 0)} ms",
            digits=0,
        )


def commit(begin: Callable[[], Callable[[], object]]) -> tuple[float, float, float]:
    """Take and write a checkpoint; return bytes at the peak, and the longest pauses meanwhile and afterwards."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else freed memory, which still counts as used, is taken again unseen
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    writing = threading.Thread(target=begin())
    writing.start()
    began = time.monotonic()
    pause = longest_pause(writing.is_alive)
    writing.join()
    until = 2 * time.monotonic() - began
    return memory_bytes("VmHWM") - before, pause, longest_pause(lambda: time.monotonic() < until)


def longest_pause(goes_on: Callable[[], bool]) -> float:
    """Return the longest time of a small operation of torch, repeated as long as asked for."""
    values, longest = torch.rand(64, 64), 0.0
    last = time.monotonic()
    while goes_on():
        values = (values @ values).clamp(0, 1)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def memory_bytes(name: str) -> float:
    """Return a figure of this process's memory."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return float(found[1]) * 1024


def main() -> None:
    """Train an epoch and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolo11m")
    parser.add_argument("--pairs", type=int, default=9, help="snapshots of each kind")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as base:
        folder = Path(base)
        isolate_ultralytics(folder / "ultralytics")
        from job.training.loop import Training  # noqa: PLC0415  # after isolate_ultralytics

        num_steps = NUM_WARM + 3 * ACCUMULATE * chosen.pairs
        data = make_tiny_dataset(folder / "data", num_train=BATCH * num_steps, num_val=2)
        train = load_recipe("base").train | {"epochs": 2, "imgsz": IMGSZ, "batch": BATCH, "nbs": BATCH * ACCUMULATE}
        train |= {"warmup_epochs": 0, "plots": False, "max_det": None}
        (folder / "run").mkdir()
        plan = plan_tiny_training(folder / "run", data / "data.yaml", train)
        plan = dataclasses.replace(plan, architecture=f"{chosen.model}.yaml", num_threads=num_cores())
        training = Training(plan)
        with contextlib.suppress(EnoughError):
            training.run(Windows(training, folder))


if __name__ == "__main__":
    main()
