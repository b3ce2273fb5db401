"""Records of a run as of one listing of the bucket, read in parallel, most of them from one bundle.

Guarantees that a record is taken from the bundle only at the version that the listing has, and without a listing only
after the end of the run: the bundle saves requests and is never needed. Knows nothing of what records mean.
"""

import contextlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from job.errors import CorruptObjectError, JobError, ObjectNotFoundError
from job.runs import checkpoint
from job.runs.records import AttemptRecord, CheckpointId, FinalRecord, Manifest, Part, Record, RunRecord
from job.runs.run import RecordType, Run
from job.storage.object_store import StoredObject

log = logging.getLogger(__name__)

BUNDLE = "records.json"

NUM_THREADS = 8
"""Of the ten connections that Google's client keeps."""

BUNDLED = re.compile(r"(run|final|(attempts|wandb)/\d{4,}(\.[a-z]+)?)\.json")

OF_AN_ATTEMPT = ("", ".start", ".pulse", ".stop", ".end")


class BundledRecord(Part):
    """A copy of one record: the version of its object, and its text."""

    version: str
    text: str


class Bundle(Record):
    """Copies of a run's records, by their names below the run's folder."""

    records: dict[str, BundledRecord]
    ended_run: str | None = None
    """The run, if it is finished and its newest attempt has ended: its records and those of its attempts stay as they
    are. Older versions did not record it.
    """


class _FetchedRun(Run):
    """A run whose records are texts that were fetched."""

    def __init__(self, run: Run, texts: Mapping[str, bytes]) -> None:
        super().__init__(run.store, run.name)
        self._texts = texts

    def read(self, kind: type[RecordType], name: str) -> RecordType | None:
        text = self._texts.get(name)
        return None if text is None else kind.read(self.key(name), text)


class RunListing:
    """One run's records as of one listing, which the first use makes; each is read at most once.

    Args:
        run: The run.
        bundle: Its bundle, if that was read before.
        below: Beginning of the names to list; all by default.
    """

    def __init__(self, run: Run, bundle: Bundle | None = None, *, below: str = "") -> None:
        self.run, self._below = run, below
        self._texts: dict[str, bytes] = {}
        self._fetched = _FetchedRun(run, self._texts)
        self._bundle = bundle
        self._manifests: dict[CheckpointId, Manifest] = {}

    @cached_property
    def objects(self) -> dict[str, StoredObject]:
        """The run's objects, by their names below its folder."""
        start = self.run.key("")
        return {stored.key.removeprefix(start): stored for stored in self.run.store.list(start + self._below)}

    @property
    def names(self) -> Collection[str]:
        """Names of the objects."""
        return self.objects.keys()

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
        return sorted(int(match[1]) for name in self.names if (match := re.fullmatch(r"attempts/(\d{4,})\.json", name)))

    def read(self, kind: type[RecordType], name: str) -> RecordType | None:
        """Read one of the run's objects, if it exists, by `Record.read`."""
        self._fetch([name])
        return self._fetched.read(kind, name)

    def committed(self) -> list[CheckpointId]:
        """Return the committed checkpoints, oldest first; see `checkpoint.committed`."""
        return checkpoint.committed(self.run, self.objects.values())

    def manifest(self, identity: CheckpointId) -> Manifest:
        """Return a checkpoint's manifest; raises as `checkpoint.read_manifest` does."""
        if identity not in self._manifests:
            self._manifests[identity] = checkpoint.read_manifest(self.run, identity)
        return self._manifests[identity]

    def write_bundle(self) -> None:
        """Bundle all records for those who list the run next; failure is a warning."""
        try:
            names = [name for name in self.names if BUNDLED.fullmatch(name)]
            self._fetch(names)
            records = {
                name: BundledRecord(version=self.objects[name].version, text=self._texts[name].decode())
                for name in names
                if name in self._texts
            }
            bundle = Bundle(records=records, ended_run=self.run.name if self._has_ended() else None)
            self.run.write(BUNDLE, bundle, overwrite=True)
        except (JobError, UnicodeDecodeError) as error:
            log.warning(
                "run %s: its records were not bundled, which only makes listings slower: %s", self.run.name, error
            )

    def _has_ended(self) -> bool:
        """Whether no record changes any more, and each of them can be read."""
        with contextlib.suppress(CorruptObjectError, ObjectNotFoundError):
            if self.record() and self.final():
                attempts = self.attempts()
                return not attempts or attempts[-1].end is not None
        return False

    def _fetch(self, names: Iterable[str]) -> None:
        """Read those of some records that exist and were not read before, from the bundle or in parallel."""
        missing = [name for name in names if name in self.names and name not in self._texts]
        if missing and self._bundle is None and BUNDLE in self.names:
            self._bundle = read_bundle(self.run)
        copies = self._bundle.records if self._bundle else {}
        for name in missing:
            if name in copies and copies[name].version == self.objects[name].version:
                self._texts[name] = copies[name].text.encode()
        missing = [name for name in missing if name not in self._texts]
        if len(missing) == 1:
            self._read(missing[0])
        elif missing:
            with ThreadPoolExecutor(NUM_THREADS) as threads:
                list(threads.map(self._read, missing))

    def _read(self, name: str) -> None:
        with contextlib.suppress(ObjectNotFoundError):  # deleted since the listing
            self._texts[name] = self.run.store.read(self.run.key(name))


class _EndedRunListing(RunListing):
    """An ended run by its bundle alone: its own records and those of its attempts; W&B may still be synchronised."""

    def __init__(self, run: Run, bundle: Bundle) -> None:
        super().__init__(run, bundle)
        lasting = (name for name in bundle.records if not name.startswith("wandb/"))
        self._texts.update({name: bundle.records[name].text.encode() for name in lasting})

    @property
    def names(self) -> Collection[str]:
        return self._texts.keys()


def list_briefly(run: Run) -> RunListing:
    """Return a run's records for a list of many runs: one request for an ended run, which is not listed."""
    bundle = read_bundle(run)
    return _EndedRunListing(run, bundle) if bundle.ended_run == run.name else RunListing(run, bundle)


def read_bundle(run: Run) -> Bundle:
    """Return a run's bundle; an empty one if there is none, and with a warning if it cannot be read."""
    try:
        return run.read(Bundle, BUNDLE) or Bundle(records={})
    except CorruptObjectError as error:
        log.warning("%s; its records are read one by one", error)
        return Bundle(records={})
