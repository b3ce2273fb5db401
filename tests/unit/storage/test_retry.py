"""Trying again what failed for a passing reason, on a clock of the test's own."""

import pytest

from job.errors import (
    BucketNotFoundError,
    CorruptObjectError,
    ObjectNotFoundError,
    PreconditionError,
    TransientStoreError,
)
from job.storage import retry
from job.storage.retry import RetryableError, retried


class Clock:
    """A clock on which time passes by sleeping alone."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        """Return the time."""
        return self.now

    def sleep(self, seconds):
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock of the retries."""
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def test_it_is_tried_until_the_deadline_and_not_beyond(clock):
    """An operation that keeps failing is retried until the deadline; the message has the real duration."""
    tried_at = []

    def fail(left_s):
        tried_at.append(clock.now - 1000)
        assert left_s == 120 - tried_at[-1]
        raise RetryableError("bucket", "broke")

    with pytest.raises(TransientStoreError, match=r"bucket: broke, and kept failing for 1[012]\d s; try again later"):
        retried(fail, 120)
    assert 105 < tried_at[-1] <= 120
    assert len(tried_at) > 10


def test_the_deadline_counts_from_the_first_failure(clock):
    """A transfer that took longer than the deadline before it failed is tried again."""
    num_tried = 0

    def upload(_left_s):
        nonlocal num_tried
        num_tried += 1
        clock.sleep(300)
        if num_tried == 1:
            raise RetryableError("bucket", "broke")
        return "done"

    assert retried(upload, 120) == "done"


@pytest.mark.parametrize("doubted", [CorruptObjectError, ObjectNotFoundError, BucketNotFoundError])
def test_damage_and_absence_are_looked_at_twice(clock, doubted):
    """An object, or a bucket, that is damaged or absent once is looked at again at once, and twice, it is."""
    outcomes = [doubted("doubted"), "whole"]

    def read(_left_s):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert retried(read, 0) == "whole"
    outcomes[:] = [doubted("doubted"), doubted("doubted"), "whole"]
    with pytest.raises(doubted):
        retried(read, 120)
    assert (outcomes, clock.now) == (["whole"], 1000)


def test_what_does_not_pass_is_not_tried_again(clock):
    """Any other error is raised at once."""
    calls = []

    def look(_left_s):
        calls.append(clock.now)
        raise PreconditionError("taken")

    with pytest.raises(PreconditionError):
        retried(look, 120)
    assert len(calls) == 1
