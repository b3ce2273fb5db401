"""The supervisor's decisions on time and money: values in, a decision out."""

import dataclasses
import random
from datetime import UTC, datetime, timedelta

import pytest

from job.cloud.budget import MIN_RUN_S, START_UP_S, Limit, durations_within, seconds_within, usd_per_hour, worst_s
from job.cloud.machine_types import Provisioning, machines
from job.cloud.policy import decide
from job.cloud.status import CANCELLING_S, Attempt, BatchJob, History, SubmissionStatus
from job.errors import FATAL, KILLED, LOST_MACHINE, TIME_LIMIT, ExitCode, RunStoppedError
from job.runs.cost import usd_of
from job.runs.records import CheckpointId, FinalRecord
from tests.cloud.conftest import OTHER_REGION
from tests.support.attempt_records import final_content
from tests.unit.cloud.test_job_spec import make_submission

START = datetime(2026, 12, 1, tzinfo=UTC)


def job(state="RUNNING", **changes):
    """Return a job that got its machine at once."""
    values = {
        "uid": "u",
        "state": state,
        "created_at": START,
        "scheduled_at": START,
        "waiting_since": None,
        "ended_at": START + timedelta(hours=1) if state in {"FAILED", "SUCCEEDED", "CANCELLED"} else None,
        "exit_codes": (),
        "last_event": "",
    }
    return BatchJob(**(values | changes))


@pytest.fixture
def submission(settings):
    """A first submission on an L4, with another region to go to and a price."""
    made = make_submission("A", "g2-standard-8", created_at=START.isoformat(), usd_per_hour=0.35)
    return dataclasses.replace(made, settings=dataclasses.replace(made.settings, other_regions=OTHER_REGION))


def seen_of(submission, found, **changes):
    """Return a submission whose job was made, with what Batch says of it."""
    values = {"submission": submission, "made": True, "job": found, "usd_per_hour": submission.usd_per_hour}
    return SubmissionStatus(**(values | changes))


def chain(submission, *jobs, attempts=(), minutes=60.0, **changes):
    """Return the history some minutes after the newest of several jobs ended, each an hour after the one before.

    Args:
        submission: The first one.
        jobs: What Batch says of each submission's job.
        attempts: Of which submission, from 1 on, and what else is known of it.
        minutes: Since the newest job ended.
        changes: Of the history.
    """
    entries = [dataclasses.replace(submission, number=number, by="hand" if number == 1 else "supervisor")
               for number in range(1, len(jobs) + 1)]  # fmt: skip
    ended = [START + timedelta(hours=number) for number in range(1, len(jobs) + 1)]
    seen = [
        seen_of(entry, dataclasses.replace(one, ended_at=end if one.over else None))
        for entry, one, end in zip(entries, jobs, ended, strict=True)
    ]
    made = [
        attempt(entries[place - 1], number, claimed_at=ended[place - 1] - timedelta(minutes=30),
                **({"ended_at": ended[place - 1]} if about.get("exit_code") else {}), **about)
        for number, (place, about) in enumerate(attempts, start=1)
    ]  # fmt: skip
    values = {"run": submission.run, "now": ended[-1] + timedelta(minutes=minutes), "num_epochs": 10}
    return History(**(values | {"submissions": tuple(seen), "attempts": tuple(made)} | changes))


def history(submission, seen=None, hours=1.0, **changes):
    """Return the history of one submission some hours after the start."""
    submissions = (seen_of(submission, seen or job()),)
    values = {
        "run": submission.run,
        "now": START + timedelta(hours=hours),
        "submissions": submissions,
        "num_epochs": 10,
    }
    return History(**(values | changes))


def attempt(submission, number=1, **changes):
    """Return an attempt of the submission that claimed the run at the start."""
    values = {
        "number": number,
        "job": submission.job_id,
        "host": "vm",
        "claimed_at": START,
        "ended_at": None,
        "reason": "running",
        "exit_code": None,
        "message": "",
        "position": None,
    }
    return Attempt(**(values | changes))


def at_epoch(submission, epoch, hours):
    """Return what is known of a run that has taken so long for so many epochs."""
    return {
        "attempts": (attempt(submission),),
        "committed": CheckpointId(epoch, 0, 1),
        "committed_at": START + timedelta(hours=hours),
    }


@pytest.mark.parametrize(("due_h", "do"), [(9.0, "wait"), (5.5, "wait"), (4.7, "submit"), (2.0, "submit")])
def test_a_deadline_is_measured_at_the_pace_so_far(submission, due_h, do):
    """Five epochs in two hours leave two more; with a start and a reserve of 45 minutes, on demand comes later than
    2.75 hours before the deadline and not before.
    """
    known = history(submission, hours=2.0, deadline=START + timedelta(hours=due_h), **at_epoch(submission, 5, 2.0))
    decision = decide(known)
    assert decision.do == do
    if do == "submit":
        assert decision.placement.provisioning is Provisioning.ON_DEMAND


def test_an_unknown_pace_may_wait_half_of_the_time(submission):
    """With nothing committed and nothing expected, Spot gets half of the time until the deadline."""
    due = START + timedelta(hours=10)
    assert decide(history(submission, hours=4.0, deadline=due)).do == "wait"
    assert decide(history(submission, hours=5.0, deadline=due)).do == "submit"


def test_before_the_first_epoch_the_recipe_s_hours_count(submission):
    """The recipe's expectation stands in for an unknown pace."""
    due = START + timedelta(hours=10)
    assert decide(history(submission, hours=0.5, deadline=due, expected_s=8 * 3600)).do == "wait"
    assert decide(history(submission, hours=2.0, deadline=due, expected_s=8 * 3600)).do == "submit"


