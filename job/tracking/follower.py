"""The process that follows one attempt: whatever was committed goes to W&B, then the log of that to the bucket.

It is told that there is news, or how the attempt ended, by lines on its standard input; what is new it reads from the
bucket. When whoever told it is gone it goes too, at once.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from job.errors import TransientStoreError
from job.runs import offline_logs
from job.runs.progress import Progress, read_progress
from job.runs.records import RunRecord
from job.runs.run import Run
from job.tracking.client import AXIS, NO_EPOCH, Curve, ServerError, confine, why_offline
from job.tracking.events import rows_after, tell_the_end
from job.tracking.sidecar import FINISHED, NEWS

ON_DISK_S = 10.0
"""How long a row may take to the log on disk before its segment is left to the next time."""

LOOK_S = 0.1


def follow(run: Run, attempt: int, folder: Path, words: Iterable[str]) -> None:
    """Follow an attempt until it ends.

    Args:
        run: The run.
        attempt: The attempt's number; its start record is written.
        folder: For the library's files.
        words: `NEWS` whenever there may be some, and at the end `FINISHED` or another reason.

    Raises:
        SupersededError: If a later attempt has claimed the run.
        StoreError: If the store refuses.
    """
    record = run.record()
    if record is None:
        return
    confine(folder)
    opened = _opened(run, record, attempt)
    known = opened.epoch if opened.online else _last_epoch(run, attempt)
    follower = _Follower(run, attempt, opened, known)
    follower.look()
    for word in words:
        with contextlib.suppress(TransientStoreError):  # there will be news again
            follower.look()
        if word == NEWS:
            continue
        if word == FINISHED:
            tell_the_end(run, record, opened, folder)
            offline_logs.say(run, attempt, sent=opened.online)
        elif opened.online:
            opened.leave()
        follower.keep()
        return


def _opened(run: Run, record: RunRecord, attempt: int) -> Curve:
    """Open the curve on the server if there is a key, or else, or if the server fails, on disk."""
    why = why_offline()
    if not why:
        try:
            opened = Curve(record, online=True, watched_pid=os.getppid())
        except ServerError as error:
            why = str(error)
        else:
            offline_logs.say(run, attempt, mode="online", why="", url=opened.url)
            return opened
    offline_logs.say(run, attempt, mode="offline", why=why, url=None)
    return Curve(record, online=False, watched_pid=os.getppid())


def _last_epoch(run: Run, attempt: int) -> int:
    return max((segment.epoch for segment in offline_logs.gone_on_from(run, attempt)), default=NO_EPOCH)


class _Follower:
    """Logs each row once."""

    def __init__(self, run: Run, attempt: int, opened: Curve, logged: int) -> None:
        self._run, self._attempt, self._curve = run, attempt, opened
        self._logged, self._to_disk = logged, NO_EPOCH
        self._seen: Progress | None = None

    def look(self) -> None:
        """Log what is new, and keep it."""
        progress = read_progress(self._run)
        if progress.checkpoint is None or (self._seen and progress.checkpoint == self._seen.checkpoint):
            return
        self._run.require_current(self._attempt)
        for row in rows_after(progress, self._logged):
            self._logged = self._to_disk = int(row[AXIS])
            self._curve.log(row | {"attempt": self._attempt})
        self._seen = progress
        self.keep()

    def keep(self) -> None:
        """Bring the log on disk to the bucket, as far as the newest checkpoint that was seen."""
        if self._seen is None or self._seen.checkpoint is None:
            return
        until = time.monotonic() + ON_DISK_S
        while self._to_disk != NO_EPOCH and not self._curve.holds(self._to_disk):
            if time.monotonic() > until:
                return
            time.sleep(LOOK_S)
        place = self._seen.checkpoint
        offline_logs.save(
            self._run, offline_logs.Segment(self._attempt, place.epoch, place.batch), self._curve.log_file
        )
