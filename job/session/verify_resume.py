"""``verify-resume``: proves on this machine that a killed training ends with the tensors of an undisturbed one.

Trains a short piece of a recipe twice by the real command: once straight, once with SIGKILL at random instants,
and compares every tensor of the state. Knows nothing of how training works.
"""

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.datasets.push import plan_push
from job.datasets.subset import take_subset
from job.errors import FATAL_HERE, TrainingError
from job.log import Progress
from job.recipes.recipe import load_recipe
from job.runs import checkpoint
from job.runs.listing import RunListing
from job.runs.notification import NOTIFY
from job.runs.request import TrainRequest
from job.runs.run import Run
from job.session.callbacks import TRACE
from job.storage.local import FolderStore
from job.storage.object_store import Store
from job.text import counted
from job.tracking.credentials import DISABLED, MODE
from job.training.files import STATE
from job.training.isolation import isolate_ultralytics
from job.training.position import Position

log = logging.getLogger(__name__)

STRAIGHT, KILLED = "straight", "killed"

NUM_EPOCHS = 3

BATCHES_PER_EPOCH = 6.5
"""The half is for a last batch that is not full."""

NUM_VALIDATION_BATCHES = 2

CHECKPOINT_EVERY_S = 0.2
"""Short, so that most kills are followed by a resumption within an epoch."""

AT_MOST_LARGER = 50.0

POLL_S = 0.2

NUM_TRIES = 3
"""Tries; a new one begins if the training ended before all of its kills."""


@dataclass(frozen=True, slots=True)
class TracedStep:
    """A step as `job.training.callbacks.Step.trace` reports it."""

    epoch: int
    batch: int
    images: str
    losses: dict[str, str]

    @property
    def position(self) -> Position:
        """Where its training stood after it."""
        return Position(self.epoch - 1, self.batch)


@dataclass(frozen=True, slots=True)
class Piece:
    """A short training that can be started again and again."""

    store: Store
    """Holds the data; gets the runs."""

    args: tuple[str, ...]
    """Arguments of ``job train``, without bucket and run."""

    folder: Path
    """For traces and scratch files."""

    command: Sequence[str] = (sys.executable, "-m", "job")

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start or resume one of the two runs in a process group of its own."""
        command = [*self.command, "train", *self.args, "--bucket", self.store.uri, "--run", name]
        trace = self.folder / f"{name}.trace"
        with self.log(name).open("a") as opened:
            return subprocess.Popen(  # noqa: S603 -- our own program
                command,
                stdout=opened,
                stderr=opened,
                start_new_session=True,
                env=os.environ | {TRACE: str(trace), MODE: DISABLED, NOTIFY: ""},
            )

    def trace(self, name: str) -> list[TracedStep]:
        """Return the steps that a run has reported so far, in order; recomputed steps occur again."""
        path = self.folder / f"{name}.trace"
        steps = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):  # a line cut off by a kill
                steps.append(TracedStep(**json.loads(line)))
        return steps

    def num_steps(self, name: str) -> int:
        """Return how many different steps a run has reported so far."""
        return len({step.position for step in self.trace(name)})

    def log(self, name: str) -> Path:
        """Return the path of a run's log."""
        return self.folder / f"{name}.log"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a comparison."""

    num_steps: int
    killed_after: tuple[int, ...]
    """Number of reported steps, over all attempts, at each kill."""

    resumed_at: tuple[str, ...]
    """The checkpoint that each resumption began from."""

    digests: dict[str, str]
    """Digests of the straight run's final state, by group of tensors."""

    differences: tuple[str, ...] = ()
    """The first tensor, the first step, and the cause; empty if all is equal."""


def train_for(request: TrainRequest, data: Path, scratch: Path, at_least_s: float) -> tuple[Piece, float]:
    """Train a piece of the data straight; return it and its seconds.

    A piece that trains faster than `at_least_s` is replaced by a larger one; `scratch` gets pieces, buckets and runs.
    """
    log.info("verification: training a short piece straight")
    piece = _prepare(request, data, scratch / "1", BATCHES_PER_EPOCH)
    took_s = train_straight(piece)
    if took_s < at_least_s:
        larger = BATCHES_PER_EPOCH * min(at_least_s / took_s, AT_MOST_LARGER)
        piece = _prepare(request, data, scratch / "2", larger)
        took_s = train_straight(piece)
    return piece, took_s


