"""Estimate of hours and dollars, from comparable runs or from a few measured training steps.

Guarantees that a figure names its source, and that a measurement writes nothing to a run. Preemptions are not included.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from job.analysis.summary import RunSummary
from job.goodput import Phase
from job.log import LiveLine
from job.recipes.arguments import DEFAULTS, EXACT, OF_TILES
from job.recipes.recipe import Recipe
from job.runs.request import TrainRequest
from job.text import HOUR, counted
from job.training.callbacks import Step, TrainingCallbacks

if TYPE_CHECKING:
    from job.training.state import Row, Snapshot

NUM_WARM_UP_STEPS = 2
"""Warm-up: the first steps of a process choose kernels and fill caches, and are not measured."""

NUM_STEPS = 8

LONG_ENOUGH_S = 60.0
"""Measured steps of this duration in all are enough, however few they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Expected duration and cost of a training."""

    recipe: str
    epochs: int
    hours: tuple[float, float]
    """From low to high."""

    based_on: str
    usd_per_hour: float | None
    epoch_s: float | None = None
    """Seconds of an epoch with its validation; None if only the whole is known."""

    around_s: float = 0.0
    """Seconds before the first epoch and after the last: start-up, and validation of start and end."""

    @classmethod
    def at_pace(
        cls, recipe: Recipe, epoch_s: float, based_on: str, usd_per_hour: float | None, *, around_s: float = 0.0
    ) -> Self:
        """Return the estimate for epochs of known duration."""
        epochs: int = recipe.train["epochs"]
        hours = (epochs * epoch_s + around_s) / HOUR
        return cls(
            recipe=recipe.name,
            epochs=epochs,
            hours=(hours, hours),
            based_on=based_on,
            usd_per_hour=usd_per_hour,
            epoch_s=epoch_s,
            around_s=around_s,
        )

    @property
    def usd(self) -> tuple[float, float] | None:
        """Dollars, from low to high; None if the price is unknown."""
        price = self.usd_per_hour
        return None if price is None else (self.hours[0] * price, self.hours[1] * price)

    def to_json(self) -> dict[str, object]:
        """Return the estimate as plain values."""
        return {**asdict(self), "usd": self.usd}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Durations of a few measured steps."""

    start_up_s: float
    warm_up_s: float
    """Seconds by which the first steps were longer than the others: kernels are chosen, or compiled."""

    validation_s: float
    step_s: float
    num_steps: int
    num_batches: int

    def __str__(self) -> str:
        return (
            f"{counted(self.num_steps, 'step')} measured now, {self.step_s:.3g} s each, {self.num_batches} an epoch; "
            f"validation {self.validation_s:.3g} s"
        )


class EnoughError(Exception):
    """Stops training once enough steps were timed."""


class Stopwatch(TrainingCallbacks):
    """Callbacks that time the first steps of a training, then end it."""

    measures_any_start = True  # an epoch has a validation

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._start_up_s = self._validation_s = 0.0
        self._times: list[float] = []
        """The end of the first validation, then of each step."""

        self._num_batches = self._num_validated = 0
        self._line = LiveLine(NUM_WARM_UP_STEPS + NUM_STEPS)

    def enter(self, phase: Phase) -> None:
        """Note the start of the first validation: the end of start-up."""
        if phase is Phase.VALIDATION and not self._times:
            self._start_up_s = self._clock() - self._began

    def on_validation_batch(self) -> None:
        """Show that the first validation moves."""
        self._num_validated += 1
        self._line.show(f"measuring: validation, batch {self._num_validated}", len(self._times))

    def on_epoch(self, row: "Row", snapshot: "Callable[[], Snapshot]") -> None:  # noqa: ARG002 -- nothing is kept
        """Note the end of the first validation; raises `EnoughError` after a complete epoch."""
        if row["epoch"]:
            raise EnoughError
        self._times.append(self._clock())
        self._validation_s = self._times[0] - self._began - self._start_up_s

    def on_step(self, step: Step, snapshot: "Callable[[], Snapshot]") -> None:  # noqa: ARG002 -- nothing is kept
        """Note the end of a step, the wait for its batch included; raises `EnoughError` once enough were timed."""
        for value in step.losses.values():
            float(value)  # synchronises with the GPU
        self._num_batches = step.num_batches
        self._times.append(self._clock())
        self._line.show(f"measuring: step {len(self._times) - 1}", len(self._times) - 1)
        measured = self.measurement()
        if measured.num_steps >= NUM_STEPS or measured.num_steps * measured.step_s >= LONG_ENOUGH_S:
            raise EnoughError

    def close(self) -> None:
        """Remove the live line."""
        self._line.close()

    def measurement(self) -> Measurement:
        """Return the measurement so far: all steps after the warm-up, or else the last one."""
        first = max(0, min(NUM_WARM_UP_STEPS, len(self._times) - 2))
        num_steps = len(self._times) - 1 - first
        step_s = (self._times[-1] - self._times[first]) / num_steps
        return Measurement(
            start_up_s=self._start_up_s,
            warm_up_s=max(0.0, self._times[first] - self._times[0] - first * step_s),
            validation_s=self._validation_s,
            step_s=step_s,
            num_steps=num_steps,
            num_batches=self._num_batches,
        )


