"""Times and cost of checkpoints, and the best interval."""

import math
from itertools import pairwise
from random import Random

import pytest

from job.session.checkpoint_schedule import CheckpointSchedule


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def taken(schedule, clock, *stalls_s):
    """Take a checkpoint for each stall."""
    for stall_s in stalls_s:
        with schedule.taking():
            clock.now += stall_s


def test_a_checkpoint_is_due_after_its_interval_and_not_before():
    """The interval counts from the end of the checkpoint before, however long that one took."""
    clock = Clock()
    schedule = CheckpointSchedule(60.0, [], clock)
    due = []
    for passed in (59.0, 1.0):
        clock.now += passed
        due.append(schedule.due(0, is_idle=True))
    taken(schedule, clock, 5.0)
    for passed in (0.0, 59.0, 1.0):
        clock.now += passed
        due.append(schedule.due(0, is_idle=True))
    assert due == [False, True, False, False, True]


def intervals(schedule, clock, *, num_epochs, num_steps, step_s, validation_s=0.0):
    """Train epochs, and return the seconds between checkpoints of each."""
    found = []
    for _ in range(num_epochs):
        last, epoch = clock.now, []
        for step in range(1, num_steps + 1):
            clock.now += step_s
            if schedule.due(num_steps - step, is_idle=True):
                taken(schedule, clock, 0.0)
                epoch.append(round(clock.now - last, 6))
                last = clock.now
        clock.now += validation_s
        taken(schedule, clock, 0.0)
        found.append([*epoch, round(clock.now - last, 6)])
    return found


def test_checkpoints_divide_an_epoch_evenly():
    """None is taken shortly before the end of an epoch, where one is taken anyway, and none is later than it may be."""
    clock = Clock()
    found = intervals(CheckpointSchedule(60.0, [], clock), clock, num_epochs=3, num_steps=70, step_s=1.0)
    assert found == [[35.0, 35.0]] * 3
    found = intervals(CheckpointSchedule(60.0, [], clock), clock, num_epochs=2, num_steps=1300, step_s=0.1)
    assert found == [[43.4, 43.3, 43.3]] * 2
    found = intervals(CheckpointSchedule(60.0, [], clock), clock, num_epochs=2, num_steps=119, step_s=0.5)
    assert found == [[59.5]] * 2


def test_the_time_of_a_validation_belongs_to_its_epoch():
    """From the second epoch on, checkpoints divide an epoch with its validation, of which the first has none yet."""
    clock = Clock()
    schedule = CheckpointSchedule(60.0, [], clock)
    first, *_, last = intervals(schedule, clock, num_epochs=3, num_steps=50, step_s=1.0, validation_s=12.0)
    assert first == [62.0]
    assert last == [31.0, 31.0]


@pytest.mark.parametrize("every_s", [7.0, 60.0, 1000.0])
@pytest.mark.parametrize("num_steps", [1, 3, 50, 400])
def test_no_step_waits_longer_than_the_interval(every_s, num_steps):
    """Steps of any length, slower and faster ones, are committed within the interval and one step."""
    clock, random = Clock(), Random(0)  # noqa: S311 -- not for secrets
    schedule = CheckpointSchedule(every_s, [], clock)
    last = clock.now
    for _ in range(20):
        for step in range(1, num_steps + 1):
            step_s = random.choice([0.1, 1.0, 5.0])
            clock.now += step_s
            assert clock.now - last < every_s + step_s
            if schedule.due(num_steps - step, is_idle=True):
                taken(schedule, clock, 0.1)
                last = clock.now
        taken(schedule, clock, 0.1)
        last = clock.now


@pytest.mark.parametrize("every_s", [1e-320, 1e-9])
def test_an_interval_below_a_step_takes_a_checkpoint_after_each(every_s):
    """However short the interval, one step after the other is committed."""
    clock = Clock()
    found = intervals(CheckpointSchedule(every_s, [], clock), clock, num_epochs=1, num_steps=3, step_s=1.0)
    assert found == [[1.0, 1.0, 1.0, 0.0]]


def test_an_interval_of_0_takes_checkpoints_at_the_ends_of_epochs_alone():
    """Without an interval none is ever due, and the summary says so."""
    clock = Clock()
    schedule = CheckpointSchedule(0.0, [], clock)
    clock.now += 1e6
    assert not schedule.due(0, is_idle=True)
    assert str(schedule).startswith("checkpoints after each epoch;")


