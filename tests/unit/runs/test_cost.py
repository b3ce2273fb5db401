"""Seconds and cost of a run, from recorded attempts with a clock and prices of their own."""

from datetime import UTC, datetime, timedelta

import pytest

from job.analysis.campaign import spent_usd
from job.analysis.summary import read_summary
from job.goodput import Phase, PhaseTimer
from job.runs.cost import cost_of, read_cost, usd_of
from job.runs.records import CheckpointId
from job.runs.run import Run
from job.storage.open_store import open_store
from tests.support.attempt_records import attempt_record
from tests.support.bucket_records import put_recorded, recorded

START = datetime(2026, 11, 23, 8, tzinfo=UTC)

PRICE = {"usd_per_h": 0.36, "on_demand_usd_per_h": 1.08, "machine": "g2-standard-4, Spot", "date": "2026-11-01"}
"""A hundredth of a cent for each second, and three on demand."""


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def at(seconds):
    """Return the time so many seconds after the start, as records have it."""
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def attempt(number, began, *, end=None, pulse=None, started=None, receipt=None, steps_lost=0, price=PRICE, age=2.0):
    """Make the records of an attempt; `end` and `pulse` are a time, seconds by label, and further fields."""
    time, seconds, more = end or (None, None, {})
    said_at, pulse_seconds, kept = pulse or (None, None, None)
    return attempt_record(
        {
            "attempt": number,
            "claimed_at": at(began + age),
            "process_age_s": age,
            "host": "here",
            "machine": "Linux x86_64, 2 cores",
            "price": price,
        },
        start=started and {"started_at": at(started), "receipt": receipt, "steps_lost": steps_lost},
        pulse=pulse and {"at": at(said_at), "seconds": pulse_seconds, "kept": kept},
        end=end and {"ended_at": at(time), "seconds": seconds, **more},
    )


def run_cost(*attempts, kept=None, now=10_000):
    """Return the cost of attempts."""
    return cost_of(attempts, at(now), kept)


def test_each_label_is_timed_and_priced():
    """A second under any label costs the same, each label has its own sum, and both add up to the whole."""
    clock = Clock()
    timer = PhaseTimer(clock, before_s=1.0)
    for number, label in enumerate(label for label in Phase if label is not Phase.BOOT):
        timer.enter(label)
        clock.now += 2.0 + number
    spent = {label: float(place + 1) for place, label in enumerate(Phase)}
    assert timer.seconds() == spent | {Phase.START_UP: spent[Phase.START_UP]}
    whole = sum(spent.values())
    cost = run_cost(attempt(1, 0, end=(whole, timer.seconds(), {"reason": "finished"})))
    assert cost.seconds == spent
    assert cost.total_s == cost.attempts[0].wall_s == whole
    assert cost.usd_by_label == pytest.approx({label: s * 0.0001 for label, s in spent.items()})
    assert cost.usd == pytest.approx(whole * 0.0001)
    assert cost.goodput == pytest.approx((spent[Phase.USEFUL] + spent[Phase.RECOMPUTED]) / whole)


def test_what_a_vanished_attempt_did_after_its_last_commit_is_lost():
    """The seconds since the snapshot of the last commit are lost, in any phase; start-up is not,
    and the time until the next process stands apart.
    """
    kept = {"checkpoint": "0001-000000.a0001", "seconds": {"start-up": 10.0, "useful step": 50.0, "validation": 5.0}}
    seconds = {"start-up": 10.0, "useful step": 80.0, "validation": 9.0, "checkpoint stall": 1.0}
    receipt = {"checkpoint": "0001-000000.a0001", "steps_lost": 12}
    cost = run_cost(
        attempt(1, 0, pulse=(100, seconds, kept)),
        attempt(2, 160, started=170, receipt=receipt, end=(200, {"useful step": 40.0}, {"reason": "finished"})),
    )
    first = cost.attempts[0]
    spent_first = {label: s for label, s in first.seconds.items() if s}
    assert spent_first == {Phase.START_UP: 10.0, Phase.USEFUL: 50.0, Phase.VALIDATION: 5.0, Phase.LOST: 35.0}
    assert (first.ended, first.wall_s, first.steps_lost, first.away_s) == ("vanished", 100, 12, 60)
    assert (cost.total_s, cost.away_s, cost.num_cut_off) == (140, 60, 1)


