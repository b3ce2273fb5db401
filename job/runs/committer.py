"""Background commits: training continues while a checkpoint is written, uploaded and published.

Guarantees that commits happen one at a time and in order, that at most one waits (a newer snapshot replaces it: it
holds everything the older one held), that a snapshot is written once, and that each failure is raised in the training
thread.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job.background import Background
from job.errors import PreemptionError, StoreError, TransientStoreError
from job.runs import checkpoint
from job.runs.records import CheckpointId, Manifest
from job.runs.run import Claim
from job.storage.workdir import translated_errors
from job.training.position import Position

if TYPE_CHECKING:
    from job.training.state import Snapshot

log = logging.getLogger(__name__)

NUM_TRIES = 3
"""Transient failures in a row that are tolerated; the store has retried each until its deadline."""


@dataclass(slots=True)
class _Work:
    """A snapshot to commit, with further entries of its metadata."""

    snapshot: "Snapshot"
    metadata: Mapping[str, object]
    paths: list[Path] | None = None
    """Its files, once they are written."""

    @property
    def position(self) -> Position:
        """Where training stood."""
        return self.snapshot.position


class AsyncCommitter(Background):
    """One thread that commits the snapshots of a claim; use it as a context manager.

    It writes their files to the folder `staging`, after each commit calls `publish` with it, and stores no file again
    that the checkpoint `restored` or a later one has.
    """

    def __init__(self, claim: Claim, staging: Path, restored: Manifest | None, publish: Callable[[Path], None]) -> None:
        super().__init__("committer", self._commit_all)
        self.newest = restored if restored and restored.run == claim.run.name else None
        self._claim, self._staging, self._publish = claim, staging, publish
        self._changed = threading.Condition()
        self._waiting: _Work | None = None
        self._given: Position | None = None
        self._is_committing = False
        self.hurried = self._closing = False
        """Whether the work after a commit, retention and publishing, is left out."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Wait for the last commit; after an error, without retention and publishing.

        Raises:
            JobError: If a commit failed for good. Beside another error it is logged, and a notice records the loss.
        """
        with self._changed:
            self._closing = True
            self.hurried = error is not None
            self._changed.notify_all()
        self.join()
        if error is None:
            self.check()
        elif (failed := self.error) not in {None, error}:
            log.error("not committed: %s", failed)
            if isinstance(error, PreemptionError) and self._given:
                error.not_committed = f"{self._given} is not committed, {type(failed).__name__}: {failed}"

    @property
    def is_idle(self) -> bool:
        """Whether no commit waits or is under way."""
        with self._changed:
            return self._waiting is None and not self._is_committing

    def submit(self, snapshot: "Snapshot", **metadata: object) -> None:
        """Queue a snapshot with further entries of its metadata; raises the error of a commit that failed for good."""
        self.check()
        with self._changed:
            self._waiting, self._given = _Work(snapshot, metadata), snapshot.position
            self._changed.notify_all()

    def _commit_all(self) -> None:
        num_failed = 0
        while (work := self._next()) is not None:
            try:
                self._commit(work)
                num_failed = 0
            except TransientStoreError as error:
                num_failed += 1
                log.warning("committing %s failed, try %d of %d: %s", work.position, num_failed, NUM_TRIES, error)
                if num_failed >= NUM_TRIES:
                    raise
                with self._changed:
                    self._waiting = self._waiting or work

    def _next(self) -> _Work | None:
        with self._changed:
            self._is_committing = False
            self._changed.wait_for(lambda: self._waiting is not None or self._closing)
            work, self._waiting = self._waiting, None
            self._is_committing = work is not None
            return work

    def _commit(self, work: _Work) -> None:
        started, snapshot = time.monotonic(), work.snapshot
        if work.paths is None:  # else a commit of these files has failed for a passing reason
            with translated_errors(self._staging):
                shutil.rmtree(self._staging, ignore_errors=True)
                self._staging.mkdir(parents=True)
                work.paths = snapshot.write(self._staging)
        identity = CheckpointId(*work.position, self._claim.attempt)
        known = {file.key for file in self.newest.files} if self.newest else set()
        self.newest = checkpoint.commit(
            self._claim.run, identity, work.paths, {**snapshot.metadata, **work.metadata}, self.newest
        )
        new_bytes = sum({file.key: file.size_bytes for file in self.newest.files if file.key not in known}.values())
        log.info(
            "committed %s: %.1f MB in %.2f s",
            *(identity.position, new_bytes / 1e6, time.monotonic() - started),
            extra={"epoch": identity.epoch, "batch": identity.batch, "bytes": new_bytes},
        )
        try:
            if not self.hurried:
                with translated_errors(self._staging):
                    snapshot.publish(self._staging)
                    self._publish(self._staging)
            if not self.hurried:
                checkpoint.retain(self._claim.run)
        except StoreError as error:  # neither is needed to resume; both are retried after the next commit
            log.warning("after committing %s: %s", identity.position, error)
