"""Estimates from a similar run, from a measurement and from the recipe, and their correction after an epoch."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import pytest

from job.analysis.estimate import (
    NUM_STEPS,
    EnoughError,
    Stopwatch,
    by_authors,
    by_measurement,
    by_run,
    from_runs,
    is_kind,
)
from job.cli.app import main
from job.cloud.prices import USD_PER_HOUR, usd_per_hour
from job.errors import UsageError
from job.goodput import Phase
from job.recipes.recipe import load_recipe
from job.runs.records import Price
from job.runs.request import TrainRequest
from job.session.console import Reporter
from job.storage.local import FolderStore
from tests.support.bucket_records import put_recorded, recorded

ROW = {
    **{f"metrics/{name}(B)": 0.5 for name in ("precision", "recall", "mAP50", "mAP50-95")},
    **{f"train/{name}_loss": 1.0 for name in ("box", "cls", "dfl")},
}


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


def train_request(recipe="A", **training_arguments):
    """Return a request as the command line makes it."""
    return TrainRequest.parse({"recipe": recipe, "checkpoint_every": "0", "arguments": training_arguments})


def test_a_similar_run_gives_the_estimate():
    """Time follows from the pace of the newest run with the same recipe, scale, data and machine."""
    runs = [
        recorded("A", run="old", epoch_s=900.0),
        recorded("A", run="same", epoch_s=90.0, course=(0.5, 0.6), seconds={"useful step": 180.0, "boot": 20.0}),
        recorded("B", run="other_recipe"),
        recorded("A", run="other_size", imgsz=640),
        recorded("A", run="other_machine", machine="Linux x86_64, 64 cores"),
    ]
    found = from_runs(train_request(), "wildlife", lambda run: run.machines == ["Linux x86_64, 8 cores"], runs)
    assert found.run == "same"
    estimate = by_run(load_recipe("A"), found, usd_per_hour=0.5)
    assert estimate.hours == ((80 * 90 + 20) / 3600,) * 2
    assert estimate.usd == pytest.approx((0.5 * estimate.hours[0],) * 2)
    assert from_runs(train_request(), "other_data", lambda _run: True, runs) is None


@pytest.mark.parametrize(
    ("machine", "is_it"),
    [("l4", True), ("l4-spot", True), ("L4-on-demand", True), ("a100", False), ("l40", False), ("spot", False)],
)
def test_a_kind_of_machine_is_known_by_its_gpu(machine, is_it):
    """A run counts for a kind of machine if that is what all of its attempts were on."""
    assert is_kind(recorded(machine="NVIDIA L4, Linux x86_64, 8 cores"), machine) is is_it


@pytest.mark.parametrize(
    ("machine", "price"),
    [("l4-large", {"machine_type": "g2-standard-16"}), ("l4-large-spot", {"machine": "g2-standard-16, Spot"})],
)
def test_a_run_on_a_machine_type_counts_for_that_one_alone(tmp_path, capsys, machine, price):
    """`job estimate --machine l4-large` goes by the machine type that the attempts recorded, now or by an older version
    with the price, and not by a GPU that other types have too.
    """
    store = FolderStore.create(str(tmp_path / "bucket"))
    store.put("datasets/wildlife/data.yaml", b"names: [zebra]\n")
    summary = recorded("A", run="zebra")
    (attempt,) = summary.attempts
    claim = attempt.claim.model_copy(update={"price": Price.model_validate(price)})
    put_recorded(store, dataclasses.replace(summary, attempts=(dataclasses.replace(attempt, claim=claim),)))
    words = ["estimate", "--recipe", "A", "--usd-per-hour", "1", "--bucket", store.uri]
    assert main([*words, "--machine", machine]) == 0
    assert "run zebra" in capsys.readouterr().out
    assert main([*words, "--machine", "l4"]) == 0
    assert "run zebra" not in capsys.readouterr().out


def test_the_stopwatch_measures_steps_after_the_warm_up():
    """Start-up, the first validation and the steps after the first two are measured apart; enough steps end it."""
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now = 10.0
    watch.enter(Phase.VALIDATION)
    clock.now = 14.0
    watch.on_epoch({"epoch": 0}, None)
    step = SimpleNamespace(losses={}, num_batches=100)
    with pytest.raises(EnoughError):
        for took_s in (5.0, 3.0, *[1.0] * 50):
            clock.now += took_s
            watch.on_step(step, None)
    measured = watch.measurement()
    assert (measured.start_up_s, measured.validation_s, measured.step_s) == (10.0, 4.0, 1.0)
    assert measured.warm_up_s == 6.0
    assert measured.num_steps == NUM_STEPS
    estimate = by_measurement(load_recipe("A"), measured, None)
    assert estimate.hours[0] == pytest.approx((80 * (100 + 4) + 10 + 6 + 2 * 4) / 3600)
    assert estimate.usd is None


def test_long_steps_are_measured_in_a_minute_and_short_epochs_to_their_end():
    """Few steps are enough if each takes long, and an epoch that ends is the end of it."""
    clock = Clock()
    watch = Stopwatch(clock)
    watch.on_epoch({"epoch": 0}, None)
    with pytest.raises(EnoughError):
        for _ in range(20):
            clock.now += 40.0
            watch.on_step(SimpleNamespace(losses={}, num_batches=20), None)
    assert clock.now == 160.0
    short = Stopwatch(clock)
    short.on_epoch({"epoch": 0}, None)
    clock.now += 3.0
    short.on_step(SimpleNamespace(losses={}, num_batches=1), None)
    with pytest.raises(EnoughError):
        short.on_epoch({"epoch": 1}, None)
    assert short.measurement().step_s == 3.0


def test_the_hours_of_the_recipe_hold_for_the_full_profile_alone():
    """Without a run or a measurement the recipe's own hours hold, with their source."""
    assert by_authors(load_recipe("A"), 1.0).usd == (5.0, 8.0)
    assert "not measured" in by_authors(load_recipe("A"), None).based_on
    assert by_authors(load_recipe("A", "demo"), None) is None
    assert by_authors(load_recipe("continue"), None) is None