def test_lost_work_and_starts_count_in_the_pace(submission):
    """Time that preempted attempts took is part of what an epoch takes."""
    attempts = (
        attempt(submission, 1, reason="vanished"),
        attempt(submission, 2, claimed_at=START + timedelta(hours=3)),
    )
    known = history(
        submission, attempts=attempts, committed=CheckpointId(2, 0, 2), committed_at=START + timedelta(hours=4)
    )
    assert known.remaining_s == 4 / 2 * 8 * 3600


def test_a_clock_that_was_set_back_makes_no_pace(submission):
    """Attempts whose records come from the past took no time, so that the rest never takes less than none."""
    about = at_epoch(submission, 2, hours=-3)
    assert history(submission, **about).remaining_s == 0.0
    earlier = attempt(submission, 1, ended_at=START - timedelta(hours=5))
    known = history(submission, **about | {"attempts": (earlier,), "committed": CheckpointId(2, 0, 2)})
    assert known.remaining_s == 0.0


def test_a_machine_that_is_spot_only_is_left_for_another_at_the_deadline(submission):
    """On demand goes to the first machine of the list that can be had so; if there is none, a Spot machine is kept."""
    spot_only = dataclasses.replace(
        submission,
        machines=["a3-highgpu-1g", "g2-standard-8"],
        placement=dataclasses.replace(submission.placement, machine="a3-highgpu-1g"),
    )
    late = {"hours": 9.0, "deadline": START + timedelta(hours=10)}
    assert decide(history(spot_only, **late)).placement.machine == "g2-standard-8"
    assert decide(history(dataclasses.replace(spot_only, machines=["a3-highgpu-1g"]), **late)).do == "wait"


def test_a_deadline_does_not_break_the_limit(submission):
    """On demand is not taken if the rest of the limit does not pay for the rest of the work: the run stays on Spot."""
    due = START + timedelta(hours=10)
    assert decide(history(submission, hours=9.0, deadline=due, limit=Limit(usd=3.5))).do == "wait"
    half = at_epoch(submission, 5, 9.0)
    assert decide(history(submission, hours=9.0, deadline=due, limit=Limit(usd=10.0), **half)).do == "wait"
    assert decide(history(submission, hours=9.0, deadline=due, limit=Limit(usd=20.0), **half)).do == "submit"


@pytest.mark.parametrize(("minutes", "do"), [(19, "wait"), (21, "submit")])
@pytest.mark.parametrize("state", ["QUEUED", "SCHEDULED", "RUNNING"])
def test_another_place_is_asked_after_20_minutes_without_a_machine(submission, state, minutes, do):
    """Waiting counts before the first machine and after a preemption alike."""
    waiting = job(state, waiting_since=START + timedelta(hours=1) - timedelta(minutes=minutes))
    decision = decide(history(submission, waiting))
    assert decision.do == do
    if do == "submit":
        assert decision.placement.region == "us-east1"


def test_places_are_asked_in_turn_and_from_the_start_again(submission):
    """Each machine in each region comes once, then the first again."""
    submission = dataclasses.replace(submission, machines=["g2-standard-8", "a2-highgpu-1g"])
    seen = []
    for _ in range(5):
        seen.append((submission.placement.machine, submission.placement.region))
        waiting = job("QUEUED", scheduled_at=None, waiting_since=START)
        submission = dataclasses.replace(submission, placement=decide(history(submission, waiting)).placement)
    assert len(set(seen)) == 4
    assert seen[4] == seen[0]


def test_with_one_place_it_waits(submission):
    """Where there is nowhere else to go, a queued job is left in its place in the queue."""
    alone = dataclasses.replace(submission, settings=dataclasses.replace(submission.settings, other_regions={}))
    assert decide(history(alone, job("QUEUED", scheduled_at=None, waiting_since=START), hours=30)).do == "wait"


@pytest.mark.parametrize("seed", range(40))
def test_the_worst_case_of_a_submission_is_within_what_is_left(seed):
    """For any rest of the limit, in dollars or hours, and any price, a submission's retries and times cannot take
    more, and an attempt is long enough to be worth its start.
    """
    random_ = random.Random(seed)  # noqa: S311 -- a test's numbers
    left, price = random_.uniform(0.01, 200), random_.uniform(0.05, 30)
    for limit, taken in (
        (Limit(usd=left), lambda seconds: usd_of([(seconds, price)])),
        (Limit(hours=left), lambda seconds: seconds / 3600),
    ):
        try:
            retries, run_s = durations_within(limit, price)
        except RunStoppedError:
            assert taken(worst_s(0, MIN_RUN_S)) > left
        else:
            assert taken(worst_s(retries, run_s)) <= left
            assert run_s >= MIN_RUN_S


@pytest.mark.parametrize(
    ("limit", "price", "retries", "hours"),
    [
        (Limit(), None, 10, 48),
        (Limit(usd=50.0), 0.35, 10, 12.7),
        (Limit(hours=48.0), None, 3, 11.75),
        (Limit(usd=1.0), 0.35, 2, 0.7),
        (Limit(usd=1000.0), 0.35, 10, 48),
    ],
)
def test_a_limit_buys_many_attempts_if_each_is_long_enough(limit, price, retries, hours):
    """Ten retries as long as each attempt may take half a day, then fewer so that each may be longer."""
    found_retries, run_s = durations_within(limit, price)
    assert (found_retries, round(run_s / 3600, 2)) == (retries, pytest.approx(hours, abs=0.05))


@pytest.mark.parametrize("left", [Limit(usd=-3.0), Limit(hours=-3.0), Limit(usd=0.0), Limit(hours=0.0)])
def test_a_limit_that_is_overspent_leaves_no_time(left):
    """Time within the rest of a limit is 0 and never negative, in dollars and in hours."""
    assert seconds_within(left, 0.35) == 0.0