def num_images(request: TrainRequest, batches_per_epoch: float = BATCHES_PER_EPOCH) -> dict[str, int]:
    """Return the number of images of a piece, by split."""
    batch = request.recipe.train["batch"]
    return {"train": int(batch * batches_per_epoch), "val": batch * NUM_VALIDATION_BATCHES}


def _prepare(request: TrainRequest, data: Path, folder: Path, batches_per_epoch: float) -> Piece:
    """Make a folder bucket that holds a piece of the data."""
    take_subset(data, folder / "piece", num_images(request, batches_per_epoch))
    store = FolderStore.create(str(folder / "bucket"))
    single_class = bool(request.recipe.train.get("single_cls"))
    plan_push(store, folder / "piece", "piece", single_class=single_class).send()
    shutil.rmtree(folder / "piece")
    recipe = request.recipe
    stock = load_recipe(recipe.source, recipe.profile).train
    first = load_recipe("base", recipe.profile).start  # start weights have no part in resuming
    flags = {
        "recipe": recipe.source,
        "profile": recipe.profile,
        "model": request.model or str(first.name).replace(".pt", ".yaml"),
        "device": request.device,
        "workers": request.workers,
        "workdir": folder / "work",
        "checkpoint-every": request.checkpoint_every_s,
        **{name.replace("_", "-"): value for name, value in recipe.train.items() if value != stock[name]},
    }
    return Piece(store, tuple(f"--{name}={value}" for name, value in flags.items() if value != ""), folder)


def train_straight(piece: Piece, name: str = STRAIGHT) -> float:
    """Train a piece to its end without a kill, and return its seconds; raises `TrainingError` if it fails."""
    started, process = time.monotonic(), piece.start(name)
    try:
        with Progress(f"training the {name} piece", None, "step") as progress:
            while process.poll() is None:
                time.sleep(POLL_S)
                progress.to(piece.num_steps(name))
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode != 0:
        raise _failed(piece, name, process.returncode)
    return time.monotonic() - started


def verify_resume(piece: Piece, num_kills: int, seed: int) -> Verdict:
    """Train a piece a second time, with SIGKILLs at instants that the seed chooses, and compare with the straight run.

    Raises `TrainingError` if a process fails by itself, or if every try ended before its kills, which proves nothing.
    """
    log.info("verification: training the same piece again, with %s", counted(num_kills, "kill"))
    straight = piece.trace(STRAIGHT)
    chance = random.Random(seed)  # noqa: S311 -- not for secrets
    for number in range(1, NUM_TRIES + 1):
        name = KILLED if number == 1 else f"{KILLED}{number}"
        killed_after = _train_with_kills(piece, name, num_kills, len(straight), chance)
        resumed_at = _resumed_at(Run(piece.store, name))
        if len(killed_after) == num_kills and resumed_at:
            break
    else:
        raise TrainingError(
            f"verification: nothing is proved, in the last of {NUM_TRIES} tries the training was killed "
            f"{len(killed_after)} of {counted(num_kills, 'time')} before its end and resumed "
            f"{counted(len(resumed_at), 'time')}; make it longer with --seconds, or pass fewer --kills"
        )
    isolate_ultralytics(piece.folder / "ultralytics")  # states are read by modules that import it
    states = {which: _final_state(piece, which) for which in (STRAIGHT, name)}
    different = first_differences(states[STRAIGHT], states[name])
    if different:
        different.append(_cause(straight, piece.trace(name)))
    from job.training.state import digest_state  # noqa: PLC0415 -- imports torch, which only this command needs

    return Verdict(
        num_steps=len(straight),
        killed_after=tuple(killed_after),
        resumed_at=resumed_at,
        digests=digest_state(states[STRAIGHT]),
        differences=tuple(different),
    )


