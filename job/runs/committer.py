"""Background commits: training continues while a checkpoint is written, uploaded and published.

Guarantees that commits happen one at a time and in order, that at most one waits (a newer snapshot replaces it: it
holds everything the older one held), and that no failure is swallowed: each is raised in the training
thread.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from job.background import Background
from job.errors import MachineError, PreemptionError, StoreError, TransientStoreError
from job.runs import checkpoint
from job.runs.records import CheckpointId, Manifest
from job.runs.run import Claim

log = logging.getLogger(__name__)

NUM_TRIES = 3
"""Commits in a row that may fail for a passing reason; the store has tried each until its deadline."""


class Committable(Protocol):
    """A snapshot, as far as committing it goes."""

    @property
    def epoch(self) -> int:
        """Complete epochs."""

    @property
    def batch(self) -> int:
        """Complete batches of the next epoch."""

    @property
    def metadata(self) -> Mapping[str, object]:
        """Metadata of its manifest."""

    def write(self, folder: Path) -> list[Path]:
        """Write its files into an empty folder; return them, the most valuable first."""

    def publish(self, folder: Path) -> None:
        """Make the files in that folder, once they are committed, those of the run's own folder."""


class AsyncCommitter:
    """One thread that commits snapshots; use it as a context manager.

    Args:
        claim: The attempt that commits.
        staging: A folder for the files of one snapshot, used by nothing else.
        restored: The checkpoint that training resumed from; unchanged files of one of this run are not stored again.
        publish: Called after each commit with the folder of its files.
    """

    def __init__(
        self,
        claim: Claim,
        staging: Path,
        restored: Manifest | None,
        publish: Callable[[Path], None],
    ) -> None:
        self.newest = restored if restored and restored.run == claim.run.name else None
        self._claim, self._staging, self._publish = claim, staging, publish
        self._changed = threading.Condition()
        self._waiting: tuple[Committable, Mapping[str, object]] | None = None
        self._given: CheckpointId | None = None
        self.hurried = self._closing = False
        """Whether nothing but a commit is worth the time that is left."""

        self._background = Background("committer", self._work)

    def __enter__(self) -> Self:
        self._background.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Wait for what is waiting; if the process has to go, for nothing after its commit.

        Raises:
            JobError: If a commit failed for good; it is a message if another error is on its way, and a notice says
                what is lost by it.
        """
        with self._changed:
            self._closing = True
            self.hurried = error is not None
            self._changed.notify_all()
        self._background.join()
        if error is None:
            self.check()
        elif (failed := self._background.error) not in {None, error}:
            log.error("not committed: %s", failed)
            if isinstance(error, PreemptionError) and self._given:
                error.not_committed = f"{self._given.description} is not committed, {type(failed).__name__}: {failed}"

    def submit(self, snapshot: Committable, **metadata: object) -> None:
        """Commit a snapshot soon.

        Args:
            snapshot: What to commit.
            **metadata: Further entries of the manifest's metadata.

        Raises:
            JobError: If an earlier commit failed for good.
        """
        self.check()
        with self._changed:
            self._waiting, self._given = (snapshot, metadata), self._id(snapshot)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error of a commit that failed for good, if one did; cheap enough for every step."""
        self._background.check()

    def _work(self) -> None:
        num_failed = 0
        while (work := self._next()) is not None:
            try:
                self._commit(*work)
                num_failed = 0
            except TransientStoreError as error:
                num_failed += 1
                place = self._id(work[0]).description
                log.warning("committing %s failed, try %d of %d: %s", place, num_failed, NUM_TRIES, error)
                if num_failed >= NUM_TRIES:
                    raise
                with self._changed:
                    self._waiting = self._waiting or work

    def _next(self) -> tuple[Committable, Mapping[str, object]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closing)
            work, self._waiting = self._waiting, None
            return work

    def _commit(self, snapshot: Committable, metadata: Mapping[str, object]) -> None:
        started = time.monotonic()
        paths = self._written(snapshot)
        identity = self._id(snapshot)
        known = {file.key for file in self.newest.files} if self.newest else set()
        self.newest = checkpoint.commit(
            self._claim.run, identity, paths, {**snapshot.metadata, **metadata}, self.newest
        )
        new_bytes = sum({file.key: file.size_bytes for file in self.newest.files if file.key not in known}.values())
        log.info(
            "committed %s: %.1f MB in %.2f s",
            *(identity.description, new_bytes / 1e6, time.monotonic() - started),
            extra={"epoch": identity.epoch, "batch": identity.batch, "bytes": new_bytes},
        )
        try:
            if not self.hurried:
                snapshot.publish(self._staging)
                self._publish(self._staging)
            if not self.hurried:
                checkpoint.retain(self._claim.run)
        except StoreError as error:  # neither is needed to resume, and both are tried again after the next commit
            log.warning("after committing %s: %s", identity.description, error)
        except OSError as error:
            raise self._unwritable(error) from error

    def _written(self, snapshot: Committable) -> list[Path]:
        try:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True)
            return snapshot.write(self._staging)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> MachineError:
        return MachineError(f"{self._staging}: cannot be written, {error.strerror}; free some space")

    def _id(self, snapshot: Committable) -> CheckpointId:
        return CheckpointId(snapshot.epoch, snapshot.batch, self._claim.attempt)