def test_a_chain_of_submissions_stays_within_the_limit(submission):
    """Each next submission's worst case and all that was spent are within the limit, until none is submitted."""
    submissions, now, limit = [], START, Limit(usd=5.0)
    submission = dataclasses.replace(submission, max_usd=5.0)
    while True:
        known = History(run="r", now=now, submissions=tuple(submissions), limit=limit)
        spent = known.worst_usd(going_on=False)
        try:
            retries, run_s = durations_within(Limit(usd=5.0 - spent), 0.35)
        except RunStoppedError:
            break
        number = len(submissions) + 1
        entry = dataclasses.replace(submission, number=number, max_retries=retries, max_run_s=run_s)
        ended = now + timedelta(seconds=run_s * (retries + 1))
        begun = History(
            run="r", now=now, submissions=(*submissions, seen_of(entry, job(scheduled_at=now))), limit=limit
        )
        assert begun.worst_usd(going_on=True) <= 5.0
        submissions.append(seen_of(entry, job("FAILED", scheduled_at=now, ended_at=ended, exit_codes=(50001,))))
        now = ended
        known = History(
            run="r", now=now + timedelta(hours=2), submissions=tuple(submissions), limit=limit,
            attempts=tuple(attempt(one.submission, one.submission.number) for one in submissions),
            committed=CheckpointId(1, 0, number),
        )  # fmt: skip
        affordable = known.worst_usd(going_on=False) <= 5.0 - usd_of([(worst_s(0, MIN_RUN_S), 0.35)])
        assert (decide(known).do == "submit") == affordable
    assert len(submissions) > 1


def test_the_worst_of_a_job_is_all_its_limits_and_of_a_cancelled_one_what_it_has_run(submission):
    """Future cost follows from the past: a live job runs to its limits, or is cancelled within minutes; one
    that is over has run from the first request to its end.
    """
    worst = worst_s(submission.max_retries, submission.max_run_s)
    live, over, queued = job(), job("FAILED"), job("QUEUED", scheduled_at=None, waiting_since=START)
    later = START + timedelta(hours=5)
    assert seen_of(submission, live).worst_s(later, going_on=True) == worst
    assert seen_of(submission, live).worst_s(later, going_on=False) == 5 * 3600 + CANCELLING_S
    assert seen_of(submission, over).worst_s(later, going_on=True) == 3600
    assert seen_of(submission, queued).worst_s(later, going_on=False) == 0
    assert seen_of(submission, queued).worst_s(later, going_on=True) == worst
    assert seen_of(submission, None).worst_s(later, going_on=False) == worst  # it was deleted
    assert seen_of(submission, None, made=False).worst_s(later, going_on=False) == 0
    assert seen_of(submission, None, made=False).worst_s(later, going_on=True) == worst
    waited = dataclasses.replace(submission, max_retries=0, max_run_s=600)  # most of the hour there was no machine
    assert seen_of(waited, over).worst_s(later, going_on=True) == worst_s(0, 600)


def test_the_worst_is_unknown_where_one_price_is(submission):
    """Where a price is not known dollars are not claimed to be few, and hours are still counted."""
    first = dataclasses.replace(submission, usd_per_hour=None)
    known = History(run="r", now=START, submissions=(seen_of(first, job("FAILED")), seen_of(submission, job("FAILED"))))
    assert known.worst_usd(going_on=True) is None
    assert known.worst_hours(going_on=True) == 2


def test_a_price_of_nothing_is_a_price():
    """A machine that costs its user nothing is not reckoned at the list's price."""
    free = {"g2-standard-8": {"spot": 0.0}}
    assert usd_per_hour(free, "g2-standard-8", Provisioning.SPOT) == 0
    on_demand = machines()["g2-standard-8"].usd_per_hour(Provisioning.ON_DEMAND)
    assert usd_per_hour(free, "g2-standard-8", Provisioning.ON_DEMAND) == on_demand != 0


def test_unknown_dollars_are_not_spent(submission):
    """Where dollars are limited and the price of one of the machines is not known, the run is stopped."""
    known = seen_of(dataclasses.replace(submission, number=2), job())
    unknown = seen_of(submission, job("FAILED"), usd_per_hour=None)
    for submissions in ((unknown, known), (dataclasses.replace(unknown, job=job()),)):
        history = History(run="zebra", now=START + timedelta(hours=2), submissions=submissions, limit=Limit(usd=50.0))
        decision = decide(history)
        assert (decision.do, "a machine of the run has no price" in decision.reason) == ("stop", True)


def test_a_limit_of_hours_is_kept_as_one_of_dollars(submission):
    """On a machine without a price the next submission fits into the hours left, and none is made without any."""
    alone = dataclasses.replace(submission, usd_per_hour=None, machines=["a2-highgpu-1g"])
    alone = dataclasses.replace(
        alone, placement=dataclasses.replace(alone.placement, machine="a2-highgpu-1g"), max_hours=48.0
    )
    taken = job("FAILED", scheduled_at=START - timedelta(hours=40), exit_codes=(50001,))
    known = chain(alone, taken, attempts=[(1, {"reason": "vanished"})], limit=Limit(hours=48.0))
    assert known.worst_hours(going_on=False) == 41
    assert decide(known).do == "submit"
    decision = decide(dataclasses.replace(known, limit=Limit(hours=41.5)))
    assert decision.do == "stop"
    assert "0.50 machine hours are left" in decision.reason


