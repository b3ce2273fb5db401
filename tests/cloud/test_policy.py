"""The supervisor's decisions where time and money are in play: pure values in, a decision out."""

import dataclasses
import random
from datetime import UTC, datetime, timedelta

import pytest

from job.checkpoint import CheckpointId
from job.cloud.cost import MIN_RUN_S, durations_within, worst_usd
from job.cloud.history import Attempt, BatchJob, History, SegmentSeen
from job.cloud.policy import decide
from job.errors import RunStoppedError
from tests.cloud.conftest import OTHER_REGION
from tests.cloud.test_spec import make_segment

START = datetime(2026, 12, 1, tzinfo=UTC)


def job(state="RUNNING", **changes):
    """Return a job that got its machine at once."""
    values = {
        "uid": "u",
        "state": state,
        "scheduled_at": START,
        "waiting_since": None,
        "ended_at": START + timedelta(hours=1) if state in {"FAILED", "SUCCEEDED", "CANCELLED"} else None,
        "exit_codes": (),
        "last_event": "",
    }
    return BatchJob(**(values | changes))


@pytest.fixture
def segment(settings):
    """A first segment on an L4, with another region to go to and a price."""
    made = make_segment("A", "g2-standard-8", created_at=START.isoformat(), usd_per_hour=0.35)
    return dataclasses.replace(made, settings=dataclasses.replace(made.settings, other_regions=OTHER_REGION))


def history(segment, seen=None, hours=1.0, **changes):
    """Return what is known some hours after the start, of one segment."""
    segments = (SegmentSeen(segment=segment, made=True, job=seen or job()),)
    values = {"run": segment.run, "now": START + timedelta(hours=hours), "segments": segments, "num_epochs": 10}
    return History(**(values | changes))


def attempt(segment, number=1, **changes):
    """Return an attempt of the segment that claimed the run at the start."""
    values = {
        "number": number,
        "job": segment.job_id,
        "host": "vm",
        "claimed_at": START,
        "ended_at": None,
        "reason": "running",
        "exit_code": None,
        "message": "",
        "position": None,
    }
    return Attempt(**(values | changes))


def at_epoch(segment, epoch, hours):
    """Return what is known of a run that has taken so long for so many epochs."""
    return {
        "attempts": (attempt(segment),),
        "committed": CheckpointId(epoch, 0, 1),
        "committed_at": START + timedelta(hours=hours),
    }


@pytest.mark.parametrize(("due_h", "do"), [(9.0, "wait"), (5.5, "wait"), (4.7, "submit"), (2.0, "submit")])
def test_a_deadline_is_measured_at_the_pace_so_far(segment, due_h, do):
    """Five epochs in two hours leave two more; with a start and a reserve of 45 minutes, on demand comes later than
    2.75 hours before the deadline and not before.
    """
    known = history(segment, hours=2.0, deadline=START + timedelta(hours=due_h), **at_epoch(segment, 5, 2.0))
    decision = decide(known)
    assert decision.do == do
    if do == "submit":
        assert not decision.placement.spot


def test_an_unknown_pace_may_wait_half_of_the_time(segment):
    """With nothing committed and nothing expected, Spot gets half of the time until the deadline."""
    due = START + timedelta(hours=10)
    assert decide(history(segment, hours=4.0, deadline=due)).do == "wait"
    assert decide(history(segment, hours=5.0, deadline=due)).do == "submit"


def test_before_the_first_epoch_the_recipe_s_hours_count(segment):
    """What the recipe expects stands in for a pace that is not known yet."""
    due = START + timedelta(hours=10)
    assert decide(history(segment, hours=0.5, deadline=due, expected_s=8 * 3600)).do == "wait"
    assert decide(history(segment, hours=2.0, deadline=due, expected_s=8 * 3600)).do == "submit"


