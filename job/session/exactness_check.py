"""Exactness check: trains a few steps of a recipe, then again with a kill and a resumption, and compares every bit.

Guarantees that each training is a process of its own, which chooses its kernels anew, and that an operator without a
deterministic kernel is an error. Knows nothing of runs and buckets; `verify_resume` compares whole runs.
"""

import json
import logging
import os
import signal
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.cloud.findings import Finding, judged
from job.datasets.synthetic import draw_demo_dataset
from job.errors import JobError, what_failed
from job.recipes.recipe import Recipe, load_recipe
from job.session import environment
from job.session.doctor import GIB
from job.session.preemption import PreemptionWatcher
from job.session.verify_resume import first_differences
from job.storage.workdir import require_writable
from job.text import counted
from job.training.callbacks import Step, TrainingCallbacks
from job.training.files import STATE
from job.training.isolation import isolate_ultralytics

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.training.loop import Training
    from job.training.state import Snapshot

log = logging.getLogger(__name__)

NUM_STEPS, KILLED_AFTER = 10, 7
"""Batches of a training, and those before its kill: gradients of one of them wait for the optimizer."""

BATCHES_PER_OPTIMIZER_STEP = 2

NUM_VAL = 2
"""Pictures to validate on."""

NEARLY_FULL = 0.9
"""Share of a GPU's memory, from which on a library may find too little for its fastest kernel."""

OUTCOME = "outcome.json"