def test_a_recorded_submission_is_not_made_beyond_the_limit(submission):
    """A record that another one wrote, or that is made late, is held against the limit like what is made at once."""
    recorded = seen_of(dataclasses.replace(submission, number=2, by="supervisor"), None, made=False)
    ended = seen_of(submission, job("FAILED"))
    known = History(run="r", now=START + timedelta(hours=1), submissions=(ended, recorded), limit=Limit(usd=50.0))
    decision = decide(known)
    assert (decision.do, "could take the cost to 186.1" in decision.reason) == ("stop", True)
    assert decide(dataclasses.replace(known, limit=Limit(usd=200.0))).do == "create"
    exactly = round(known.worst_usd(going_on=True), 6)
    assert decide(dataclasses.replace(known, limit=Limit(usd=exactly))).do == "create"


def test_a_finished_run_gets_no_job(submission):
    """A submission that was only recorded when the run finished is not made."""
    known = history(submission, submissions=(seen_of(submission, None, made=False),))
    assert decide(known).do == "create"
    final = FinalRecord.model_validate(final_content(finished_at=START.isoformat()))
    assert decide(dataclasses.replace(known, final=final)).do == "finish"


def test_a_job_runs_until_its_past_cost_passes_a_limit(submission):
    """A limit that was lowered ends a job by what it costs if it is cancelled now, not by all that it could cost."""
    known = history(submission, hours=5.0, limit=Limit(usd=2.0))
    assert known.worst_usd(going_on=True) > 100
    assert decide(known).do == "wait"
    assert decide(dataclasses.replace(known, limit=Limit(usd=1.8))).do == "stop"


@pytest.mark.parametrize(("minutes", "do"), [(-1, "wait"), (0, "wait"), (1, "stop")])
def test_a_run_that_another_machine_claimed_is_left_to_it_by_the_policy(submission, minutes, do):
    """An attempt of no job that has claimed the run since it was submitted keeps it; one of before does not."""
    there = attempt(submission, job=None, host="desk", claimed_at=START + timedelta(minutes=minutes))
    assert decide(history(submission, attempts=(there,))).do == do


def test_success_without_a_final_record_is_none(submission):
    """A success of Batch is a failure if the run is not finished by its records."""
    assert decide(history(submission, job("SUCCEEDED"))).do == "fail"


@pytest.mark.parametrize(("codes", "do"), [((139, 65), "fail"), ((65, 139), "submit")])
def test_of_ends_that_nothing_recorded_the_last_one_decides(submission, codes, do):
    """Batch lists the oldest first; the newest decides."""
    attempts = (attempt(submission, reason="vanished"), attempt(submission, 2, reason="vanished"))
    assert decide(history(submission, job("FAILED", exit_codes=codes), hours=9.0, attempts=attempts)).do == do


def test_a_job_with_a_fatal_end_is_waited_for(submission):
    """Batch fails the job by itself, and until then it is not given up."""
    attempts = (attempt(submission, reason="failed", exit_code=65, message="data: broken", ended_at=START),)
    assert decide(history(submission, attempts=attempts)).do == "wait"
    assert decide(history(submission, job("FAILED", exit_codes=(65,)), attempts=attempts)).do == "fail"


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELLATION_IN_PROGRESS", "DELETION_IN_PROGRESS"])
def test_a_job_that_was_ended_by_hand_is_not_replaced(submission, state):
    """A cancellation by hand stops the run."""
    assert decide(history(submission, job(state))).do == "stop"


@pytest.mark.parametrize(("state", "do"), [("RUNNING", "wait"), ("SUCCEEDED", "stop")])
def test_a_paused_run_is_not_started_again(submission, state, do):
    """Once its attempt has ended as paused, a run is not started again, and has not failed."""
    attempts = (attempt(submission, reason="paused", exit_code=0),)
    assert decide(history(submission, job(state), attempts=attempts)).do == do


def test_many_preemptions_without_progress_are_no_crash(submission):
    """A storm of preemptions that Batch explains is waited out, however long it lasts."""
    attempts = tuple(attempt(submission, number, reason="vanished") for number in range(1, 9))
    assert decide(history(submission, job(exit_codes=(50001,) * 8), attempts=attempts)).do == "wait"


def test_transient_ends_are_tried_again_but_not_forever(submission):
    """A bucket that does not answer is no crash loop at once; five times without a checkpoint is."""
    attempts = tuple(
        attempt(submission, number, reason="transient", exit_code=75, message="bucket: no answer", position=(1, 0))
        for number in range(1, 6)
    )
    assert decide(history(submission, attempts=attempts[:4])).do == "wait"
    assert decide(history(submission, attempts=attempts)).do == "fail"


def test_a_hang_at_the_same_place_twice_is_a_crash_loop(submission):
    """A failure that may pass is tried again, and given up when it recurs at the same position."""
    hang = {"reason": "failed", "exit_code": 75, "message": "training: no step was done for 1800 s", "position": (1, 4)}
    elsewhere = attempt(submission, 2, **(hang | {"position": (2, 0)}))
    assert decide(history(submission, attempts=(attempt(submission, 1, **hang), elsewhere))).do == "wait"
    again = decide(
        history(submission, attempts=(attempt(submission, 1, **hang), elsewhere, attempt(submission, 3, **hang)))
    )
    assert again.do == "fail"
    assert "attempts 1 and 3 ended at epoch 1, batch 4 with the same error" in again.reason


