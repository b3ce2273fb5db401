"""Requests of a report."""

from job.report.data import read_facts
from job.runs.listing import BUNDLE, RunListing
from job.runs.run import Run
from tests.support.counting_store import CountingStore
from tests.support.run_records import record_run


def requests_of_a_report(folder):
    """Return the requests for the facts of the run."""
    run = Run(CountingStore.open(str(folder)), "zebra")
    record = run.record()
    run.store.requests.clear()
    read_facts(run, record)
    return run.store.requests


def test_another_finished_run_costs_a_report_one_request(tmp_path):
    """Its bundle is read; objects of the run itself are read once each, and its folder is listed once."""
    folder = tmp_path / "bucket"
    RunListing(record_run(folder, (0.62, 0.66))).write_bundle()
    few = requests_of_a_report(folder)
    for name in ("gnu", "lion", "kudu"):
        RunListing(record_run(folder, (0.62, 0.66), name=name)).write_bundle()
    many = requests_of_a_report(folder)
    assert many - few == {("read", f"runs/{name}/{BUNDLE}"): 1 for name in ("gnu", "lion", "kudu")}
    few.pop(("read", f"runs/zebra/{BUNDLE}"))  # among those of all runs, too
    assert set(few.values()) == {1}