def _train_with_kills(piece: Piece, name: str, num_kills: int, num_steps: int, chance: random.Random) -> list[int]:
    """Kill at random in each part of the training, then let it end; return the steps at each kill before its end.

    No kill comes before the first checkpoint: a training that begins again proves nothing about resuming.
    """
    run = Run(piece.store, name)
    killed_after: list[int] = []
    for kill in range(num_kills):
        process = piece.start(name)
        try:
            target = int(num_steps * (kill + chance.random()) / num_kills)
            with Progress(f"until kill {kill + 1} of {num_kills}", num_steps, "step") as progress:
                while process.poll() is None:
                    done = piece.num_steps(name)
                    if done >= target and (killed_after or checkpoint.committed(run)):
                        break
                    progress.to(done)
                    time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.3))  # anywhere in what follows: a step, a write, a validation
        finally:  # after Ctrl-C too, which does not reach a process group of its own
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.killpg(process.pid, signal.SIGKILL)
        if process.wait() in FATAL_HERE:
            raise _failed(piece, name, process.returncode)
        if process.returncode != -signal.SIGKILL or run.final() is not None:
            return killed_after
        killed_after.append(len(piece.trace(name)))
        after = counted(killed_after[-1], "step")
        log.info("verification: kill %d of %d, after %s", kill + 1, num_kills, after)
    train_straight(piece, name)
    return killed_after


def _resumed_at(run: Run) -> tuple[str, ...]:
    return tuple(str(attempt.receipt.checkpoint) for attempt in RunListing(run).attempts() if attempt.receipt)


def _failed(piece: Piece, name: str, exit_code: int) -> TrainingError:
    last_lines = piece.log(name).read_text(encoding="utf-8").splitlines()[-3:]
    return TrainingError(f"verification: the {name} training ended with exit code {exit_code}", last_lines)


def _final_state(piece: Piece, name: str) -> dict[str, Any]:
    from job.training.state import read_state  # noqa: PLC0415 -- imports torch, which only this command needs

    folder = piece.folder / f"final-{name}"
    folder.mkdir()
    if checkpoint.restore(Run(piece.store, name), folder) is None:
        raise TrainingError(f"verification: the {name} training committed nothing; this is a defect, please report it")
    return read_state(folder / STATE)


def first_differences(straight: dict[str, Any], killed: dict[str, Any]) -> list[str]:
    """Return the differences of two final states: the first tensor of each group, the end of training, metrics."""
    from job.training.state import tensors_of  # noqa: PLC0415 -- imports torch, which only this command needs

    ends = {
        f"progress.{key}": (straight["progress"][key], killed["progress"][key])
        for key in ("epoch", "batch", "last_step")
    }
    ends |= {key: (straight[key], killed[key]) for key in ("best_fitness", "stopper")}
    found = [f"{name}: straight {end}, killed {other}" for name, (end, other) in ends.items() if end != other]
    for row, other in zip(straight["progress"]["rows"], killed["progress"]["rows"], strict=False):
        if columns := [name for name in row if name != "time" and row[name] != other[name]]:
            found.append(f"results.csv: {columns[0]} of epoch {int(row['epoch'])} differs")
            break
    others = tensors_of(killed)
    for group, tensors in tensors_of(straight).items():
        for name, tensor in tensors.items():
            other = others[group].get(name)
            if other is None or other.shape != tensor.shape:
                found.append(f"{group}: {name} differs")
                break
            if not tensor.equal(other):
                largest = float((tensor.double() - other.double()).abs().max())
                found.append(f"{group}: {name} differs, by up to {largest:.3g}")
                break
    return found


def _cause(straight: Sequence[TracedStep], killed: Sequence[TracedStep]) -> str:
    """Return the first step that differs, and the cause."""
    numbers = {step.position: number for number, step in enumerate(straight)}
    previous: int | None = None
    for step in killed:
        where = f"batch {step.batch} of epoch {step.epoch}"
        number = numbers.get(step.position)
        if number is None:
            return f"{where}: only the killed training has this step; it did not stop where the straight one did"
        twin = straight[number]
        if twin.images != step.images:
            return (
                f"{where}: the images differ; what they are made from is not decided by seed, epoch and position alone"
            )
        if twin.losses != step.losses:
            resumed = previous is not None and number != previous + 1
            cause = "the first step after a resumption: the state lacks something" if resumed else (
                "the images are equal: the state that was restored before lacks something, or this machine's kernels "
                "are not deterministic"
            )  # fmt: skip
            return f"{where}: the loss differs; {cause}"
        previous = number
    return "no step differs in images or loss; the difference arose after the last step that both report"