@pytest.mark.parametrize(
    "text",
    [
        "training: loader process or shared memory, DataLoader worker (pid {}) is killed by signal: Killed.",
        "training: loader process or shared memory, unable to open file </torch_{0}_93{0}_4> in read-write mode",
        "run zebra: failed by FileNotFoundError: work/runs/zebra-{0}ab/run/results.csv, a defect of the program",
        "run zebra: failed by TypeError: <Thing object at 0x7f{}c0>, a defect of the program",
    ],
)
def test_numbers_that_differ_each_time_hide_no_crash_loop(submission, text):
    """The number of a process, an address or the name of a scratch folder makes no other error of the same one, and
    two attempts with it at the same position are a crash loop; other words, or another position, are none.
    """
    crash = {"reason": "failed", "exit_code": 75, "position": (1, 4), "message": text.format(1434)}

    def after(**changes):
        second = attempt(submission, 2, **(crash | changes))
        return decide(history(submission, attempts=(attempt(submission, 1, **crash), second)))

    again = after(message=text.format(20977))
    assert again.do == "fail"
    assert "attempts 1 and 2 ended at epoch 1, batch 4 with the same error" in again.reason
    assert "20977" in again.reason
    assert after(message=text.format(20977), position=(1, 5)).do == "wait"
    assert after(message="training: GPU or connection that failed, ECC error").do == "wait"


MISSING = "run zebra: failed by FileNotFoundError: [Errno 2] No such file or directory: '{}' (loop.py:7), a defect"


@pytest.mark.parametrize(
    ("one", "other", "do"),
    [
        ("work/runs/zebra-abcdefab/run/results.csv", "work/runs/zebra-fedcbafe/run/results.csv", "fail"),
        ("work/runs/zebra-abcdefab/run/results.csv", "work/runs/zebra-1b2c3d4e/run/results.csv", "fail"),
        ("/work/runs/zebra-abcdefab", "/work/runs/zebra-1b2c3d4e", "fail"),
        ("/scratch/tmpqwertzui", "/scratch/tmpa_b1c2d3", "fail"),
        ("/scratch/pymp-qwertzui/listener-asdfghjk", "/scratch/pymp-qwertzux/listener-yxcvbnmk", "fail"),
        ("work/runs/zebra-abcdefab/run/results.csv", "work/runs/zebra-abcdefab/run/labels.jpg", "wait"),
        ("/scratch/tmpqwertzui", "/work/images/a.jpg", "wait"),
    ],
)
def test_a_scratch_name_without_a_digit_hides_no_crash_loop(submission, one, other, do):
    """Folders, and names that chance has made of letters alone, make no other error of the same one; another file is
    another error.
    """
    crash = {"reason": "failed", "exit_code": 75, "position": (1, 4)}
    attempts = (
        attempt(submission, 1, **crash, message=MISSING.format(one)),
        attempt(submission, 2, **crash, message=MISSING.format(other)),
    )
    assert decide(history(submission, attempts=attempts)).do == do


BROKEN = "Batch Error: code - CODE_GCE_INVALID_FIELD_VALUE, description - No zone supports all of the templates"


@pytest.mark.parametrize("num_jobs", [1, 2, 3, 50, 999])
def test_jobs_that_never_begin_are_made_three_times_and_explained(submission, num_jobs):
    """After three jobs in a row without an attempt the run is given up with Batch's own words, not resubmitted."""
    decision = decide(chain(submission, *[job("FAILED", last_event=BROKEN)] * num_jobs))
    assert decision.do == ("submit" if num_jobs < 3 else "fail")
    if num_jobs >= 3:
        assert (
            f"{num_jobs} jobs in a row failed without an attempt; Batch says of the last: {BROKEN}" in decision.reason
        )


def in_queue(hours, **changes):
    """Return a job that Batch failed in its queue, hours after it was made as the first of a `chain`."""
    made_at = START + timedelta(hours=1 - hours)
    return job("FAILED", created_at=made_at, scheduled_at=None, last_event="no machine was free", **changes)


@pytest.mark.parametrize("num_jobs", [1, 3, 50])
def test_a_queue_without_a_machine_shows_nothing_of_the_run(submission, num_jobs):
    """What flex-start's queue has given up is queued again, at the next place and for nothing, after a pause."""
    flex = on(submission, "a2-highgpu-1g", Provisioning.FLEX_START)
    known = chain(flex, *[in_queue(48)] * num_jobs)
    decision = decide(known)
    assert (decision.do, decision.placement.region) == ("submit", "us-east1")
    assert decision.placement.provisioning is Provisioning.FLEX_START
    assert decision.reason == "no machine came in its longest time in the queue"
    assert known.worst_hours(going_on=True) == 0
    assert decide(dataclasses.replace(known, now=known.newest.job.ended_at)).do == "wait"


def test_a_job_that_the_queue_refuses_is_in_vain(submission):
    """A flex-start job that fails within minutes, and one of Spot that waited as long, are given up after three."""
    flex = on(submission, "a2-highgpu-1g", Provisioning.FLEX_START)
    refused = [in_queue(0.1, ended_at=START)] * 3
    assert decide(chain(flex, *refused)).do == "fail"
    assert decide(chain(submission, *[in_queue(48)] * 3)).do == "fail"


@pytest.mark.parametrize(("codes", "most"), [((50001,), 29), ((50001,) * 4, 7), ((50001,) * 11, 2)])
def test_machines_that_were_all_preempted_show_nothing_of_the_run(submission, codes, most):
    """A job whose machines were taken before an attempt claimed the run is made again, until 30 in a row were taken or
    the limit is reached.
    """
    taken = job("FAILED", exit_codes=codes)
    assert decide(chain(submission, *[taken] * most)).do == "submit"
    decision = decide(chain(submission, *[taken] * (most + 1)))
    assert (decision.do, "machines in a row were preempted before an" in decision.reason) == ("stop", True)
    begun = chain(submission, *[taken] * (most + 1), attempts=[(most, {"reason": "vanished"})])
    assert decide(begun).do == "submit"
    decision = decide(chain(submission, taken, taken, limit=Limit(usd=1.0)))  # each had its machine for an hour or two
    assert (decision.do, "USD are left" in decision.reason) == ("stop", True)