KERNELS, RESUME, MEMORY = "exact kernels", "exact resume", "GPU memory"
"""Subjects of the findings."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One short training in a process of its own."""

    recipe: Recipe
    device: str
    workers: int
    data_yaml: Path
    workdir: Path
    folder: Path
    """For the state at its end, or at its kill, and for `Outcome`."""

    resumes_from: Path | None = None
    """The folder of a killed trial."""

    is_killed: bool = False

    def run(self) -> "Outcome":
        """Train in a new process until its end or its kill."""
        self.folder.mkdir()
        process = get_context("spawn").Process(target=_train, args=(self,))
        process.start()
        try:
            process.join()
        finally:
            process.kill()  # unless it has ended: a notice does not reach it
        if self.is_killed and process.exitcode == -signal.SIGKILL and (self.folder / STATE).exists():
            return Outcome()
        found = self.folder / OUTCOME
        if not found.exists():
            return Outcome(error=f"the training ended with exit code {process.exitcode}")
        return Outcome(**json.loads(found.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial says of itself; a killed one says nothing."""

    error: str | None = None
    device: str = ""
    num_ooms: int = 0
    peak_bytes: int = 0
    """Reserved on the GPU; 0 on a CPU."""

    total_bytes: int = 0


class _EnoughError(JobError):
    """Ends a trial after its last step."""


@dataclass
class _TrialCallbacks(TrainingCallbacks):
    """Callbacks of a trial: keep the state at its end, or at its kill."""

    trial: Trial

    def on_step(self, step: Step, snapshot: "Callable[[], Snapshot]") -> None:
        """Write the state after the last step, and end the training or the process."""
        number = (step.epoch - 1) * step.num_batches + step.batch
        if number == (KILLED_AFTER if self.trial.is_killed else NUM_STEPS):
            snapshot().write(self.trial.folder)
            if self.trial.is_killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise _EnoughError("the last step is done")


def check_exactness(recipe: Recipe, workdir: Path, device: str, workers: int) -> list[Finding]:
    """Train a recipe at its own size and batch on drawn pictures, straight, and killed and resumed; return the verdict.

    Kernels are those of training: a finding fails if one is not deterministic, or if any bit of weights, EMA or
    optimizer differs. Raises `MachineError` if the folder cannot be written.
    """
    train = recipe.train
    log.info(
        "exactness: trains %s of recipe %s at %d px, then again with a kill",
        *(counted(NUM_STEPS, "step"), recipe.name, train["imgsz"]),
    )
    require_writable(workdir)
    began = time.monotonic()
    with PreemptionWatcher(), tempfile.TemporaryDirectory(dir=workdir, prefix="doctor-") as scratch:
        folder = Path(scratch)
        draw_demo_dataset(folder / "data", num_images={"train": train["batch"] * NUM_STEPS, "val": NUM_VAL})
        straight = Trial(recipe, device, workers, folder / "data" / "data.yaml", workdir, folder / "straight")
        killed = replace(straight, folder=folder / "killed", is_killed=True)
        resumed = replace(straight, folder=folder / "resumed", resumes_from=killed.folder)
        outcomes = []
        for trial in (straight, killed, resumed):
            outcomes.append(trial.run())
            if outcomes[-1].error is not None:
                return [Finding(KERNELS if trial is straight else RESUME, "fail", outcomes[-1].error)]
        what = f"recipe {recipe.name} at {train['imgsz']} px, batch {train['batch']}, {outcomes[0].device}"
        kernels = Finding(KERNELS, "ok", f"deterministic: {what}")
        isolate_ultralytics(workdir / "ultralytics")  # states are read by modules that import it
        resume = _compare(straight.folder / STATE, resumed.folder / STATE, time.monotonic() - began)
    return [kernels, resume, *_memory(outcomes)]


def _compare(straight: Path, resumed: Path, took_s: float) -> Finding:
    from job.training.state import digest_state, read_state, tensors_of  # noqa: PLC0415 -- imports torch

    one, other = read_state(straight), read_state(resumed)
    if not any(moment.any() for moment in tensors_of(one)["optimizer"].values()):
        return Finding(RESUME, "fail", "nothing is proved, the optimizer has taken no step; its gradients overflow")
    if different := first_differences(one, other):
        advice = "do not rely on resuming on this machine, and report this"
        return Finding(RESUME, "fail", f"{'; '.join(different)}; {advice}")
    digest = digest_state(one)["model"]
    return Finding(RESUME, "ok", f"killed after step {KILLED_AFTER}: every bit equal, {digest[:12]}, {took_s:.0f} s")


def _memory(outcomes: list[Outcome]) -> list[Finding]:
    """Judge the GPU's memory: for lack of it a library chooses another kernel, and a resumption needs more."""
    num_ooms, peak = sum(each.num_ooms for each in outcomes), max(each.peak_bytes for each in outcomes)
    total = outcomes[0].total_bytes
    if not total:
        return []
    found = f"{peak / GIB:.1f} of {total / GIB:.1f} GiB at most"
    advice = "a resumed training may get other kernels; take a larger GPU, or a smaller --batch or --imgsz"
    if num_ooms:
        found += f", and {counted(num_ooms, 'time')} it was too short"
    return [judged(MEMORY, not num_ooms and peak < NEARLY_FULL * total, found, advice)]


def _train(trial: Trial) -> None:
    """Train as the process of a trial, and write its outcome."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says that it was interrupted
    set_start_method(None, force=True)  # else loader processes start as this one did, unlike those of a training
    logging.disable()  # errors are in the outcome
    try:
        outcome = _trained(trial)
    except JobError as error:
        outcome = Outcome(error=str(error))
    except Exception as error:  # noqa: BLE001 -- the parent reports it
        outcome = Outcome(error=what_failed(error))
    (trial.folder / OUTCOME).write_text(json.dumps(asdict(outcome)), encoding="utf-8")


def _trained(trial: Trial) -> Outcome:
    isolate_ultralytics(trial.workdir / "ultralytics")
    from job.training.device import describe_device, peak_memory, require_deterministic_kernels  # noqa: PLC0415 -- imports torch
    from job.training.loop import Training  # noqa: PLC0415 -- imports Ultralytics, which is isolated by now
    from job.training.trainer import Plan  # noqa: PLC0415 -- imports Ultralytics, which is isolated by now

    training = Training(
        Plan(
            train=_short(trial.recipe),
            data_yaml=trial.data_yaml,
            folder=trial.folder,
            architecture=_architecture(trial.recipe),
            weights=None,
            same_classes=False,
            device=trial.device,
            workers=trial.workers,
            num_threads=environment.num_threads(),
        )
    )
    require_deterministic_kernels()
    _scale_nothing(training)
    if trial.resumes_from is not None:
        training.restore(trial.resumes_from)
    try:
        training.run(_TrialCallbacks(trial))
    except _EnoughError:
        device = training.trainer.device
        peak_bytes, total_bytes = peak_memory(device)
        described = describe_device(device)
        return Outcome(
            device=str(described.get("gpu", f"CPU with {described['cpu']}")),
            num_ooms=int(str(training.evidence["num_ooms"])),
            peak_bytes=peak_bytes,
            total_bytes=total_bytes,
        )
    return Outcome(error="the training ended before its last step")


def _scale_nothing(training: "Training") -> None:
    """Let the loss scaler begin at 1, at which gradients of random weights do not overflow.

    From its default of 65,536 it leaves out one optimizer step after the other, and halves the scale each time.
    """
    scaler = training.trainer.scaler
    scaler.load_state_dict(scaler.state_dict() | {"scale": 1.0})


def _short(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's arguments for a few steps with mosaic, of which two make an optimizer step from the start."""
    few = {"epochs": NUM_STEPS + 1, "close_mosaic": 1, "warmup_epochs": 0.0, "plots": False, "max_det": None}
    return recipe.train | few | {"nbs": BATCHES_PER_OPTIMIZER_STEP * recipe.train["batch"]}


def _architecture(recipe: Recipe) -> str:
    """Return a model file of the recipe's size; start weights have no part in exactness."""
    start = load_recipe("base", recipe.profile).start if recipe.start.kind == "own" else recipe.start
    return str(start.name).replace(".pt", ".yaml")