def test_auto_takes_checkpoints_in_a_hundredth_of_the_time():
    """With `auto` the first is due after 5 s, each next one after a hundred times the mean cost, some of it later."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [], clock)
    due = []
    for passed in (4.0, 1.0):
        clock.now += passed
        due.append(schedule.due(0, is_idle=True))
    taken(schedule, clock, 0.5)
    clock.now += 20.0
    with schedule.prolonged():
        clock.now += 0.5
    for passed in (99.0, 1.0):
        clock.now += passed
        due.append(schedule.due(0, is_idle=True))
    assert due == [False, True, False, True]
    assert schedule.to_json() == {
        "every_s": "auto",
        "num": 1,
        "stall_s": 1.0,
        "slowdown_s": 0.0,
        "num_preempted": 0,
        "optimum_s": None,
    }
    assert str(schedule).startswith("checkpoints automatically and after each epoch; each stops training for 1000 ms")


def train_beside_commits(schedule, clock, *, num_steps, num_left=0):
    """Train steps of 1 s, and of 1.25 s during the two after a checkpoint; return the times of the checkpoints."""
    found, beside = [], 0
    for step in range(1, num_steps + 1):
        clock.now += 1.25 if beside else 1.0
        beside = max(0, beside - 1)
        if schedule.due(num_left + num_steps - step, is_idle=not beside):
            taken(schedule, clock, 0.5)
            found.append(clock.now)
            beside = 2
    return found


def test_what_a_commit_slows_down_is_a_cost():
    """Steps beside a commit are compared with the others, and the stall of their checkpoint is none of their time."""
    clock = Clock()
    schedule = CheckpointSchedule(10.0, [], clock)
    assert len(train_beside_commits(schedule, clock, num_steps=60)) > 3
    assert schedule.stall_s == pytest.approx(0.5)
    assert schedule.slowdown_s == pytest.approx(0.5)
    assert schedule.cost_s == pytest.approx(1.0)
    assert "each stops training for 500 ms and slows it down by 500 ms" in str(schedule)


def test_a_step_that_waits_is_no_cost_of_a_checkpoint():
    """One step of a minute beside a commit, as of a machine that was paused, puts no checkpoint off."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [], clock)
    train_beside_commits(schedule, clock, num_steps=300)
    before = schedule.slowdown_s
    assert before == pytest.approx(0.5)
    taken(schedule, clock, 0.5)
    clock.now += 60.0
    schedule.due(100, is_idle=False)
    clock.now += 60.0
    schedule.due(99, is_idle=False)
    assert schedule.slowdown_s < before + 0.25


def train_beside_short_commits(schedule, clock, *, num_steps, step_s, slower_s, stall_s, late_s=0.0):
    """Train steps, one slower after each checkpoint, whose commit ends within it; return the number of checkpoints."""
    found, is_beside = 0, False
    for step in range(1, num_steps + 1):
        clock.now += step_s + slower_s * is_beside
        is_beside = schedule.due(num_steps - step, is_idle=True)
        if is_beside:
            found += 1
            taken(schedule, clock, stall_s)
            with schedule.prolonged():
                clock.now += late_s
    return found


def test_a_commit_that_is_shorter_than_a_step_slows_it_down():
    """The step after a checkpoint is beside its commit, even if that has ended by then; a late stall is none of it."""
    clock = Clock()
    schedule = CheckpointSchedule(10.0, [], clock)
    options = {"step_s": 1.0, "slower_s": 0.25, "stall_s": 0.1, "late_s": 0.3}
    assert train_beside_short_commits(schedule, clock, num_steps=95, **options) > 3
    assert schedule.stall_s == pytest.approx(0.4)
    assert schedule.slowdown_s == pytest.approx(0.25)


@pytest.mark.parametrize("step_s", [1.0, 6.0, 20.0])
def test_auto_reckons_with_what_commits_slow_down(step_s):
    """Stalls and slow steps together take a hundredth of the time, also where a step is longer than the first wait."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [], clock)
    num = train_beside_short_commits(schedule, clock, num_steps=2000, step_s=step_s, slower_s=1.0, stall_s=0.05)
    assert 0 < num <= 1 + 0.01 * (clock.now - 100.0) / 1.05


def test_without_a_step_alone_no_slowdown_is_known():
    """Where a commit is always under way, there is nothing to compare with, and no checkpoint is due."""
    clock = Clock()
    schedule = CheckpointSchedule(10.0, [], clock)
    taken(schedule, clock, 0.5)
    for num_left in range(30, 0, -1):
        clock.now += 1.0
        assert not schedule.due(num_left, is_idle=False)
    assert schedule.slowdown_s == 0.0


def test_auto_follows_the_preemptions_once_there_are_any():
    """Checkpoints divide the epoch into parts about as long as Young's interval, for the whole cost of one."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [30.0, 50.0], clock)
    train_beside_commits(schedule, clock, num_steps=100, num_left=300)
    shortest = schedule.optimum_s
    assert shortest == pytest.approx(math.sqrt(2 * 1.0 * (80.0 + clock.now - 100.0) / 2), rel=0.05)
    later = train_beside_commits(schedule, clock, num_steps=300)
    lengths = [later - earlier for earlier, later in pairwise(later)]
    assert max(lengths) < schedule.optimum_s + 2.0
    assert min(lengths) > shortest - 2.0


