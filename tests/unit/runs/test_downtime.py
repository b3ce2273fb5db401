"""What the records say of the time between two attempts."""

import pytest

from job.runs.downtime import describe_downtime, downtime
from job.session import environment
from tests.unit.runs.test_cost import at, attempt

ENDED_S, BEGAN_S = 100, 400
"""Last record of the first attempt, and start of the second one's process."""

GETTING_READY = {"boot": 2.0, "pull": 20.0, "check": 5.0, "start-up": 13.0, "useful step": 60.0}


def parts(booted_at=None, image_pull_s=None):
    """Return the parts of the time between two attempts, by fields of the second one's claim."""
    first, second = (
        attempt(1, 0, pulse=(ENDED_S, {}, None)),
        attempt(2, BEGAN_S, end=(500, GETTING_READY, {"reason": "finished"})),
    )
    claim = second.claim.model_copy(update={"booted_at": booted_at, "image_pull_s": image_pull_s})
    return downtime(first, type(second)(claim, end=second.end))


@pytest.mark.parametrize(
    ("booted_at", "image_pull_s", "expected"),
    [
        (at(280), 90.0, {"queued": 180.0, "booting": 30.0, "pulling the image": 90.0, "starting": 40.0}),
        (at(280), None, {"queued": 180.0, "booting and pulling the image": 120.0, "starting": 40.0}),
        (at(280), 999.0, {"queued": 180.0, "booting": 0.0, "pulling the image": 120.0, "starting": 40.0}),
        (at(50), 90.0, {"unknown": 300.0, "starting": 40.0}),
        (None, None, {"unknown": 300.0, "starting": 40.0}),
    ],
)
def test_the_time_between_attempts_is_split_as_far_as_it_is_recorded(booted_at, image_pull_s, expected):
    """A machine that booted in between was queued for until then, while one that ran before, and a record of an older
    version, tell only how long the attempt took to start; the parts add up to the whole.
    """
    found = parts(booted_at, image_pull_s)
    assert found == expected
    assert sum(found.values()) == BEGAN_S - ENDED_S + 40.0


def test_the_parts_are_one_sentence():
    """People read the whole first, then its parts in the order of time."""
    said = describe_downtime(parts(at(280)))
    assert said == "5 min 40 s: 3 min 00 s queued, 2 min 00 s booting and pulling the image, 40.0 s starting"


def test_a_claim_says_when_its_machine_booted_and_how_long_the_image_was_pulled(monkeypatch):
    """The kernel tells the one, and the VM's boot script the other."""
    monkeypatch.delenv("JOB_IMAGE_PULL_S", raising=False)
    fields = environment.claim_fields()
    assert fields["image_pull_s"] is None
    assert fields["booted_at"] == environment.booted_at()
    monkeypatch.setenv("JOB_IMAGE_PULL_S", "95")
    assert environment.claim_fields()["image_pull_s"] == 95.0
