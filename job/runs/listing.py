"""Records of a run as of one listing of the bucket, read in parallel, most of them from one bundle.

Guarantees that a record is taken from the bundle only at the version that the listing has: the bundle saves requests
and is never needed. Knows nothing of what records mean.
"""

import contextlib
import logging
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from job.errors import CorruptObjectError, JobError, ObjectNotFoundError
from job.runs.records import AttemptRecord, FinalRecord, Part, Record, RunRecord
from job.runs.run import RecordType, Run
from job.storage.object_store import StoredObject

log = logging.getLogger(__name__)

BUNDLE = "records.json"

NUM_THREADS = 16

BUNDLED = re.compile(r"(run|final|(attempts|wandb)/\d{4,}(\.[a-z]+)?)\.json")

OF_AN_ATTEMPT = ("", ".start", ".pulse", ".stop", ".end")


class BundledRecord(Part):
    """A copy of one record: the version of its object, and its text."""

    version: str
    text: str


class Bundle(Record):
    """Copies of a run's records, by their names below the run's folder."""

    records: dict[str, BundledRecord]


class _FetchedRun(Run):
    """A run whose records are texts that were fetched."""

    def __init__(self, run: Run, texts: Mapping[str, bytes]) -> None:
        super().__init__(run.store, run.name)
        self._texts = texts

    def read(self, kind: type[RecordType], name: str) -> RecordType | None:
        text = self._texts.get(name)
        return None if text is None else kind.read(self.key(name), text)


class RunListing:
    """One run's records as of one listing; each is read at most once.

    Args:
        run: The run.
        listed: Its objects, which are listed if left out.
    """

    def __init__(self, run: Run, listed: Iterable[StoredObject] | None = None) -> None:
        self.run = run
        start = run.key("")
        found = run.store.list(start) if listed is None else listed
        self.objects = {stored.key.removeprefix(start): stored for stored in found}
        self._texts: dict[str, bytes] = {}
        self._fetched = _FetchedRun(run, self._texts)
        self._bundle: Mapping[str, BundledRecord] | None = None

    def record(self) -> RunRecord | None:
        """Return the run's record; None if there is no such run, or if its folder is a copy of another run's."""
        self._fetch(["run.json", "final.json"])
        return self._fetched.record()

    def final(self) -> FinalRecord | None:
        """Return the final record, or None if the run is not finished."""
        self._fetch(["final.json"])
        return self._fetched.final()

    def attempts(self, numbers: Iterable[int] | None = None) -> list[AttemptRecord]:
        """Return the records of attempts, of all by default.

        Raises:
            UnreadableRecordError: If one of them has another form.
        """
        chosen = self.attempt_numbers if numbers is None else list(numbers)
        self._fetch([f"attempts/{number:04d}{kind}.json" for number in chosen for kind in OF_AN_ATTEMPT])
        return [self._fetched.attempt(number) for number in chosen]

    @property
    def attempt_numbers(self) -> list[int]:
        """The numbers of the attempts that claimed the run, in order."""
        return sorted(
            int(match[1]) for name in self.objects if (match := re.fullmatch(r"attempts/(\d{4,})\.json", name))
        )

    def write_bundle(self) -> None:
        """Bundle all records for those who list the run next; failure is a warning."""
        names = [name for name in self.objects if BUNDLED.fullmatch(name)]
        try:
            self._fetch(names)
            records = {
                name: BundledRecord(version=self.objects[name].version, text=self._texts[name].decode())
                for name in names
                if name in self._texts
            }
            self.run.write(BUNDLE, Bundle(records=records), overwrite=True)
        except (JobError, UnicodeDecodeError) as error:
            log.warning(
                "run %s: its records were not bundled, which only makes listings slower: %s", self.run.name, error
            )

    def _fetch(self, names: Iterable[str]) -> None:
        """Read those of some records that exist and were not read before, from the bundle or in parallel."""
        missing = [name for name in names if name in self.objects and name not in self._texts]
        if missing and BUNDLE in self.objects:
            bundle = self._read_bundle()
            for name in missing:
                copy = bundle.get(name)
                if copy is not None and copy.version == self.objects[name].version:
                    self._texts[name] = copy.text.encode()
            missing = [name for name in missing if name not in self._texts]
        if len(missing) == 1:
            self._read(missing[0])
        elif missing:
            with ThreadPoolExecutor(NUM_THREADS) as threads:
                list(threads.map(self._read, missing))

    def _read(self, name: str) -> None:
        with contextlib.suppress(ObjectNotFoundError):  # deleted since the listing
            self._texts[name] = self.run.store.read(self.run.key(name))

    def _read_bundle(self) -> Mapping[str, BundledRecord]:
        if self._bundle is None:
            self._bundle = {}
            try:
                found = self.run.read(Bundle, BUNDLE)
            except CorruptObjectError as error:
                log.warning("%s; its records are read one by one", error)
            else:
                self._bundle = found.records if found else {}
        return self._bundle