def test_lost_work_and_starts_count_in_the_pace(segment):
    """Time that preempted attempts took is part of what an epoch takes."""
    attempts = (
        attempt(segment, 1, reason="vanished"),
        attempt(segment, 2, claimed_at=START + timedelta(hours=3)),
    )
    known = history(
        segment, attempts=attempts, committed=CheckpointId(2, 0, 2), committed_at=START + timedelta(hours=4)
    )
    assert known.remaining_s == 4 / 2 * 8 * 3600


def test_a_machine_that_is_spot_only_is_left_for_another_at_the_deadline(segment):
    """On demand goes to the first machine of the list that can be had so; if there is none, Spot goes on."""
    spot_only = dataclasses.replace(
        segment,
        machines=["a3-highgpu-1g", "g2-standard-8"],
        placement=dataclasses.replace(segment.placement, machine="a3-highgpu-1g"),
    )
    late = {"hours": 9.0, "deadline": START + timedelta(hours=10)}
    assert decide(history(spot_only, **late)).placement.machine == "g2-standard-8"
    assert decide(history(dataclasses.replace(spot_only, machines=["a3-highgpu-1g"]), **late)).do == "wait"


def test_a_deadline_does_not_break_the_limit(segment):
    """On demand is not taken if what is left does not pay for the rest of the work: the run goes on as it is."""
    due = START + timedelta(hours=10)
    assert decide(history(segment, hours=9.0, deadline=due, max_usd=3.5)).do == "wait"
    half = at_epoch(segment, 5, 9.0)
    assert decide(history(segment, hours=9.0, deadline=due, max_usd=10.0, **half)).do == "wait"
    assert decide(history(segment, hours=9.0, deadline=due, max_usd=20.0, **half)).do == "submit"


@pytest.mark.parametrize(("minutes", "do"), [(19, "wait"), (21, "submit")])
@pytest.mark.parametrize("state", ["QUEUED", "SCHEDULED", "RUNNING"])
def test_another_place_is_asked_after_20_minutes_without_a_machine(segment, state, minutes, do):
    """Waiting counts before the first machine and after a preemption alike."""
    waiting = job(state, waiting_since=START + timedelta(hours=1) - timedelta(minutes=minutes))
    decision = decide(history(segment, waiting))
    assert decision.do == do
    if do == "submit":
        assert decision.placement.region == "us-east1"


def test_places_are_asked_in_turn_and_from_the_start_again(segment):
    """Each machine in each region comes once, then the first again."""
    segment = dataclasses.replace(segment, machines=["g2-standard-8", "a2-highgpu-1g"])
    seen = []
    for _ in range(5):
        seen.append((segment.placement.machine, segment.placement.region))
        waiting = job("QUEUED", scheduled_at=None, waiting_since=START)
        segment = dataclasses.replace(segment, placement=decide(history(segment, waiting)).placement)
    assert len(set(seen)) == 4
    assert seen[4] == seen[0]


def test_with_one_place_it_waits(segment):
    """Where there is nowhere else to go, a queued job is left in its place in the queue."""
    alone = dataclasses.replace(segment, settings=dataclasses.replace(segment.settings, other_regions={}))
    assert decide(history(alone, job("QUEUED", scheduled_at=None, waiting_since=START), hours=30)).do == "wait"


@pytest.mark.parametrize("seed", range(40))
def test_the_worst_case_of_a_segment_is_within_what_is_left(seed):
    """Whatever is left and whatever an hour costs, a segment's retries and times cannot cost more."""
    random_ = random.Random(seed)  # noqa: S311 -- a test's numbers
    left, price = random_.uniform(0.01, 200), random_.uniform(0.05, 30)
    try:
        retries, run_s = durations_within(left, price)
    except RunStoppedError:
        assert worst_usd(0, MIN_RUN_S, price) > left
    else:
        assert worst_usd(retries, run_s, price) <= left
        assert run_s >= MIN_RUN_S


