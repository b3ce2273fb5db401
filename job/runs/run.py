"""Run in the bucket: name, frozen record, claims of attempts, final record.

Guarantees that a run's record, each attempt's claim and the final record are written once and never changed, and that
of two machines on one run the later claim wins (fencing). Knows nothing of the training.
"""

import contextlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from job.errors import EndReason, ObjectNotFoundError, PreconditionError, SupersededError, UsageError
from job.runs.records import (
    AttemptClaim,
    AttemptEnd,
    AttemptRecord,
    AttemptStart,
    FinalRecord,
    Heartbeat,
    Record,
    RunRecord,
    StopRequest,
    now,
)
from job.storage.object_store import Store
from job.text import dataset_and_version
from job.training.files import BEST

FAMILY = "yolov11_wildlife"
"""Family of the unnamed runs on wildlife data, and of all unnamed runs of older versions."""

MAX_FAMILY = 50
"""Characters of a derived family, which leave room for the number of a run."""

RecordType = TypeVar("RecordType", bound=Record)

BEST_WEIGHTS = f"weights/{BEST}"

REPORT = "report.html"

SUBMISSIONS = "segments/"
"""Where a run's submissions lie; the first may be there before the run begins."""


def is_run_name(name: str) -> bool:
    """Whether a name can be a run's."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name) is not None


def check_run_name(name: str) -> str:
    """Return a run's name; raises `UsageError` if it can be none."""
    if not is_run_name(name):
        raise UsageError(
            f"run {name!r}: is not a name for a run; use up to 63 letters, digits, '-' and '_', the first no '-' or '_'"
        )
    return name


def default_families(dataset: str | None) -> list[str]:
    """Return the families in which an unnamed run on a dataset is searched; a new one belongs to the first.

    ``yolov11_`` and the dataset's name, closed by ``_`` if that ends in a digit, so that `family_of` is its inverse.
    """
    name = dataset and dataset_and_version(dataset)[0]
    if name is None or name.startswith("wildlife"):
        return [FAMILY]
    family = f"yolov11_{re.sub(r'[^A-Za-z0-9_-]', '-', name)}"[:MAX_FAMILY]
    return [f"{family}_" if family[-1].isdecimal() else family, FAMILY]


def family_of(name: str) -> str:
    """Return the name without the number at its end."""
    return re.sub(r"(?<=\D)\d+$", "", name)


def next_free_name(family: str, taken: Iterable[str]) -> str:
    """Return a family's next name after all that are taken: zebra, zebra2, ... or coco128_1, coco128_2, ..."""
    matches = [re.fullmatch(re.escape(family) + r"([1-9]\d*)?", name) for name in taken]
    number = 1 + max((int(match[1] or 1) for match in matches if match), default=0)
    return family if number == 1 and family[-1].isalnum() else f"{family}{number}"


