"""Writes ``report.html`` beside a run's records.

Guarantees that a report which was overtaken while it was rendered does not replace the newer one: the records are read
again. Two reports put in the same moment are alike but for that moment, and the next commit replaces both.
"""

from job.errors import ObjectNotFoundError
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
        before = _version(run, key)
        page = render(read_facts(run, record)).encode()
        if _version(run, key) == before:
            run.store.put(key, page, overwrite=True)
            return key


def _version(run: Run, key: str) -> str | None:
    try:
        return run.store.stat(key).version
    except ObjectNotFoundError:
        return None