def test_a_chain_of_segments_stays_within_the_limit(segment):
    """Each next segment's worst case and all that was spent are within the limit, until none is submitted."""
    segments, now = [], START
    segment = dataclasses.replace(segment, max_usd=5.0)
    while True:
        spent = sum(seen.usd(now) for seen in segments)
        try:
            retries, run_s = durations_within(5.0 - spent, 0.35)
        except RunStoppedError:
            break
        assert spent + worst_usd(retries, run_s, 0.35) <= 5.0
        number = len(segments) + 1
        entry = dataclasses.replace(segment, number=number, max_retries=retries, max_run_s=run_s)
        ended = now + timedelta(seconds=run_s * (retries + 1))
        segments.append(SegmentSeen(segment=entry, made=True, job=job("FAILED", scheduled_at=now, ended_at=ended)))
        now = ended
        known = History(run="r", now=now, segments=tuple(segments), max_usd=5.0)
        assert (decide(known).do == "stop") == (known.usd > 5.0 - worst_usd(0, MIN_RUN_S, 0.35))
    assert len(segments) > 1


def test_a_segment_without_trace_is_charged_in_full(segment):
    """A job that was deleted is charged as if it had run to every limit."""
    deleted = SegmentSeen(segment=segment, made=True, job=None)
    assert deleted.usd(START) == worst_usd(segment.max_retries, segment.max_run_s, 0.35)


def test_time_in_the_queue_costs_nothing(segment):
    """Machines are charged from when they were asked for, not from when the job was made."""
    queued = SegmentSeen(segment=segment, made=True, job=job("QUEUED", scheduled_at=None, waiting_since=START))
    assert queued.usd(START + timedelta(hours=40)) == 0


def test_a_run_without_a_price_has_no_cost_and_no_limit(segment):
    """Where the price is not known, cost is not claimed to be zero."""
    assert history(dataclasses.replace(segment, usd_per_hour=None)).usd is None


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELLATION_IN_PROGRESS", "DELETION_IN_PROGRESS"])
def test_a_job_that_was_ended_by_hand_is_not_replaced(segment, state):
    """Whoever cancelled it meant it."""
    assert decide(history(segment, job(state))).do == "stop"


@pytest.mark.parametrize(("state", "do"), [("RUNNING", "wait"), ("SUCCEEDED", "stop")])
def test_a_run_that_was_paused_is_left_alone(segment, state, do):
    """Once its attempt has ended as paused, a run is not started again, and has not failed."""
    attempts = (attempt(segment, reason="paused", exit_code=0),)
    assert decide(history(segment, job(state), attempts=attempts)).do == do


def test_many_preemptions_without_progress_are_no_crash(segment):
    """A storm of preemptions that Batch explains is waited out, however long it lasts."""
    attempts = tuple(attempt(segment, number, reason="vanished") for number in range(1, 9))
    assert decide(history(segment, job(exit_codes=(50001,) * 8), attempts=attempts)).do == "wait"


def test_transient_ends_are_tried_again_but_not_forever(segment):
    """A bucket that does not answer is no crash loop at once; five times without a checkpoint is."""
    attempts = tuple(
        attempt(segment, number, reason="transient", exit_code=75, message="bucket: no answer", position=(1, 0))
        for number in range(1, 6)
    )
    assert decide(history(segment, attempts=attempts[:4])).do == "wait"
    assert decide(history(segment, attempts=attempts)).do == "fail"


def test_a_hang_at_the_same_place_twice_is_a_crash_loop(segment):
    """What failed and is to be tried again is tried again, and given up when it fails alike at the same place."""
    hang = {"reason": "failed", "exit_code": 75, "message": "training: no step was done for 1800 s", "position": (1, 4)}
    elsewhere = attempt(segment, 2, **(hang | {"position": (2, 0)}))
    assert decide(history(segment, attempts=(attempt(segment, 1, **hang), elsewhere))).do == "wait"
    again = decide(history(segment, attempts=(attempt(segment, 1, **hang), elsewhere, attempt(segment, 3, **hang))))
    assert again.do == "fail"
    assert "attempts 1 and 3 ended at epoch 1, batch 4 with the same error" in again.reason
