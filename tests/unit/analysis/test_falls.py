"""Falls of F1: which ones are reported, with which cause and remedy."""

import pytest

from job.analysis.falls import Fall, Schedule, find_falls
from tests.support.bucket_records import USERS_COURSE, recorded

DEMO = (0.399, 0.487, 0.405, 0.479, 0.329, 0.515, 0.453, 0.446, 0.493, 0.511, 0.555, 0.521, 0.478, 0.485)
"""F1 after each epoch of the demo of A, whose start weights have 37.6 %."""


@pytest.mark.parametrize(
    ("curve", "before", "falls"),
    [
        (DEMO, 0.376, []),
        *((DEMO[:number], 0.376, []) for number in range(1, 12)),
        (USERS_COURSE, 0.58, []),
        ((0.53, 0.6), 0.58, [Fall(1, 0, 0.58, 0.53, 2)]),
        ((0.531, 0.6), 0.58, []),
        ((0.55, 0.2, 0.4, 0.5), 0.58, [Fall(2, 0, 0.58, 0.2, None)]),
        ((0.6, 0.5, 0.6), 0.58, []),
        ((0.6, 0.29, 0.7), 0.58, [Fall(2, 1, 0.6, 0.29, 3)]),
        ((0.09, 0.01, 0.2), 0.0, []),
        ((0.1, 0.01), None, [Fall(2, 1, 0.1, 0.01, None)]),
        ((), 0.58, []),
    ],
)
def test_a_fall_below_the_start_or_to_half_of_the_best_is_told(curve, before, falls):
    """From 5 points below the start weights on, or below half of the best; what scatters between is left alone."""
    assert find_falls(curve, before) == falls


def test_a_run_of_an_older_version_has_no_rate():
    """Where the automatic rate was not recorded, cause and remedy do without the number."""
    schedule = Schedule.of(recorded("A", epochs=80).record)
    assert schedule.cause(4) == "the warm-up restarts the learning rate, in the first 3 epochs"
    assert schedule.cause(5) == "the learning rate may be too high"
    assert schedule.remedy == "--optimizer AdamW a smaller --lr0 --warmup-bias-lr 0"


def test_without_a_warm_up_it_is_no_cause():
    """A run without a warm-up, and one of a single epoch, have the rate itself as the cause."""
    for schedule in (
        Schedule.of(recorded("A", warmup_epochs=0.0, epochs=80).record),
        Schedule.of(recorded("A").record),
    ):
        assert schedule.cause(1) == "the learning rate may be too high"