def test_what_shows_nothing_of_the_run_does_not_hide_jobs_in_vain(submission):
    """A row of jobs in vain goes on behind one that had no chance, one whose machine lost the race to report among
    them, and which is no reason to give up itself.
    """
    vain, taken, unfit = job("FAILED"), job("FAILED", exit_codes=(50001, 137)), job("FAILED", exit_codes=(78,))
    assert decide(chain(submission, vain, taken, vain, taken)).do == "submit"
    assert decide(chain(submission, vain, taken, vain, taken, vain)).do == "fail"
    assert decide(chain(submission, unfit, unfit, unfit, taken)).do == "submit"
    assert decide(chain(submission, *[job("FAILED", exit_codes=(50001, 50002))] * 3)).do == "fail"


@pytest.mark.parametrize("code", [125, 50000, 1, 137])
def test_one_exit_code_a_job_is_counted_over_all_jobs(submission, code):
    """Where Batch shows one code for each job, three jobs that only that is known of are as many as three."""
    failed = job("FAILED", exit_codes=(code,))
    assert [decide(chain(submission, *[failed] * number)).do for number in (1, 2, 3)] == ["submit", "submit", "fail"]


def test_attempts_that_end_by_themselves_are_counted_over_all_jobs(submission):
    """Four jobs with one crash each are tried again, the fifth is not; a checkpoint in between begins the count anew,
    and what was taken away by the cloud does not count.
    """
    crashed = job("FAILED", exit_codes=(139,))

    def after(number, reason="vanished", jobs=crashed, **changes):
        attempts = [(place, {"reason": reason}) for place in range(1, number + 1)]
        return decide(chain(submission, *[jobs] * number, attempts=attempts, minutes=120, **changes)).do

    assert [after(4), after(5)] == ["submit", "fail"]
    assert after(5, committed=CheckpointId(1, 0, 3), committed_at=START) == "submit"
    assert after(8, committed=CheckpointId(1, 0, 3), committed_at=START) == "fail"
    assert after(40, jobs=job("FAILED", exit_codes=(50001,))) == "submit"


def test_ends_before_the_checkpoint_do_not_count(submission):
    """Of a job's exit codes those of the attempts up to the newest checkpoint are answered by it."""
    crashed = job("FAILED", exit_codes=(139,) * 6)
    known = chain(submission, crashed, attempts=[(1, {"reason": "vanished"})] * 6, minutes=120)
    assert decide(known).do == "fail"
    committed = {"committed": CheckpointId(1, 0, 2), "committed_at": START}
    assert decide(dataclasses.replace(known, **committed)).do == "submit"


@pytest.mark.parametrize("code", sorted(KILLED))
def test_a_container_that_recorded_its_end_and_was_killed_counts_once(submission, code):
    """A preempted attempt that recorded its commit, and whose container was then killed, is no crash at all."""
    killed = job("FAILED", exit_codes=(code,) * 6)
    attempts = [(1, {"reason": "preempted", "exit_code": 75})] * 6
    known = chain(submission, killed, attempts=attempts, minutes=120)
    assert (decide(known).do, known.num_crashes, known.num_preemptions) == ("submit", 0, 6)


def test_the_pause_before_the_next_job_doubles_up_to_an_hour(submission):
    """After a job that has committed the next follows at once; after each that has not the pause is twice as long."""
    taken = job("FAILED", exit_codes=(50001,))

    def pause_after(number, committed):
        attempts = [(place, {"reason": "vanished"}) for place in range(1, number + 1)]
        for minutes in (0, *(2**power for power in range(12))):
            changes = {"committed": CheckpointId(1, 0, committed), "committed_at": START} if committed else {}
            known = chain(submission, *[taken] * number, attempts=attempts, minutes=minutes, **changes)
            if decide(known).do == "submit":
                return minutes
        return None

    assert [pause_after(number, 0) for number in range(1, 9)] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert [pause_after(5, committed) for committed in (5, 4, 1)] == [0, 1, 8]
    known = chain(submission, taken, attempts=[(1, {"reason": "vanished"})], minutes=0.5)
    assert (decide(known).do, decide(known).reason.endswith("the next is made at 01:01 UTC")) == ("wait", True)


@pytest.mark.parametrize("recorded", [True, False])
def test_an_unfit_machine_is_left_for_another_place_three_times(submission, recorded):
    """After exit 78 the next place is asked, whether the attempt could record it or not, and at most three times in a
    row; then the run is given up with the last message.
    """
    unfit, places, said = job("FAILED", exit_codes=(78,), last_event="Task failed"), [], []
    for number in range(1, 6):
        about = {"reason": "failed", "exit_code": 78, "message": "GPU: no device"}
        attempts = [(place, about) for place in range(1, number + 1)] if recorded else []
        decision = decide(chain(submission, *[unfit] * number, attempts=attempts, minutes=120))
        places.append(decision.placement and decision.placement.region)
        said.append(decision.do)
    assert said == ["submit", "submit", "submit", "fail", "fail"]
    assert places[0] == "us-east1"
    assert decision.reason.endswith("GPU: no device" if recorded else "Task failed")


def test_a_job_that_got_no_machine_does_not_hide_a_row_of_unfit_ones(submission):
    """Places that give no machine in between do not begin the count anew."""
    unfit, nothing = job("FAILED", exit_codes=(78,)), job("CANCELLED", scheduled_at=None)
    assert decide(chain(submission, unfit, nothing, unfit, nothing, unfit, nothing, unfit)).do == "fail"
    assert decide(chain(submission, unfit, nothing, unfit, nothing, unfit)).do == "submit"