def test_an_attempt_without_a_commit_loses_its_work_and_not_its_preparation():
    """Where nothing was committed, all training is lost, with the steps that the next attempt trains again."""
    cost = run_cost(
        attempt(1, 0, pulse=(30, {"pull": 4.0, "useful step": 20.0, "data wait": 6.0}, None)),
        attempt(2, 40, started=45, steps_lost=7, end=(50, {"useful step": 10.0}, {"reason": "finished"})),
    )
    assert cost.attempts[0].steps_lost == 7
    assert cost.attempts[0].seconds[Phase.LOST] == 26.0
    assert cost.attempts[0].seconds[Phase.PULL] == 4.0


@pytest.mark.parametrize("reason", ["preempted", "interrupted", "paused"])
def test_a_notice_whose_last_commit_failed_has_lost_what_came_after_the_one_before(reason):
    """An attempt that had time to say that its last commit failed is billed as one that vanished after the commit
    before; one that committed everything has lost nothing.
    """
    kept = {"checkpoint": "0001-000000.a0001", "seconds": {"useful step": 10.0}}
    seconds, later = {"useful step": 28.0}, attempt(2, 40, end=(50, {"useful step": 1.0}, {"reason": "finished"}))
    lost, whole = (
        run_cost(attempt(1, 0, pulse=(29, seconds, kept), end=(30, seconds, {"reason": reason, **more})), later)
        for more in ({"not_committed": "epoch 2 is not committed, StoreError: no permission"}, {})
    )
    assert (lost.attempts[0].ended, lost.attempts[0].seconds[Phase.LOST]) == (reason, 18.0)
    assert whole.attempts[0].seconds[Phase.LOST] == 0.0


def test_a_commit_after_the_last_heartbeat_is_known_from_the_next_attempt():
    """If the next attempt resumed from a commit after the last heartbeat, nothing is known to be lost."""
    kept = {"checkpoint": "0001-000000.a0001", "seconds": {"useful step": 10.0}}
    first = attempt(1, 0, pulse=(30, {"useful step": 28.0}, kept))
    later = attempt(2, 40, started=45, receipt={"checkpoint": "0002-000000.a0001", "steps_lost": 0})
    assert run_cost(first, later).attempts[0].seconds[Phase.LOST] == 0.0
    same = attempt(2, 40, started=45, receipt={"checkpoint": "0001-000000.a0001", "steps_lost": 5})
    assert run_cost(first, same).attempts[0].seconds[Phase.LOST] == 18.0


def test_a_manifest_counts_before_an_older_heartbeat():
    """The newest commit of heartbeat and manifests is the last one."""
    kept = {"checkpoint": "0001-000000.a0001", "seconds": {"useful step": 10.0}}
    vanished = attempt(1, 0, pulse=(30, {"useful step": 28.0}, kept))
    newer = {1: (CheckpointId(1, 5, 1), {"useful step": 25.0})}
    assert run_cost(vanished, kept=newer).attempts[0].seconds[Phase.LOST] == 3.0
    after = {1: (CheckpointId(1, 5, 1), {"useful step": 30.0})}
    assert run_cost(vanished, kept=after).attempts[0].seconds[Phase.LOST] == 0.0  # and never less than nothing


def test_an_attempt_without_a_commit_keeps_nothing():
    """The work of an attempt is lost if the next one resumed from a checkpoint of an earlier attempt."""
    receipt = {"checkpoint": "0001-000000.a0001", "steps_lost": 7}
    cost = run_cost(
        attempt(1, 0, end=(10, {"useful step": 8.0}, {"reason": "preempted"})),
        attempt(2, 20, started=22, receipt=receipt, pulse=(40, {"useful step": 15.0}, None)),
        attempt(3, 50, started=52, receipt=receipt, end=(60, {"useful step": 7.0}, {"reason": "finished"})),
    )
    assert [one.seconds[Phase.LOST] for one in cost.attempts] == [0.0, 15.0, 0.0]