def test_the_command_line_estimates_in_80_columns(tmp_path, capsys):
    """From a recorded run the command prints time, basis and cost, or the same as JSON; nothing is trained."""
    location = str(tmp_path / "bucket")
    store = FolderStore.create(location)
    store.put("datasets/wildlife/data.yaml", b"x")
    put_recorded(store, recorded("A", machine="NVIDIA L4, Linux x86_64, 8 cores"))
    words = ["estimate", "--recipe", "A", "--machine", "l4-spot", "--bucket", location]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "time        2 h 00 min: 80 epochs of 90 s" in shown
    assert "cost        0.70 USD at 0.35 USD an hour" in shown  # of the machine's profile
    assert main([*words[:3], "--machine", "h1000", "--bucket", location]) == 2
    assert "--machine: there is no 'h1000'" in capsys.readouterr().err
    assert max(map(len, shown.splitlines())) <= 80
    assert main([*words, "--usd-per-hour", "0.3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["hours"], printed["usd"]) == ([2.0, 2.0], [0.6, 0.6])
    assert main([*words[:3], "--machine", "h100", "--bucket", location]) == 0
    shown = capsys.readouterr().out
    assert "5 h 00 min to 8 h 00 min" in shown
    assert "pass --usd-per-hour" in shown
    assert main(["estimate", "--recipe", "continue", "--machine", "h100", "--bucket", location]) == 2
    assert "cannot be measured from here" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def l4_runs(tmp_path):
    """A bucket with an exact run on an L4, and one that need not be exact."""
    store = FolderStore.create(str(tmp_path / "bucket"))
    store.put("datasets/wildlife/data.yaml", b"x")
    for run, epoch_s, deterministic in (("exact", 100.0, True), ("fast", 80.0, False)):
        machine = "NVIDIA L4, Linux x86_64, 8 cores"
        put_recorded(store, recorded("A", run=run, epoch_s=epoch_s, machine=machine, deterministic=deterministic))
    return store.uri


@pytest.mark.parametrize(
    ("flags", "epoch_s", "exact_s", "num_traded"),
    [
        ((), 100.0, None, 0),
        (("--deterministic", "false"), 80.0, 100.0, 1),
        (("--deterministic", "false", "--compile"), None, None, 2),
    ],
)
def test_both_speeds_of_a_trade_are_shown_as_far_as_they_are_known(
    l4_runs, capsys, flags, epoch_s, exact_s, num_traded
):
    """An estimate with arguments that trade exactness says so, and has the pace of the exact training beside its own,
    each from a run with those arguments.
    """
    words = ["estimate", "--recipe", "A", "--machine", "l4-spot", "--bucket", l4_runs, *flags]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["epoch_s"], printed["exact"] and printed["exact"]["epoch_s"]) == (epoch_s, exact_s)
    assert len(printed["not_exact"]) == num_traded
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("\nnot exact   ") == num_traded
    assert ("if exact    2 h 13 min: 80 epochs of 100 s" in shown) is (exact_s is not None)
    assert max(map(len, shown.splitlines())) <= 80


def times_left(caplog):
    """Return the messages about the time left."""
    return [record.getMessage() for record in caplog.records if "the rest takes" in record.getMessage()]


def test_the_first_whole_epoch_corrects_the_estimate_once(caplog):
    """After the first epoch that this attempt trained from its beginning, the time and dollars left are logged once."""
    caplog.set_level(logging.INFO, "job")
    clock = Clock()
    reporter = Reporter(11, None, usd_per_hour=3.6, clock=clock, record=recorded("A").record)
    reporter.on_epoch({"epoch": 0, **ROW})
    clock.now += 60.0
    reporter.on_epoch({"epoch": 1, **ROW})
    assert times_left(caplog) == ["at 60 s an epoch the rest takes 10 min 00 s and costs 0.60 USD"]
    clock.now += 70.0
    reporter.on_epoch({"epoch": 2, **ROW})
    assert len(times_left(caplog)) == 1


def test_an_epoch_that_was_begun_by_another_attempt_corrects_nothing(caplog):
    """A resumed attempt waits for an epoch of its own; without a price it logs no dollars."""
    caplog.set_level(logging.INFO, "job")
    clock = Clock()
    reporter = Reporter(5, ROW, clock=clock, record=recorded("A").record)
    reporter.on_epoch({"epoch": 3, **ROW})
    assert times_left(caplog) == []
    clock.now += 60.0
    reporter.on_epoch({"epoch": 4, **ROW})
    assert times_left(caplog) == ["at 60 s an epoch the rest takes 1 min 00 s"]


def test_a_price_that_is_none_is_refused(monkeypatch):
    """The price in the environment is an amount or a usage error."""
    monkeypatch.setenv(USD_PER_HOUR, "0.35")
    assert usd_per_hour() == 0.35
    monkeypatch.setenv(USD_PER_HOUR, "a lot")
    with pytest.raises(UsageError, match="must be an amount in dollars"):
        usd_per_hour()