def test_unfit_machines_and_jobs_that_never_begin_are_one_row(submission):
    """Two kinds of failures that take turns are bounded like one."""
    unfit, nothing = job("FAILED", exit_codes=(78,)), job("FAILED")
    assert decide(chain(submission, nothing, unfit)).do == "submit"
    assert decide(chain(submission, nothing, unfit, nothing)).do == "fail"


def test_an_unfit_machine_has_no_other_place_to_go_to(submission):
    """With one place another machine there is asked for."""
    alone = dataclasses.replace(submission, settings=dataclasses.replace(submission.settings, other_regions={}))
    decision = decide(chain(alone, job("FAILED", exit_codes=(78,))))
    assert (decision.do, decision.placement) == ("submit", alone.placement)


@pytest.mark.parametrize(("code", "do"), [(75, "fail"), (1, "fail"), (78, "wait")])
def test_the_same_fault_at_the_same_place_twice_is_a_loop(submission, code, do):
    """A fault of the hardware, which is worth another try, is none any more when it comes back at the same step; that
    a machine is unfit says nothing about the step.
    """
    same = {"reason": "failed", "exit_code": code, "message": "GPU: an error that cannot be corrected"}
    first = attempt(submission, 1, position=(3, 7), ended_at=START, **same)
    assert decide(history(submission, attempts=(first, attempt(submission, 2)))).do == "wait"
    elsewhere = attempt(submission, 2, position=(3, 8), ended_at=START, **same)
    assert decide(history(submission, attempts=(first, elsewhere, attempt(submission, 3)))).do == "wait"
    again = attempt(submission, 2, position=(3, 7), ended_at=START, **same)
    assert decide(history(submission, attempts=(first, again, attempt(submission, 3)))).do == do


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, "crash") for code in (1, 2, 65, 70, 74, 75, 78, 126, 134, 139)),
        *((code, "preemption") for code in (125, 137, 143, 50001, 50002, 50003, 50004, 50006)),
        *((code, "neither") for code in (50000, 50005)),
    ],
)
def test_each_exit_code_means_what_the_table_says(submission, code, kind):
    """An end without a record is classified by its exit code alone: preempted, ended by itself, or unknown."""
    known = history(submission, job("FAILED", exit_codes=(code,)))
    assert (known.num_preemptions, known.num_crashes) == (kind == "preemption", kind == "crash")


@pytest.mark.parametrize("code", sorted({*FATAL, ExitCode.DEFECT, ExitCode.ELSEWHERE, *LOST_MACHINE, TIME_LIMIT}))
def test_each_exit_code_leads_to_its_next_step(submission, code):
    """A failure for good ends the run, an unfit machine moves it, a lost machine resumes it, a hang ends
    it; none of them by the codes of another table.
    """
    decision = decide(chain(submission, job("FAILED", exit_codes=(code,)), minutes=120))
    expected = {2: "fail", 65: "fail", 70: "fail", 74: "fail", 50005: "fail"}
    assert decision.do == expected.get(code, "submit")
    if code in {78, 50001, 50002, 50003, 50004, 50006}:
        assert decision.placement.region == "us-east1"


def test_what_batch_says_of_a_wait_is_shown(submission):
    """While there is no machine the reason that Batch gives is part of the state, such as a quota."""
    event = "VM meets error: Batch Error: Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally."
    waiting = job("QUEUED", scheduled_at=None, waiting_since=START, last_event=event)
    alone = dataclasses.replace(submission, settings=dataclasses.replace(submission.settings, other_regions={}))
    expected = "queued, no machine yet: quota GPUS_ALL_REGIONS is 0; ask for more at https://"
    assert decide(history(alone, waiting)).reason.startswith(expected)


def test_a_start_is_reckoned_with_a_quarter_of_an_hour():
    """Boot, driver and image take time that no limit of Batch covers; the worst case of each attempt has it."""
    assert START_UP_S == 900
    assert worst_s(10, 48 * 3600) == 11 * (48 * 3600 + 900)


def test_an_attempt_elsewhere_that_has_ended_holds_nothing(submission):
    """Only a running attempt of another machine keeps the run."""
    ended = attempt(
        submission, job=None, host="desk", claimed_at=START + timedelta(minutes=1),
        ended_at=START + timedelta(minutes=9), reason="interrupted", exit_code=75,
    )  # fmt: skip
    assert decide(history(submission, attempts=(ended,))).do == "wait"


def test_an_attempt_that_committed_before_its_time_limit_does_not_hang(submission):
    """A long run goes on in the next submission; without a checkpoint of that attempt the time limit is a hang."""
    timed_out = job("FAILED", exit_codes=(TIME_LIMIT,))
    attempts = [(1, {"reason": "vanished"})] * 2
    for number, do in ((2, "submit"), (1, "submit"), (0, "fail")):
        committed = {"committed": CheckpointId(1, 0, number), "committed_at": START} if number else {}
        assert decide(chain(submission, timed_out, attempts=attempts, minutes=120, **committed)).do == do


def test_preemptions_before_the_checkpoint_excuse_no_later_crash(submission):
    """Five ends by themselves since the checkpoint are five, however many machines were lost before it."""
    codes = (50001, 50001, *[75] * 5)
    crash = {"reason": "transient", "exit_code": 75}
    known = chain(
        submission, job("FAILED", exit_codes=codes), attempts=[*[(1, {"reason": "vanished"})] * 2, *[(1, crash)] * 5],
        minutes=120, committed=CheckpointId(1, 0, 2), committed_at=START,
    )  # fmt: skip
    assert decide(known).do == "fail"


def test_the_last_attempt_of_a_job_says_whether_its_machine_was_unfit(submission):
    """An earlier attempt of the job may have ended otherwise."""
    ends = [(1, {"reason": "failed", "exit_code": code, "message": str(code)}) for code in (75, 78)]
    decision = decide(chain(submission, job("FAILED", exit_codes=(75, 78)), attempts=ends, minutes=120))
    assert (decision.do, decision.placement.region) == ("submit", "us-east1")