@pytest.mark.parametrize(
    ("reason", "lost"),
    [
        *(("finished", 0), ("preempted", 0), ("interrupted", 0), ("paused", 0)),
        *(("superseded", 18), ("failed", 18), ("transient", 18)),
    ],
)
def test_an_attempt_that_ends_in_order_loses_nothing(reason, lost):
    """An attempt that could commit before it ended lost nothing; one that could not lost what came after its last."""
    kept = {"checkpoint": "0001-000000.a0001", "seconds": {"useful step": 10.0}}
    ended = attempt(1, 0, pulse=(25, {"useful step": 24.0}, kept), end=(30, {"useful step": 28.0}, {"reason": reason}))
    assert run_cost(ended).attempts[0].seconds[Phase.LOST] == lost


def test_the_newest_attempt_runs_as_long_as_its_heartbeats_are_recent():
    """Without an end, the newest attempt runs until it was silent for a minute, or for half an hour during
    start-up; the work of a running one is not lost.
    """
    training, getting_ready = attempt(1, 0, pulse=(30, {"useful step": 28.0}, None)), attempt(1, 0)
    assert run_cost(training, now=80).attempts[0].ended == "running"
    assert run_cost(training, now=80).seconds[Phase.LOST] == 0.0
    assert (run_cost(training, now=80).num_cut_off, run_cost(training, now=100).num_cut_off) == (0, 1)
    assert run_cost(training, now=100).attempts[0].ended == "vanished"
    assert run_cost(getting_ready, now=1000).attempts[0].ended == "running"
    assert run_cost(getting_ready, now=2000).attempts[0].ended == "vanished"


def test_a_clock_that_was_set_back_makes_no_time_negative():
    """Where the next machine's clock is behind, the time between the two attempts is 0, and the sum is not less."""
    done = {"useful step": 10.0}
    cost = run_cost(
        attempt(1, 100, end=(160, done, {"reason": "preempted"})),
        attempt(2, 120, end=(200, done, {"reason": "preempted"})),
        attempt(3, 230, end=(260, done, {"reason": "finished"})),
    )
    assert [one.away_s for one in cost.attempts] == [0.0, 30.0, None]
    assert cost.away_s == 30.0


def test_an_attempt_that_only_claimed_got_ready_until_it_was_last_heard_of():
    """Seconds that no record sorts are those of start-up."""
    cost = run_cost(attempt(1, 0, started=30))
    assert {label: s for label, s in cost.seconds.items() if s} == {Phase.START_UP: 30.0}
    assert cost.attempts[0].wall_s == 30


def test_a_lost_step_counts_as_lost_once():
    """Goodput and the comparison with on demand leave out what was lost, not what is trained again and kept, and the
    getting ready of every attempt but the first.
    """
    first = {"boot": 2.0, "start-up": 8.0, "useful step": 100.0, "lost": 0.0}
    second = {"boot": 2.0, "start-up": 9.0, "recomputed": 30.0, "useful step": 60.0}
    cost = run_cost(
        attempt(1, 0, pulse=(110, first, {"checkpoint": "0001-000000.a0001", "seconds": {"useful step": 70.0}})),
        attempt(2, 120, end=(221, second, {"reason": "finished"})),
    )
    assert cost.uninterrupted_s == pytest.approx(2 + 8 + 70 + 30 + 60)
    assert cost.goodput == pytest.approx((70 + 30 + 60) / 211)
    assert cost.usd == pytest.approx(0.0211)
    assert cost.on_demand_usd == pytest.approx(170 * 0.0003)
    assert "$0.0211 (g2-standard-4, Spot, prices of 2026-11-01); on demand, uninterrupted: $0.0510" in cost.cost


def test_on_demand_has_the_newest_price_that_is_known():
    """A price that has changed since the run began, or is not known at its end, does not make the comparison older."""
    done = {"useful step": 50.0}
    prices = [PRICE, PRICE | {"on_demand_usd_per_h": 2.16}, None]
    cost = run_cost(
        *(attempt(number, 100 * number, end=(100 * number + 50, done, {"reason": "preempted"}), price=price)
          for number, price in enumerate(prices, start=1))
    )  # fmt: skip
    assert cost.on_demand_usd == pytest.approx(150 * 0.0006)


