"""What an attempt takes over: the proof that it loaded what was saved, what was lost, and who was preempted."""

import pytest

from job.checkpoint import Manifest
from job.continuity import Past, receipt
from job.errors import CorruptObjectError
from tests.support.recorded_run import at

DIGESTS = {"model": "a" * 64, "ema": "b" * 64, "optimizer": "c" * 64}


def manifest(epoch, batch, committed_s):
    """Return the manifest of a checkpoint of the first attempt."""
    return Manifest("zebra", epoch, batch, 1, at(committed_s), {"digests": DIGESTS}, ())


def attempt(number=1, *, claimed_s=0, end=None, pulse=None, stop=None):
    """Return an attempt's records: `end` is a reason, a time and a position, `pulse` a time and a position."""
    return {
        "attempt": number,
        "claimed_at": at(claimed_s),
        "start": None,
        "stop": stop,
        "end": end and {"reason": end[0], "ended_at": at(end[1]), "position": end[2]},
        "pulse": pulse and {"at": at(pulse[0]), "position": pulse[1]},
    }


def place(epoch, batch):
    """Return a position as records have it."""
    return {"epoch": epoch, "batch": batch}


@pytest.mark.parametrize("group", DIGESTS)
def test_a_state_that_did_not_load_as_it_was_saved_is_refused(group):
    """One digest that differs, of any group, ends the resumption and names the group."""
    with pytest.raises(CorruptObjectError) as raised:
        receipt(Past(()), manifest(2, 3, 60), DIGESTS | {group: "f" * 64}, 10)
    assert raised.value.problems == (f"{group}: saved {DIGESTS[group][:12]}, loaded {'f' * 12}",)


def test_a_receipt_has_what_was_saved_and_what_was_loaded():
    """The digests of both, the checkpoint and the place are in it."""
    made = receipt(Past(()), manifest(2, 3, 60), dict(DIGESTS), 10)
    assert (made["saved"], made["loaded"]) == (DIGESTS, DIGESTS)
    assert (made["run"], made["checkpoint"], made["position"]) == ("zebra", "0002-000003.a0001", place(2, 3))


@pytest.mark.parametrize(
    ("last", "steps", "seconds"),
    [
        (attempt(pulse=(100, place(3, 1))), 8, 40.0),
        (attempt(pulse=(100, place(2, 3))), 0, 40.0),
        (attempt(pulse=(50, place(2, 1))), 0, 0.0),
        (attempt(end=("failed", 90, place(2, 9))), 6, 30.0),
        (attempt(claimed_s=70, pulse=(100, place(2, 5))), 2, 30.0),
        (attempt(claimed_s=70), 0, 0.0),
    ],
)
def test_what_was_lost_is_what_came_after_the_checkpoint(last, steps, seconds):
    """Steps from the checkpoint's place to the last that is known, across epochs, and the seconds since it; never
    fewer than none.
    """
    made = receipt(Past((last,)), manifest(2, 3, 60), DIGESTS, 10)
    assert (made["steps_lost"], made["seconds_lost"]) == (steps, seconds)


def test_a_run_that_goes_on_where_another_ended_lost_nothing():
    """Without an attempt before, nothing is lost."""
    made = receipt(Past(()), manifest(2, 3, 60), DIGESTS, 10)
    assert (made["steps_lost"], made["seconds_lost"]) == (0, 0.0)


def test_only_a_machine_that_was_taken_is_a_preemption():
    """A notice and a machine that vanished count for the best interval; a person's Ctrl-C, a pause, a failure and
    another machine that took over do not.
    """
    reasons = ("preempted", "interrupted", "paused", "failed", "superseded", "finished", "transient")
    ended = [attempt(number, end=(reason, 10 * number, place(0, number)))
             for number, reason in enumerate(reasons, start=1)]  # fmt: skip
    vanished = attempt(8, pulse=(80, place(0, 8)))
    assert Past((*ended, vanished)).preempted_after_s == [10.0, 80.0]


def test_the_furthest_place_is_that_of_any_attempt():
    """An earlier attempt may have come further than the newest; without one nothing was reached."""
    past = Past((attempt(pulse=(50, place(3, 1))), attempt(2, end=("failed", 90, place(2, 9))), attempt(3)))
    assert (past.furthest, Past(()).furthest) == ((3, 1), (0, 0))


def test_a_request_to_stop_holds_until_an_attempt_has_paused_by_it():
    """The newest request counts, unless an attempt has ended as paused since."""
    asked = {"asked_at": at(5), "host": "here"}
    vanished = attempt(stop=asked)
    assert Past((vanished, attempt(2))).stop_request == asked
    paused = attempt(2, end=("paused", 20, place(0, 1)))
    assert Past((vanished, paused)).stop_request is None
    assert Past((vanished, paused, attempt(3, stop=asked))).stop_request == asked
    assert Past((attempt(),)).stop_request is None