class Run:
    """One run's records in a store."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = check_run_name(name)

    def key(self, name: str) -> str:
        """Return the key of one of the run's objects."""
        return f"runs/{self.name}/{name}"

    def record(self) -> RunRecord | None:
        """Return the run's record; None if there is no such run, or if its folder is a copy of another run's."""
        record = self.read(RunRecord, "run.json")
        return record if record and record.run == self.name else None

    def create(self, record: RunRecord) -> bool:
        """Write the record of a new run; false if the name was taken in the meantime."""
        try:
            self.write("run.json", record)
        except PreconditionError:
            return False
        return True

    def attempt_numbers(self) -> list[int]:
        """Return the numbers of the attempts that claimed the run, in order."""
        numbers = (
            re.fullmatch(r".*/attempts/(\d{4,})\.json", stored.key) for stored in self.store.list(self.key("attempts/"))
        )
        return sorted(int(match[1]) for match in numbers if match)

    def attempt(self, number: int) -> AttemptRecord:
        """Return the records of an attempt."""
        claim = self.read(AttemptClaim, _name(number))
        if claim is None:
            raise ObjectNotFoundError(f"{self.key(_name(number))}: no such object; restore it")
        return AttemptRecord(
            claim,
            start=self.read(AttemptStart, _name(number, ".start")),
            heartbeat=self.read(Heartbeat, _name(number, ".pulse")),
            stop=self.read(StopRequest, _name(number, ".stop")),
            end=self.read(AttemptEnd, _name(number, ".end")),
        )

    def claim(self, fields: Mapping[str, object]) -> "Claim":
        """Claim the run for a new attempt; every earlier attempt is superseded from here on."""
        while True:
            earlier = max(self.attempt_numbers(), default=0)
            ended = self.read(AttemptEnd, _name(earlier, ".end"))
            previous = ended.model_dump(mode="json") if ended else {"reason": EndReason.VANISHED}
            claim = {
                "attempt": earlier + 1,
                "claimed_at": now(),
                "nonce": secrets.token_hex(8),
                "previous_ended": previous if earlier else None,
            }
            with contextlib.suppress(PreconditionError):
                self.write(_name(earlier + 1), AttemptClaim.model_validate({**claim, **fields}))
                return Claim(self, earlier + 1)

    def final(self) -> FinalRecord | None:
        """Return the final record, or None if the run is not finished."""
        return self.read(FinalRecord, "final.json")

    def finish(self, final: Mapping[str, object]) -> FinalRecord:
        """Write the final record, unless there is one, and return the record in the bucket."""
        with contextlib.suppress(PreconditionError):
            self.write("final.json", FinalRecord.model_validate({"finished_at": now(), **final}))
        written = self.final()
        if written is None:
            raise ObjectNotFoundError(f"{self.key('final.json')}: was deleted while it was written; start again")
        return written

    def read(self, kind: type[RecordType], name: str) -> RecordType | None:
        """Read one of the run's objects, if it exists, by `Record.read`."""
        try:
            return kind.read(self.key(name), self.store.read(self.key(name)))
        except ObjectNotFoundError:
            return None

    def write(self, name: str, record: Record, *, overwrite: bool = False) -> None:
        """Write one of the run's objects, create-only unless `overwrite`."""
        self.store.put(self.key(name), record.to_json(), overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt's claim on its run; its records."""

    run: Run
    attempt: int

    def require_current(self) -> None:
        """Raise `SupersededError` if a later attempt has claimed the run."""
        newest = max(self.run.attempt_numbers(), default=self.attempt)
        if newest > self.attempt:
            raise self._superseded_by(newest)

    def require_no_successor(self) -> None:
        """Raise `SupersededError` if the next attempt has claimed the run: one request, however many came before.

        It spares work that `require_current` would refuse, and does not stand in for it: a later claim may be there
        without the next one, if a person has deleted that.
        """
        with contextlib.suppress(ObjectNotFoundError):
            self.run.store.stat(self.run.key(_name(self.attempt + 1)))
            raise self._superseded_by(self.attempt + 1)

    def start(self, fields: Mapping[str, object]) -> None:
        """Write the start record of the attempt, ready to train."""
        self._write(".start", AttemptStart.model_validate({"started_at": now(), **fields}))

    def end(self, reason: str, fields: Mapping[str, object]) -> None:
        """Write the end record of the attempt; the first record stands."""
        with contextlib.suppress(PreconditionError):
            self._write(".end", AttemptEnd.model_validate({"ended_at": now(), "reason": reason, **fields}))

    def heartbeat(self, fields: Mapping[str, object]) -> None:
        """Write the heartbeat of the attempt, in place of the last one."""
        self._write(".pulse", Heartbeat.model_validate({"at": now(), **fields}), overwrite=True)

    def ask_to_stop(self, host: str) -> None:
        """Ask the attempt, from a host, to commit and end as paused; the first request stands."""
        with contextlib.suppress(PreconditionError):
            self._write(".stop", StopRequest(asked_at=now(), host=host))

    def stop_request(self) -> StopRequest | None:
        """Return the request of `ask_to_stop`, if there is one."""
        return self.run.read(StopRequest, _name(self.attempt, ".stop"))

    def _superseded_by(self, newer: int) -> SupersededError:
        return SupersededError(
            f"run {self.run.name}: attempt {self.attempt} was superseded by attempt {newer}; this machine stops and "
            "leaves the run to the other"
        )

    def _write(self, kind: str, record: Record, *, overwrite: bool = False) -> None:
        self.run.write(_name(self.attempt, kind), record, overwrite=overwrite)


def _name(attempt: int, kind: str = "") -> str:
    return f"attempts/{attempt:04d}{kind}.json"
