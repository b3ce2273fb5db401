"""Report publishing: writes ``report.html`` beside a run's records.

Guarantees that an older report does not replace a newer one: if the object changed during rendering, the records are
read again. Of two reports put in the same moment either may stay; the next commit replaces it.
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
