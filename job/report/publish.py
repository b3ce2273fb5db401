"""Report publishing: writes ``report.html`` beside a run's records.

Guarantees that an older report does not replace a newer one: if the object changed during rendering, the records are
read again. Of two reports put in the same moment either may stay; the next commit replaces it.
"""

from job.report.data import read_facts
from job.report.page import render
from job.runs.records import RunRecord
from job.runs.run import REPORT, Run


def write_report(run: Run, record: RunRecord) -> str:
    """Write a run's report, in place of an earlier one, and return its key."""
    key = run.key(REPORT)
    while True:
        before = run.store.list(key)
        page = render(read_facts(run, record)).encode()
        if run.store.list(key) == before:
            run.store.put(key, page, overwrite=True)
            return key