def test_an_attempt_that_was_cut_off_at_once_is_not_the_rule():
    """After a life of a moment this attempt's time counts as well, and checkpoints cost a tenth at most."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [0.1], clock)
    taken = train_beside_commits(schedule, clock, num_steps=400, num_left=1000)
    lengths = [later - earlier for earlier, later in pairwise(taken)]
    assert schedule.cost_s == pytest.approx(1.0, rel=0.1)
    assert min(lengths) > 7.0
    assert lengths[-1] > 2 * lengths[0]


def test_a_short_epoch_is_not_divided_if_that_costs_more_than_a_tenth():
    """An epoch of fifteen times the cost has the checkpoint at its end alone, however often attempts are cut off."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [0.1] * 1000, clock)
    taken(schedule, clock, 1.0)
    assert [len(epoch) for epoch in intervals(schedule, clock, num_epochs=1, num_steps=15, step_s=1.0)] == [1]


def test_auto_takes_none_within_an_epoch_as_short_as_the_best_interval():
    """An epoch that is a little longer than the interval is not divided: the checkpoint at its end is enough."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [4000.0], clock)
    taken(schedule, clock, 0.5)  # 63 s are best
    found = intervals(schedule, clock, num_epochs=1, num_steps=80, step_s=1.0)
    assert len(found[0]) == 1


def test_auto_leaves_time_for_the_ends_of_epochs():
    """Those within epochs and those at the ends of epochs together stop training for a hundredth of the time."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [], clock)
    within = 0
    for _epoch in range(100):
        for _step in range(50):
            clock.now += 0.5
            if schedule.due(0, is_idle=True):
                taken(schedule, clock, 0.2)
                within += 1
        taken(schedule, clock, 0.2)
    assert within > 0
    assert (100 + within) * 0.2 <= 0.01 * (clock.now - 100.0) + 2 * 0.2  # the last within an epoch, and at its end


def test_auto_leaves_time_for_what_the_ends_of_epochs_slow_down():
    """What commits at the ends of epochs slow down is in the hundredth, too."""
    clock = Clock()
    schedule = CheckpointSchedule("auto", [], clock)
    within = 0
    for _epoch in range(100):
        within += len(train_beside_commits(schedule, clock, num_steps=100))
        taken(schedule, clock, 0.2)
        for num_left in (102, 101):  # of the next epoch, beside the commit
            clock.now += 1.25
            assert not schedule.due(num_left, is_idle=False)
    assert 0 < within <= 0.01 * (clock.now - 100.0) / schedule.cost_s - 100 + 2  # the last one, and at its end


def test_the_best_interval_is_that_of_young():
    """The square root of twice the cost of a checkpoint times the mean time between preemptions."""
    clock = Clock()
    schedule = CheckpointSchedule(60.0, [1000.0, 3000.0], clock)
    assert schedule.optimum_s is None  # what a checkpoint costs is not known yet
    taken(schedule, clock, 0.3, 0.5)
    assert schedule.stall_s == pytest.approx(0.4)
    assert schedule.optimum_s == pytest.approx(math.sqrt(2 * 0.4 * 2000.4))  # this attempt has lived for 0.8 s
    assert schedule.to_json() == {
        "every_s": 60.0,
        "num": 2,
        "stall_s": 0.4,
        "slowdown_s": 0.0,
        "num_preempted": 2,
        "optimum_s": 40.0,
    }
    assert "cut off every 2000 s on average, for which a checkpoint every 40.0 s is best" in str(schedule)


def test_without_a_preemption_no_interval_is_best():
    """Nothing is advised where nothing was cut off."""
    clock = Clock()
    schedule = CheckpointSchedule(60.0, [], clock)
    taken(schedule, clock, 0.4)
    assert (schedule.optimum_s, schedule.to_json()["optimum_s"]) == (None, None)
    assert "each stops training for 400 ms; no attempt was cut off so far" in str(schedule)
    short = CheckpointSchedule(60.0, [0.0], clock)  # it vanished before its first heartbeat
    taken(short, clock, 0.4)
    assert str(short).endswith("each stops training for 400 ms")


@pytest.mark.parametrize("lived_s", [[0.0], [-5.0, 0.0]])
def test_lives_that_a_clock_made_unknown_advise_nothing(lived_s):
    """Where a clock was set back within an attempt, its life is none to take a root of."""
    clock = Clock()
    schedule = CheckpointSchedule(60.0, lived_s, clock)
    taken(schedule, clock, 0.4)
    assert schedule.optimum_s is None
    assert "is best" not in str(schedule)
