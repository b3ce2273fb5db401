"""Commits that training waits for, so that a checkpoint after each step is one of each step, however fast they are."""

import time

from job.runs.committer import AsyncCommitter


def commit_at_once():
    """Commit each snapshot before the next step."""
    submit = AsyncCommitter.submit

    def submit_and_wait(committer, snapshot, **about):
        submit(committer, snapshot, **about)
        while not committer.is_idle:
            committer.check()
            time.sleep(0.001)

    AsyncCommitter.submit = submit_and_wait
