"""Exactness of a run: from the evidence of its attempts, not from the request."""

import pytest

from job.runs.records import Exactness
from job.runs.resume import PreviousAttempts, environment_differences, exactness, warnings_of
from tests.support.attempt_records import attempt_record
from tests.support.bucket_records import recorded

AT = "2026-11-23T10:00:{:02}.000+00:00"

KERNEL = "torch: index_put_ does not have a deterministic implementation"


def attempt(number, *, differs=(), pulse=None, end=None, claimed=0):
    """Return an attempt's records; `pulse` and `end` are the contents of heartbeat and end."""
    return attempt_record(
        {"attempt": number, "claimed_at": AT.format(claimed)},
        start={"started_at": AT.format(claimed), "differs": list(differs), "receipt": None},
        pulse=pulse and {"at": AT.format(30), **pulse},
        end=end if end is None else {"ended_at": AT.format(40), "reason": "preempted", **end},
    )


def seen(*warnings, num_ooms=0):
    """Return what an attempt says of itself."""
    return {"position": {"epoch": 1, "batch": 2}, "evidence": {"warnings": list(warnings), "num_ooms": num_ooms}}


def bits(*attempts, **train):
    """Return the exactness of a run."""
    return exactness(recorded(**train).record, attempts)


def test_a_run_of_which_nothing_is_known_against_it_is_exact():
    """Attempts that saw nothing but harmless warnings, also of an older version that recorded none, are comparable."""
    harmless = seen("ultralytics: imgsz=70 must be multiple of max stride 32, updating to 96")
    assert bits(attempt(1), attempt(2, pulse=harmless), attempt(3, end=harmless)) == Exactness(exact=True)


@pytest.mark.parametrize(
    ("against", "because"),
    [
        ({"differs": ["gpu: began with 'T4', now 'L4'"]}, "gpu: began with 'T4', now 'L4'"),
        ({"pulse": seen(KERNEL)}, KERNEL),
        ({"end": seen("numpy: overflow", KERNEL)}, KERNEL),
        ({"end": seen(num_ooms=3)}, "GPU memory: was too short 3 times"),
        ({"pulse": seen(num_ooms=1), "end": {}}, "GPU memory: was too short 1 time,"),
    ],
)
def test_exactness_follows_from_the_evidence(against, because):
    """A machine that differs, a kernel that is not deterministic, or memory that ran short, by the last record of
    it, ends the claim from that attempt on, with the reason.
    """
    found = bits(attempt(1), attempt(2, **against), attempt(3))
    assert (found.exact, found.from_attempt, len(found.because)) == (False, 2, 1)
    assert found.because[0].startswith(because)


@pytest.mark.parametrize(
    ("train", "because"),
    [
        ({"deterministic": False}, ["deterministic: is off"]),
        ({"compile": True}, ["compile: is on"]),
        ({"deterministic": False, "compile": True}, ["deterministic: is off", "compile: is on"]),
    ],
)
def test_a_run_that_trades_exactness_for_speed_is_not_exact(train, because):
    """With --deterministic false, or --compile, a run is not exact, whatever the evidence, and the record has why."""
    found = bits(attempt(1), **train)
    assert (found.exact, found.from_attempt) == (False, 1)
    assert [why.partition(",")[0] for why in found.because] == because


def test_other_pictures_are_a_difference():
    """An attempt that read other pictures than the first differs; one after an attempt that recorded none does not."""
    first, other = {"pictures": {"train": "a", "val": "b"}}, {"pictures": {"train": "a", "val": "c"}}
    assert environment_differences(first, first) == []
    assert environment_differences(first, other) == ["pictures.val: began with 'b', now 'c'"]
    assert environment_differences({"cpu": "AVX2"}, {"cpu": "AVX2"} | other) == []
    assert environment_differences({"cpu": "AVX2"}, {"cpu": "AVX2", "gpu": "L4"}) != []


def test_each_warning_is_listed_once_with_the_first_attempt():
    """Of a warning that several attempts had, the first is named."""
    attempts = attempt(1, pulse=seen("a: b")), attempt(2, end=seen("a: b", "c: d"))
    assert warnings_of(attempts) == {"a: b": 1, "c: d": 2}


def test_running_out_of_memory_is_remembered():
    """The next attempt knows that one before it ended for want of memory, by the record and not by its words."""
    assert PreviousAttempts((attempt(1, end={"error": "OutOfMemoryError"}), attempt(2))).ran_out_of_memory
    failed = {"error": "TrainingError", "message": "out of memory"}
    assert not PreviousAttempts((attempt(1), attempt(2, end={}), attempt(3, end=failed))).ran_out_of_memory
