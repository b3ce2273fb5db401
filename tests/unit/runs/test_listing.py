"""Records of a run by one listing and one bundle."""

import json
import logging
from pathlib import Path

import pytest

from job.analysis.summary import finished_runs
from job.cli.app import main
from job.runs.listing import BUNDLE, RunListing
from job.runs.resume import PreviousAttempts
from job.runs.run import Claim, Run
from job.runs.search import survey
from tests.support.attempt_records import final_content
from tests.support.counting_store import CountingStore
from tests.unit.runs.test_run import record


@pytest.fixture
def store(tmp_path):
    """An empty bucket."""
    return CountingStore.create(str(tmp_path / "bucket"))


def attempted(store, name, num_attempts):
    """Return a run of so many attempts; each has all five records."""
    run = Run(store, name)
    run.create(record(name))
    first = run.claim({"host": "vm"})
    first.start({})
    first.heartbeat({})
    first.ask_to_stop("here")
    first.end("preempted", {})
    folder = Path(store.uri) / run.key("attempts")
    for path in sorted(folder.iterdir()):
        for number in range(2, num_attempts + 1):
            text = path.read_text().replace('"attempt": 1', f'"attempt": {number}')
            path.with_name(path.name.replace("0001", f"{number:04d}")).write_text(text)
    return run


def requests_of_a_resumption(store, num_attempts):
    """Return the requests for the records of earlier attempts, of an attempt after so many, and those records."""
    run = attempted(store, f"run{num_attempts}x", num_attempts)
    PreviousAttempts.of(Claim(run, num_attempts))  # as that attempt does at its start
    claim = run.claim({})
    store.requests.clear()
    previous = PreviousAttempts.of(claim)
    assert [attempt.number for attempt in previous.attempts] == list(range(1, num_attempts + 1))
    assert [attempt.claim.host for attempt in previous.attempts] == ["vm"] * num_attempts
    assert all(attempt.start and attempt.heartbeat and attempt.stop and attempt.end for attempt in previous.attempts)
    return store.num_requests


def test_two_hundred_earlier_attempts_cost_a_few_requests(store):
    """The records of all earlier attempts but the last come in one bundle, which that attempt has written."""
    few = requests_of_a_resumption(store, 1)
    assert requests_of_a_resumption(store, 200) <= few + 1


def finished(store, name, num_attempts=3):
    """Return a finished run, with its bundle."""
    run = attempted(store, name, num_attempts)
    run.finish(final_content())
    RunListing(run).write_bundle()
    return run


def test_a_list_of_finished_runs_reads_one_object_of_each(store, capsys):
    """`job runs list` and the analysis of all runs ask for the folders once, and read the bundle of each run alone."""
    runs = [finished(store, f"zebra{number}") for number in range(1, 6)]
    store.requests.clear()
    assert len(finished_runs(store)) == 5
    assert store.requests == {("folders", "runs/"): 1} | {("read", run.key(BUNDLE)): 1 for run in runs}
    assert main(["runs", "list", "--bucket", store.uri]) == 0
    assert capsys.readouterr().out.count("complete     1/3  50.0%") == 5


def test_an_unfinished_run_is_listed_anew(store):
    """Attempts, and an end, that came after the bundle of a run that was not finished are seen in a list of runs."""
    run = attempted(store, "zebra", 2)
    RunListing(run).write_bundle()
    claim = run.claim({"host": "late"})
    [found] = survey(store).runs
    assert ([attempt.claim.host for attempt in found.listing.attempts()][-1], found.finished) == ("late", False)
    run.finish(final_content())
    RunListing(run).write_bundle()  # while that attempt goes on
    claim.end("superseded", {})
    [found] = survey(store).runs
    assert (found.listing.attempts()[-1].end.reason, found.finished) == ("superseded", True)


def test_a_bundle_of_another_run_is_not_believed(store):
    """A copy of a finished run under another name is no run, and its own record counts once it is corrected."""
    run = finished(store, "zebra")
    for stored in store.list(run.key("")):
        store.put(stored.key.replace("zebra", "gnu"), store.read(stored.key))
    assert survey(store).strays == {"gnu": "is not a run, but a copy of another one"}
    record = store.read("runs/gnu/run.json").replace(b'"zebra"', b'"gnu"')
    store.put("runs/gnu/run.json", record, overwrite=True)
    assert [found.record.run for found in survey(store).runs] == ["gnu", "zebra"]


def test_before_a_deletion_finished_runs_are_listed_too(store):
    """What hangs on a final record that is gone is asked of the bucket, and not of the bundle."""
    run = finished(store, "zebra")
    store.delete(run.key("final.json"))
    assert [found.finished for found in survey(store, list_ended=True).runs] == [False]


def test_an_empty_folder_is_no_run(store, tmp_path):
    """A folder without an object takes no name, and is not shown."""
    (tmp_path / "bucket" / "runs" / "zebra").mkdir(parents=True)
    seen = survey(store)
    assert (seen.runs, seen.submitted, seen.strays, seen.names) == ([], [], {}, [])


def test_a_record_that_changed_after_the_bundle_is_read_anew(store):
    """A heartbeat, an end and an attempt that came after the bundle are those of the bucket."""
    run = attempted(store, "zebra", 2)
    claim = run.claim({"host": "late"})
    claim.heartbeat({"seconds": {"useful step": 1.0}})
    RunListing(run).write_bundle()
    claim.heartbeat({"seconds": {"useful step": 2.0}})
    claim.end("failed", {"message": "of late"})
    run.claim({"host": "later"})
    *_, late, later = RunListing(run).attempts()
    assert (late.heartbeat.seconds["useful step"], late.end.message, later.claim.host) == (2.0, "of late", "later")
    store.delete(run.key("attempts/0003.end.json"))
    assert RunListing(run).attempts()[2].end is None


@pytest.mark.parametrize("damage", [b"{", b'{"schema": 99, "records": {}}', b"\xff"])
def test_a_bundle_that_cannot_be_read_costs_only_requests(store, damage, caplog):
    """Whatever lies under its name, the records themselves are read, and a warning says so."""
    run = attempted(store, "zebra", 2)
    store.put(run.key(BUNDLE), damage, overwrite=True)
    with caplog.at_level(logging.WARNING):
        assert [attempt.number for attempt in RunListing(run).attempts()] == [1, 2]
    assert "are read one by one" in caplog.text


def test_a_bundle_that_cannot_be_written_is_a_warning(store, caplog, tmp_path):
    """Nothing hangs on it."""
    run = attempted(store, "zebra", 1)
    (tmp_path / "bucket/runs/zebra" / BUNDLE).mkdir()
    RunListing(run).write_bundle()
    assert "its records were not bundled" in caplog.text


def test_a_listed_run_is_the_run(store):
    """Record, end and attempts by listing are those that `Run` reads one by one, and a copy is no run."""
    run = attempted(store, "zebra", 2)
    listing = RunListing(run)
    assert (listing.record(), listing.final()) == (run.record(), None)
    assert listing.attempts() == [run.attempt(number) for number in run.attempt_numbers()]
    listing.write_bundle()
    store.put("runs/copy/run.json", store.read(run.key("run.json")))
    store.put(f"runs/copy/{BUNDLE}", store.read(run.key(BUNDLE)))
    assert [found.run.name for found in survey(store).runs] == ["zebra"]
    assert json.loads(store.read(run.key(BUNDLE)))["records"].keys() >= {"run.json", "attempts/0002.end.json"}
