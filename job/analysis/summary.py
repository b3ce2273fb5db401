"""What the records of a run say, for whoever decides or compares: result, course, pace, what it took.

Guarantees that nothing is guessed: what was not recorded is `None`. Reads the bucket only in `gather`.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from job.analysis.metrics import LABELS
from job.errors import CorruptObjectError
from job.recipes.recognition import shown_recipe, trained_as
from job.runs.accounting import make_bill
from job.runs.cost import Bill
from job.runs.records import RunRecord, now
from job.runs.run import Run, readable
from job.runs.search import survey
from job.storage.object_store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One run's records."""

    record: RunRecord
    attempts: tuple[dict[str, Any], ...]
    final: dict[str, Any] | None

    @property
    def run(self) -> str:
        """The run's name."""
        return self.record.run

    @property
    def recipe(self) -> str:
        """The name of its recipe: a file of the user's own, or else the shipped one that it is by what was trained."""
        return shown_recipe(self.record.request)

    @property
    def trained_as(self) -> str:
        """The name of the shipped recipe that it is by what was trained."""
        return trained_as(self.record.request)

    @property
    def profile(self) -> str:
        """``full`` or ``demo``."""
        return str(self.record.request["profile"])

    @property
    def train(self) -> dict[str, Any]:
        """Its training arguments, all of them."""
        return dict(self.record.request["train"])

    @property
    def val(self) -> str | None:
        """What identifies its validation set; runs of older versions did not record it."""
        return self.record.dataset.get("val")

    @property
    def before(self) -> dict[str, float] | None:
        """Metrics of the start weights, once it is finished."""
        return self.final["comparison"]["before"] if self.final else None

    @property
    def after(self) -> dict[str, float] | None:
        """Metrics of the best weights, once it is finished."""
        return self.final["comparison"]["after"] if self.final else None

    @property
    def course(self) -> list[float]:
        """F1 after each epoch of a finished run."""
        return [row["f1"] for row in self.final["course"]] if self.final else []

    @property
    def epoch_s(self) -> float | None:
        """Seconds that an epoch of a finished run took on average, its validation included."""
        return self.final["train_s"] / self.final["num_epochs"] if self.final else None

    @property
    def bill(self) -> Bill:
        """Seconds and dollars of all attempts, as the report has them."""
        return make_bill(list(self.attempts), {}, now())

    @property
    def hours(self) -> float:
        """What the run took on machines."""
        return self.bill.total_s / 3600

    @property
    def usd(self) -> float | None:
        """What that cost; nothing, which means unknown, if an attempt has no price."""
        return self.bill.usd

    @property
    def machines(self) -> list[str]:
        """The kinds of machines that it was trained on, in their order; with the GPU, if there was one."""
        first = {"environment": self.record.environment}
        gpus = [((attempt["start"] or first).get("environment") or {}).get("gpu") for attempt in self.attempts]
        kinds = [
            ", ".join(filter(None, (gpu, attempt["machine"]))) for gpu, attempt in zip(gpus, self.attempts, strict=True)
        ]
        return list(dict.fromkeys(kinds))

    def require_form(self) -> None:
        """Read everything once that others will.

        Raises:
            Exception: One of `UNREADABLE`, if a record has another form.
        """
        self.record.require_form()
        texts = [self.recipe, self.record.start["point"]["kind"], *self.machines]
        numbers = [*(self.train[name] for name in ("imgsz", "batch")), self.record.facts["num_val_images"], self.hours]
        if self.final is not None:
            texts += [self.final["finished_at"], self.final["reason"], self.val or ""]
            numbers += [self.final["best_epoch"], self.epoch_s, *self.course]
            numbers += [metrics[name] for metrics in (self.before, self.after) if metrics for name in LABELS]
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        ):
            raise TypeError("a field has another type")

    def measured_alike(self, other: "Evidence") -> bool:
        """Whether the metrics of two runs may be compared: both were measured on the same validation set."""
        if self.val is not None and other.val is not None:
            return self.val == other.val
        mine, theirs = self.record.dataset, other.record.dataset
        return bool(mine["digest"] == theirs["digest"] and mine["set_aside"] == theirs["set_aside"])


def read_evidence(run: Run, record: RunRecord) -> Evidence:
    """Read the records of one run.

    Raises:
        CorruptObjectError: If one of them has another form.
    """
    with readable(run.name):
        attempts = tuple(run.attempt(number) for number in run.attempts())
        evidence = Evidence(record=record, attempts=attempts, final=run.final())
        evidence.require_form()
    return evidence


def gather(store: Store) -> list[Evidence]:
    """Read the records of all finished runs, in the order in which they ended; what cannot be read is passed over."""
    seen = survey(store)
    seen.tell()
    found = []
    for each in seen.runs:
        if each.finished:
            try:
                found.append(read_evidence(each.run, each.record))
            except CorruptObjectError as error:
                log.warning("%s; passed over", error)
    return sorted(found, key=lambda evidence: str(evidence.final and evidence.final["finished_at"]))


def comparable(evidence: Evidence, others: Sequence[Evidence]) -> list[Evidence]:
    """Return the others whose metrics may be compared with those of a run, at the same scale."""
    return [
        other
        for other in others
        if other.run != evidence.run and other.profile == evidence.profile and evidence.measured_alike(other)
    ]
