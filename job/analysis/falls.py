"""Falls of F1 while a run trains: depth, recovery, the cause by the run's own schedule, and the remedy.

Guarantees that a fall is one by the rule of `learning_curve.falling_epochs`, and that a cause names the numbers of the
run's set-up. Knows nothing of buckets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from job.analysis.learning_curve import falling_epochs
from job.runs.records import RunRecord
from job.text import counted

LOWER = 3
"""The remedy divides the learning rate by this. At demo scale recipe A falls from 46 to 1 % at 0.00125, and not at a
third of it; nothing was measured at full scale.
"""

LOUD_DROP = 0.5
"""A metric below this share of its best value is far worse."""

TOO_LOW_TO_DROP = 0.1
"""A metric below this cannot drop: it scatters as much while a detector begins to learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Learning rate of a run, as its set-up decided it."""

    automatic: str | None
    """The optimizer in the place of ``auto``, which ignores ``--lr0``; None if the request names one."""

    lr0: float | None
    """None in runs of older versions, if it was automatic."""

    warm_up_epochs: float
    bias_lr: float
    """The learning rate of biases at the beginning of the warm-up; that of all other weights is 0."""

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """Read the schedule of a run from its record."""
        train, is_automatic = record.train, record.train["optimizer"] == "auto"
        chosen = record.facts.optimizer
        return cls(
            automatic=("AdamW" if chosen in {None, "auto"} else chosen) if is_automatic else None,
            lr0=record.facts.lr0 if is_automatic else train["lr0"],
            warm_up_epochs=min(train["warmup_epochs"], train["epochs"] - 1),
            bias_lr=0.0 if is_automatic else train["warmup_bias_lr"],
        )

    def cause(self, epoch: int) -> str:
        """Return why metrics may fall in an epoch; the rate is at its highest in the one after the warm-up."""
        if not self.warm_up_epochs or epoch > math.ceil(self.warm_up_epochs) + 1:
            return f"the learning rate{'' if self.lr0 is None else f', {self.lr0:.3g} at first,'} may be too high"
        rates = "" if self.lr0 is None else f", from 0 to {self.lr0:.3g}"
        biases = f"{' and' if rates else ','} for biases from {self.bias_lr:g}" if self.bias_lr else ""
        warm_up = counted(self.warm_up_epochs, "epoch")
        return f"the warm-up restarts the learning rate{rates}{biases}, in the first {warm_up}"

    @property
    def remedy(self) -> str:
        """The flags of a new run that falls less."""
        flags = [f"--optimizer {self.automatic}"] if self.automatic else []
        flags.append("a smaller --lr0" if self.lr0 is None else f"--lr0 {self.lr0 / LOWER:.1g}")
        return " ".join([*flags, "--warmup-bias-lr 0"] if self.bias_lr or self.automatic else flags)


@dataclass(frozen=True, slots=True)
class Fall:
    """One fall."""

    epoch: int
    best_epoch: int
    """The best epoch before; 0 for the start weights."""

    best: float
    lowest: float
    back_by: int | None
    """The epoch with at least `best` again, if there is one yet."""

    @property
    def best_place(self) -> str:
        """The best epoch in words."""
        return f"epoch {self.best_epoch}" if self.best_epoch else "the start weights"

    def describe(self, schedule: Schedule) -> str:
        """Return what happened, why, and what to do, in words."""
        back = f"back there by epoch {self.back_by}" if self.back_by else "not back there so far"
        return (
            f"F1 fell in epoch {self.epoch}, from {self.best:.1%} of {self.best_place} to {self.lowest:.1%}: "
            f"{schedule.cause(self.epoch)}; {back}; remedy for a new run: {schedule.remedy} (rule: a third of the rate)"
        )


def find_falls(curve: Sequence[float], before: float | None) -> list[Fall]:
    """Return the falls of an F1 curve, below the start weights or to less than half of the best; others may be chance.

    `before` is the F1 of the start weights.
    """
    known = [-math.inf if before is None else before, *curve]
    falls = []
    for epoch in falling_epochs(curve, before):
        best_epoch = max(range(epoch), key=known.__getitem__)
        best = known[best_epoch]
        back_by = next((later for later in range(epoch, len(known)) if known[later] >= best), None)
        lowest = min(known[epoch:back_by])
        if not best_epoch or (best >= TOO_LOW_TO_DROP and lowest < LOUD_DROP * best):
            falls.append(Fall(epoch, best_epoch, best, lowest, back_by))
    return falls
