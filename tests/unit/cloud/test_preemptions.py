"""The simulation of preemptions in the bench: its seconds and dollars, and the decisions of the real policy in it."""

import dataclasses

import pytest

from job.cloud.machine_types import Provisioning
from job.goodput import Phase
from job.text import HOUR
from tests.bench.preemptions import MACHINE, Durations, Simulation

DURATIONS = Durations(wait_s=60.0, boot_s=180.0, ready_s=60.0, every_s=60.0, stall_s=0.1, upload_s=2.0, work_s=2 * HOUR)

NEVER_S = 1e12


def test_without_a_preemption_only_the_starts_and_the_checkpoints_cost():
    """The limit cuts an undisturbed run into attempts; its seconds and dollars are those of their parts."""
    result = Simulation(DURATIONS, num_machines=4, between_s=NEVER_S, seed=0).run()
    seconds, num_attempts = result.cost.seconds, len(result.cost.attempts)
    assert (result.given_up, result.num_jobs) == ("", num_attempts)
    assert (seconds[Phase.BOOT], seconds[Phase.START_UP]) == (num_attempts * 180, num_attempts * 60)
    assert seconds[Phase.USEFUL] == pytest.approx(2 * HOUR)
    assert seconds[Phase.STALL] == pytest.approx(120 * 0.1)
    assert seconds[Phase.LOST] < (num_attempts - 1) * (60 + 0.1 + 2)
    assert result.took_s >= result.cost.total_s + num_attempts * 60
    assert result.cost.usd == pytest.approx(4 * MACHINE.usd_per_hour(Provisioning.SPOT) * result.cost.total_s / HOUR)


def test_a_preempted_run_trains_all_of_its_work_once():
    """The useful seconds of a preempted run are its work; each attempt before the last loses an interval at most."""
    result = Simulation(DURATIONS, num_machines=2, between_s=HOUR, seed=0).run()
    *cut_off, last = result.cost.attempts
    assert result.given_up == ""
    assert len(cut_off) > 2
    assert result.cost.seconds[Phase.USEFUL] == pytest.approx(DURATIONS.work_s)
    assert all(0 <= attempt.seconds[Phase.LOST] < 60 + 0.1 + 2 for attempt in cut_off)
    assert last.seconds[Phase.LOST] == 0


def test_the_same_seed_is_the_same_run():
    """Equal arguments give equal attempts, and another seed others."""
    one, again, other = (Simulation(DURATIONS, 2, HOUR, seed).run() for seed in (1, 1, 2))
    assert one.cost == again.cost
    assert one.cost != other.cost


def test_more_machines_are_preempted_more_often():
    """Each of several machines ends the attempt of all."""
    few, many = (Simulation(DURATIONS, number, 3 * HOUR, seed=0).run() for number in (1, 8))
    assert len(many.cost.attempts) > len(few.cost.attempts)
    assert many.cost.goodput < few.cost.goodput


def test_machines_that_are_always_taken_end_the_run():
    """Machines that are taken before an attempt claims the run are asked for again thirty times, and not for ever."""
    result = Simulation(dataclasses.replace(DURATIONS, boot_s=4 * HOUR), 64, 600.0, seed=0).run()
    assert "machines in a row were preempted before an attempt claimed the run" in result.given_up
    assert 30 <= len(result.cost.attempts) < 41
    assert result.cost.goodput == 0


def test_the_policy_stops_where_on_demand_is_cheaper():
    """A run whose attempts rarely commit is stopped within the price of the same work on demand."""
    result = Simulation(DURATIONS, num_machines=8, between_s=0.5 * HOUR, seed=0).run()
    on_demand = 8 * MACHINE.usd_per_hour(Provisioning.ON_DEMAND) * DURATIONS.undisturbed_s / HOUR
    assert "USD are left" in result.given_up
    assert 0 < result.cost.usd <= on_demand + 0.01
