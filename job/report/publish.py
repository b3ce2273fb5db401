"""Writes ``report.html`` beside a run's records.

Guarantees that the newer story stays: if another report is written meanwhile, the records are read again.
"""

from job.errors import ObjectNotFoundError, PreconditionError
from job.report.data import read_facts
from job.report.page import render
from job.runs.records import RunRecord
from job.runs.run import Run

REPORT = "report.html"


def write_report(run: Run, record: RunRecord) -> str:
    """Write a run's report, in place of an earlier one, and return its key.

    Raises:
        StoreError: If the store refuses.
    """
    key = run.key(REPORT)
    while True:
        try:
            version = run.store.stat(key).version
        except ObjectNotFoundError:
            version = None
        page = render(read_facts(run, record)).encode()
        try:
            run.store.put(key, page, if_version=version)
        except PreconditionError:
            continue
        return key
