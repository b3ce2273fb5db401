"""A run in the bucket: its name, its frozen record, the attempts that claimed it, and its end.

Guarantees that a run's record, each attempt's claim and the final record are written once and never changed, and that
of two machines on one run the later claim wins. Knows nothing of the training.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from job.errors import (
    CorruptObjectError,
    EndReason,
    ObjectNotFoundError,
    PreconditionError,
    SupersededError,
    UsageError,
)
from job.runs.records import (
    SCHEMA,
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

FAMILY = "yolov11_wildlife"
"""Family of the unnamed runs on wildlife data, and of all unnamed runs of older versions."""

MAX_FAMILY = 50
"""Characters of a derived family, which leave room for the number of a run."""

UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of a record that has another form than it is written in: it is data, and not always ours."""

RecordType = TypeVar("RecordType", bound=Record)

SUBMISSIONS = "segments/"
"""Where a run's submissions lie, of which the first may be there before the run begins."""


def is_run_name(name: str) -> bool:
    """Whether a name can be a run's."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name) is not None


def check_run_name(name: str) -> str:
    """Return a run's name if it can be one.

    Raises:
        UsageError: If it cannot.
    """
    if not is_run_name(name):
        raise UsageError(
            f"run {name!r}: is not a name for a run; use up to 63 letters, digits, '-' and '_', the first no '-' or '_'"
        )
    return name


def default_families(dataset: str | None) -> list[str]:
    """Return the families in which an unnamed run on a dataset is searched; a new one belongs to the first.

    ``yolov11_`` and the dataset's name, closed by ``_`` if that ends in a digit, so that `family_of` is its inverse.
    """
    if dataset is None or dataset.startswith("wildlife"):
        return [FAMILY]
    family = f"yolov11_{re.sub(r'[^A-Za-z0-9_-]', '-', dataset)}"[:MAX_FAMILY]
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
        """Return the run's record, or nothing if there is no such run; a copy of another run's folder is none."""
        record = self.read(RunRecord, "run.json")
        return record if record and record.run == self.name else None

    def submitted(self) -> Mapping[str, Any] | None:
        """Return what was asked for when the run was first submitted to the cloud, if it was and can be read."""
        try:
            loaded = self._read(f"{SUBMISSIONS}0001.json")
        except CorruptObjectError:  # a foreign file under that name
            return None
        return loaded.get("request") if isinstance(loaded, dict) and loaded.get("run") == self.name else None

    def create(self, record: RunRecord) -> bool:
        """Write the record of a new run; false if the name was taken in the meantime."""
        try:
            self.store.put(self.key("run.json"), record.to_json())
        except PreconditionError:
            return False
        return True

    def attempts(self) -> list[int]:
        """Return the numbers of the attempts that claimed the run, in order."""
        numbers = (
            re.fullmatch(r".*/attempts/(\d{4,})\.json", stored.key) for stored in self.store.list(self.key("attempts/"))
        )
        return sorted(int(match[1]) for match in numbers if match)

    def attempt(self, number: int) -> AttemptRecord:
        """Return the records of an attempt; one without an end vanished, or runs.

        Raises:
            UnreadableRecordError: If one of them has another form.
        """
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

    def attempt_records(self) -> list[AttemptRecord]:
        """Return the records of all attempts, in order."""
        return [self.attempt(number) for number in self.attempts()]

    def claim(self, fields: Mapping[str, object]) -> "Claim":
        """Claim the run for a new attempt; every earlier attempt is superseded from here on."""
        while True:
            earlier = self.attempts()
            number = earlier[-1] + 1 if earlier else 1
            ended = self._read(_name(earlier[-1], ".end")) if earlier else None
            try:
                self.write(
                    _name(number),
                    {
                        "attempt": number,
                        "claimed_at": now(),
                        "nonce": secrets.token_hex(8),  # two claims never have the same bytes, so one of them loses
                        "previous_ended": (ended or {"reason": EndReason.VANISHED}) if earlier else None,
                        **fields,
                    },
                )
            except PreconditionError:
                continue
            return Claim(self, number)

    def note(self, name: str, content: Mapping[str, object]) -> None:
        """Write a non-authoritative object, in place of its last version."""
        self.store.put(self.key(name), _json({"schema": SCHEMA, **content}), overwrite=True)

    def noted(self, name: str) -> dict[str, Any] | None:
        """Return an object of `note`, if there is one."""
        return self._read(name)

    def final(self) -> FinalRecord | None:
        """Return the final record, or nothing if the run is not finished."""
        return self.read(FinalRecord, "final.json")

    def finish(self, final: Mapping[str, object]) -> FinalRecord:
        """Write the final record and return it; if there is one already, that one."""
        with contextlib.suppress(PreconditionError):
            self.write("final.json", {"finished_at": now(), **final})
        written = self.final()
        if written is None:
            raise CorruptObjectError(f"{self.key('final.json')}: was deleted while it was written; start again")
        return written

    def read(self, kind: type[RecordType], name: str) -> RecordType | None:
        """Read one of the run's objects, if it is there.

        Raises:
            UnreadableRecordError: If it has another form.
        """
        try:
            return kind.read(self.key(name), self.store.read(self.key(name)))
        except ObjectNotFoundError:
            return None

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            data = self.store.read(self.key(name))
        except ObjectNotFoundError:
            return None
        try:
            loaded: dict[str, Any] = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CorruptObjectError(f"{self.key(name)}: is not JSON, {error}; restore the object") from error
        return loaded

    def write(self, name: str, content: Mapping[str, object]) -> None:
        """Write one of the run's objects.

        Raises:
            PreconditionError: If it is there.
        """
        self.store.put(self.key(name), _json({"schema": SCHEMA, **content}))


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt's claim on its run; its records."""

    run: Run
    attempt: int

    def require_current(self) -> None:
        """Check that no later attempt has claimed the run.

        Raises:
            SupersededError: If one has.
        """
        newest = max(self.run.attempts(), default=self.attempt)
        if newest > self.attempt:
            raise SupersededError(
                f"run {self.run.name}: attempt {self.attempt} was superseded by attempt {newest}; this machine stops "
                "and leaves the run to the other"
            )

    def start(self, fields: Mapping[str, object]) -> None:
        """Record what the attempt found when it was ready to train."""
        self.run.write(_name(self.attempt, ".start"), {"started_at": now(), **fields})

    def end(self, reason: str, fields: Mapping[str, object]) -> None:
        """Record why the attempt ended; the first record stands."""
        with contextlib.suppress(PreconditionError):
            self.run.write(_name(self.attempt, ".end"), {"ended_at": now(), "reason": reason, **fields})

    def heartbeat(self, fields: Mapping[str, object]) -> None:
        """Record that the attempt is alive and how far it is, in place of its last heartbeat."""
        self.run.note(_name(self.attempt, ".pulse"), {"at": now(), **fields})

    def ask_to_stop(self, host: str) -> None:
        """Ask the attempt, from a host, to commit and end as paused; the first request stands."""
        with contextlib.suppress(PreconditionError):
            self.run.write(_name(self.attempt, ".stop"), {"asked_at": now(), "host": host})

    def stop_request(self) -> StopRequest | None:
        """Return the request of `ask_to_stop`, if there is one."""
        return self.run.read(StopRequest, _name(self.attempt, ".stop"))


def _name(attempt: int, kind: str = "") -> str:
    return f"attempts/{attempt:04d}{kind}.json"


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
