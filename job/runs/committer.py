"""Background commits: training continues while a checkpoint is written, uploaded and published.

Guarantees that commits happen one at a time and in order, that at most one waits (a newer snapshot replaces it: it
holds everything the older one held, but for the ``last.pt`` of a complete epoch, which is published all the same), and
that each failure is raised in the training thread.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from job.background import Background
from job.errors import PreemptionError, StoreError, TransientStoreError
from job.runs import checkpoint
from job.runs.records import CheckpointId, Manifest
from job.runs.run import Claim
from job.storage.workdir import translated_errors

if TYPE_CHECKING:
    from job.training.state import Snapshot

log = logging.getLogger(__name__)

NUM_TRIES = 3
"""Transient failures in a row that are tolerated; the store has retried each until its deadline."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A snapshot to commit, with further entries of its metadata, and the one to publish after it."""

    snapshot: "Snapshot"
    metadata: Mapping[str, object]
    shown: "Snapshot"

    def after(self, older: "_Work | None") -> "_Work":
        """Return this work in place of an older one; within an epoch it publishes the end of the one before."""
        if older is None or not self.snapshot.position.batch or older.shown.position.batch:
            return self
        return replace(self, shown=older.shown)


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
        self._given: CheckpointId | None = None
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
                error.not_committed = f"{self._given.position} is not committed, {type(failed).__name__}: {failed}"

    def submit(self, snapshot: "Snapshot", **metadata: object) -> None:
        """Queue a snapshot with further entries of its metadata; raises the error of a commit that failed for good."""
        self.check()
        with self._changed:
            self._waiting = _Work(snapshot, metadata, snapshot).after(self._waiting)
            self._given = self._id(snapshot)
            self._changed.notify_all()

    def _commit_all(self) -> None:
        num_failed = 0
        while (work := self._next()) is not None:
            try:
                self._commit(work)
                num_failed = 0
            except TransientStoreError as error:
                num_failed += 1
                position = work.snapshot.position
                log.warning("committing %s failed, try %d of %d: %s", position, num_failed, NUM_TRIES, error)
                if num_failed >= NUM_TRIES:
                    raise
                with self._changed:
                    self._waiting = self._waiting.after(work) if self._waiting else work

    def _next(self) -> _Work | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closing)
            work, self._waiting = self._waiting, None
            return work

    def _commit(self, work: _Work) -> None:
        started, snapshot = time.monotonic(), work.snapshot
        with translated_errors(self._staging):
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True)
            paths = snapshot.write(self._staging)
        identity = self._id(snapshot)
        known = {file.key for file in self.newest.files} if self.newest else set()
        self.newest = checkpoint.commit(
            self._claim.run, identity, paths, {**snapshot.metadata, **work.metadata}, self.newest
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
                    work.shown.publish(self._staging)
                    self._publish(self._staging)
            if not self.hurried:
                checkpoint.retain(self._claim.run)
        except StoreError as error:  # neither is needed to resume; both are retried after the next commit
            log.warning("after committing %s: %s", identity.position, error)

    def _id(self, snapshot: "Snapshot") -> CheckpointId:
        return CheckpointId(*snapshot.position, self._claim.attempt)
