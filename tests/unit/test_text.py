"""Quantities in words."""

import pytest

from job.text import dollars, duration, percent, seconds_between


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (8.44, "8.4 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (18420, "5 h 07 min"),
        (5_000_000, "1,388 h 53 min"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(seconds, said):
    """Seconds become what a person would say, and never 60 of anything."""
    assert duration(seconds) == said


def test_small_amounts_keep_their_digits():
    """Less than a dollar is told to a hundredth of a cent, a share as percent."""
    assert (dollars(12.4), dollars(1234.5), dollars(0.0031), dollars(0)) == ("$12.40", "$1,234.50", "$0.0031", "$0.00")
    assert percent(0.6834) == "68.3 %"


def test_the_time_between_two_records_is_never_negative():
    """Where a clock was set back between two records nothing has passed, in whatever zone they were written."""
    earlier, later = "2026-11-23T10:00:00.000+00:00", "2026-11-23T11:00:01.500+01:00"
    assert (seconds_between(earlier, later), seconds_between(later, earlier)) == (1.5, 0.0)