@pytest.mark.parametrize("reason", ["preempted", "transient"])
@pytest.mark.parametrize(("code", "do"), [(2, "fail"), (65, "fail"), (70, "fail"), (74, "fail"), (78, "submit")])
def test_an_end_that_no_attempt_has_recorded_counts_after_one_that_has(submission, reason, code, do):
    """A machine that fails before it claims the run again, or in another process than the first, is no end like that
    of the attempt before it in the same job.
    """
    earlier, ended = [(1, {"reason": reason, "exit_code": 75})], job("FAILED", exit_codes=(75, code))
    decision = decide(chain(submission, ended, attempts=earlier, minutes=120))
    assert decision.do == do
    if code == 78:
        assert decision.placement.region == "us-east1"
    else:
        assert decision.reason == f"exit {code}, which no attempt has recorded; see its log"


class Walked(tuple):
    """Attempts that count how often all of them were looked at."""

    __slots__ = ()
    times = 0

    def __iter__(self):
        type(self).times += 1
        return super().__iter__()


def test_a_decision_walks_the_attempts_as_often_after_many_jobs(submission):
    """The number of passes over the attempts does not grow with the number of jobs."""
    passes = []
    for num_jobs in (4, 40):
        preempted = [job("FAILED", exit_codes=(50001,))] * num_jobs
        known = chain(submission, *preempted, attempts=[(place, {}) for place in range(1, num_jobs + 1)])
        Walked.times = 0
        assert decide(dataclasses.replace(known, attempts=Walked(known.attempts))).do == "submit"
        passes.append(Walked.times)
    assert passes[0] == passes[1]


WAITING = {"state": "SCHEDULED", "waiting_since": START}
JUST_SCHEDULED = {"state": "SCHEDULED", "waiting_since": START + timedelta(hours=2) - timedelta(seconds=30)}
JUST_QUEUED = JUST_SCHEDULED | {"state": "QUEUED", "scheduled_at": None}


def on(submission, machine, provisioning):
    """Return a submission for one machine, by a kind of provisioning."""
    placement = dataclasses.replace(submission.placement, machine=machine, provisioning=provisioning)
    return dataclasses.replace(submission, machines=[machine], placement=placement)


@pytest.mark.parametrize(
    ("machine", "found", "left_h", "expected"),
    [
        ("a2-highgpu-1g", {}, 4.0, None),
        ("a2-highgpu-1g", WAITING, 6.0, None),
        ("a2-highgpu-1g", WAITING, 4.0, Provisioning.FLEX_START),
        ("a2-highgpu-1g", JUST_SCHEDULED, 4.0, None),
        ("a2-highgpu-1g", JUST_QUEUED, 4.0, None),
        ("a2-highgpu-1g", JUST_SCHEDULED, 2.5, Provisioning.ON_DEMAND),
        ("a2-highgpu-1g", WAITING, 2.5, Provisioning.ON_DEMAND),
        ("a2-highgpu-1g", {}, 2.5, Provisioning.ON_DEMAND),
        ("a3-highgpu-1g", WAITING, 2.5, Provisioning.FLEX_START),
        ("a3-highgpu-1g", {}, 2.5, None),
        ("g2-standard-8", WAITING, 4.0, None),
    ],
)
def test_the_next_kind_of_provisioning_is_the_cheapest_that_keeps_the_deadline(
    submission, machine, found, left_h, expected
):
    """With two hours of work left, Spot without a machine for long gives way to flex-start, and any to on demand when
    no time is left to wait; a machine that is not to be had so stays.
    """
    spot = on(dataclasses.replace(submission, usd_per_hour=None), machine, Provisioning.SPOT)
    due = START + timedelta(hours=2 + left_h)
    decision = decide(history(spot, job(**found), hours=2.0, deadline=due, **at_epoch(spot, 5, 2.0)))
    if expected is None:
        assert decision.do == "wait" or decision.placement.provisioning is Provisioning.SPOT
    else:
        assert (decision.do, decision.placement.provisioning) == ("submit", expected)


@pytest.mark.parametrize(
    ("found", "left_h", "do"),
    [
        (WAITING, 4.0, "wait"),
        (WAITING, 2.5, "submit"),
        (JUST_QUEUED, 2.5, "submit"),
        (JUST_SCHEDULED, 2.5, "wait"),
        ({}, 2.5, "wait"),
    ],
)
def test_flex_start_waits_in_its_queue_until_the_deadline_needs_on_demand(submission, found, left_h, do):
    """It keeps its place in the queue beyond the patience with Spot, and to the end a machine that it has got or that
    is being made.
    """
    flex = on(submission, "a2-highgpu-1g", Provisioning.FLEX_START)
    due = START + timedelta(hours=2 + left_h)
    decision = decide(history(flex, job(**found), hours=2.0, deadline=due, **at_epoch(flex, 5, 2.0)))
    assert decision.do == do
    if do == "submit":
        assert decision.placement.provisioning is Provisioning.ON_DEMAND


def test_flex_start_without_a_price_costs_as_much_as_on_demand():
    """A limit in dollars reckons with the price that flex-start never exceeds."""
    prices = {"a2-highgpu-1g": {"on_demand": 3.5}}
    assert usd_per_hour(prices, "a2-highgpu-1g", Provisioning.FLEX_START) == 3.5
    own = {"a2-highgpu-1g": {"on_demand": 3.5, "flex_start": 2.0}}
    assert usd_per_hour(own, "a2-highgpu-1g", Provisioning.FLEX_START) == 2.0
    assert usd_per_hour({}, "a2-highgpu-1g", Provisioning.FLEX_START) is None