@pytest.mark.parametrize(
    ("parts", "usd"),
    [([], 0.0), ([(3600, 2.0), (1800, 1.0)], 2.5), ([(3600, 2.0), (1, None)], None), ([(0, None)], None)],
)
def test_the_cost_is_unknown_as_soon_as_one_price_is(parts, usd):
    """Seconds times prices are added up, and one price that is unknown makes the sum unknown, never lower."""
    assert usd_of(parts) == usd


def test_a_run_costs_the_same_wherever_it_is_shown(tmp_path):
    """An attempt that vanished during start-up costs the same in cost, comparison and campaign."""
    run = Run(open_store(str(tmp_path)), "zebra")
    put_recorded(run.store, recorded(usd_per_hour=1.0))
    claimed = {"process_age_s": 7200.0, "machine": "here", "host": "here", "price": {"usd_per_h": 1.0}}
    run.claim(claimed)
    summary = read_summary(run, run.record())
    assert summary.usd == spent_usd([summary]) == pytest.approx(read_cost(run).usd, abs=0.001)
    assert summary.usd == pytest.approx(2.0 + 90 / 3600, abs=0.001)
    assert summary.hours == pytest.approx(2.0 + 90 / 3600, abs=0.001)


def test_an_own_machine_has_no_price():
    """Without a price there is no cost; where only some attempts have one, the sentence says so."""
    done = {"useful step": 100.0}
    own = attempt(1, 0, pulse=(100, done, None), price=None)
    assert run_cost(own).usd is None
    assert run_cost(own).cost == "own machine, no price"
    both = run_cost(own, attempt(2, 200, end=(300, done, {"reason": "finished"})))
    assert both.known_usd == pytest.approx(0.01)
    assert both.usd is None
    assert "without 1 attempt whose price is unknown" in both.cost


def test_the_table_fits_a_terminal_and_names_every_label_that_was_used():
    """The table of any run is 80 columns wide at most."""
    spent = {str(label): 4000.0 for label in Phase}
    cost = run_cost(attempt(1, 0, end=(48_000, spent, {"reason": "finished"})))
    assert all(str(label) in cost.table() for label in Phase)
    assert max(map(len, cost.table().splitlines())) <= 80


def test_records_of_a_bucket_are_read(tmp_path):
    """The cost follows from the records that attempts wrote through `Run`."""
    run = Run(open_store(str(tmp_path)), "zebra")
    claim = run.claim({"process_age_s": 3.0, "machine": "here", "host": "here", "price": PRICE})
    claim.start({"receipt": None})
    claim.end("finished", {"seconds": {"boot": 3.0, "useful step": 0.0}})
    cost = read_cost(run)
    assert cost.attempts[0].ended == "finished"
    assert cost.attempts[0].price.machine == PRICE["machine"]
    assert cost.to_json()["seconds"]["boot"] == 3.0
    assert cost.attempts[0].wall_s == pytest.approx(3.0, abs=2)


def test_negative_seconds_of_a_record_are_none():
    """Records of older versions may have them, from a clock that was set back."""
    cost = run_cost(attempt(1, 0, end=(10, {"useful step": 8.0, "idle": -5.0}, {"reason": "finished"})))
    assert (cost.attempts[0].seconds[Phase.USEFUL], cost.attempts[0].seconds[Phase.IDLE]) == (8.0, 0.0)


def test_a_damaged_manifest_does_not_hide_the_cost(tmp_path):
    """What other records have is added up."""
    run = Run(open_store(str(tmp_path)), "zebra")
    claim = run.claim({"process_age_s": 3.0, "machine": "here", "host": "here", "price": PRICE})
    claim.end("finished", {"seconds": {"useful step": 9.0}})
    run.store.put(run.key("checkpoints/0001-000000.a0001/manifest.json"), b"{")
    assert read_cost(run).seconds[Phase.USEFUL] == 9.0