def from_runs(
    request: TrainRequest, dataset: str, is_machine: Callable[[RunSummary], bool], runs: Sequence[RunSummary]
) -> RunSummary | None:
    """Return the newest finished run with the recipe, scale, data and machine of a request.

    Args:
        request: The training to estimate.
        dataset: The name of its dataset.
        is_machine: Whether a run was trained on the machine to estimate for.
        runs: Finished runs, the newest last.
    """
    wanted = request.identity(dataset)

    def matches(run: RunSummary) -> bool:
        found = run.record.request
        same = all(found[name] == wanted[name] for name in ("profile", "dataset", "model"))
        same &= run.trained_as == request.trained_as
        mine = DEFAULTS | wanted["train"]
        return same and all(run.train[name] == mine[name] for name in ("imgsz", "batch", *OF_TILES, *EXACT))

    return next((run for run in reversed(runs) if matches(run) and is_machine(run)), None)


def is_kind(run: RunSummary, machine: str, machine_type: str | None = None) -> bool:
    """Whether every attempt of a run was on a kind of machine.

    Args:
        run: The run.
        machine: The kind, such as ``l4``, ``a100-80`` or ``l4-spot``; compared with the shown GPU and machine.
        machine_type: Google's name of it; compared if every attempt recorded its own.
    """
    types = {attempt.machine_type for attempt in run.attempts}
    if machine_type is not None and types and None not in types:
        return types == {machine_type}
    named = [word for word in re.findall(r"[a-z0-9]+", machine.lower()) if word not in {"spot", "on", "demand"}]
    kinds = [re.findall(r"[a-z0-9]+", kind.lower()) for kind in run.machines]
    return bool(kinds and named) and all(
        any(part.startswith(word) for part in kind) for kind in kinds for word in named
    )


def by_run(recipe: Recipe, run: RunSummary, usd_per_hour: float | None) -> Estimate:
    """Return an estimate by a comparable run."""
    epoch_s, epochs = run.epoch_s or 0.0, len(run.learning_curve)
    around_s = max(0.0, run.cost.total_s - epoch_s * epochs)
    based_on = f"run {run.run}, {counted(epochs, 'epoch')} on {'; '.join(run.machines)}"
    return Estimate.at_pace(recipe, epoch_s, based_on, usd_per_hour, around_s=around_s)


def by_measurement(recipe: Recipe, measured: Measurement, usd_per_hour: float | None) -> Estimate:
    """Return an estimate at the pace of measured steps."""
    epoch_s = measured.num_batches * measured.step_s + measured.validation_s
    around_s = measured.start_up_s + measured.warm_up_s + 2 * measured.validation_s
    return Estimate.at_pace(recipe, epoch_s, str(measured), usd_per_hour, around_s=around_s)


def by_authors(recipe: Recipe, usd_per_hour: float | None) -> Estimate | None:
    """Return the estimate of the recipe's authors for the full profile, if they state one."""
    band = recipe.expect.get("hours")
    if band is None or band.low is None or band.high is None or recipe.profile != "full":
        return None
    return Estimate(
        recipe=recipe.name,
        epochs=recipe.train["epochs"],
        hours=(band.low, band.high),
        based_on="the recipe's authors, for their data and machine; not measured",
        usd_per_hour=usd_per_hour,
    )
