"""``job report``: write a run's report, and open it."""

import tempfile
import webbrowser
from pathlib import Path

from job.cli.options import read_flag, require_store
from job.cli.runs import require_run
from job.errors import MachineError


def report_run(name: str, bucket: str | None, open_it: str) -> None:
    """Write the report of a run, print where it lies, and open it if that is wanted.

    Raises:
        RunConflictError: If there is no such run.
        MachineError: If it cannot be drawn here, or there is no browser to open it.
    """
    wants_it_open = read_flag(open_it, "open")
    store = require_store(bucket)
    run, record = require_run(store, name)
    try:
        from job.report.publish import write_report
    except ImportError as error:
        raise MachineError(f"report: the package {error.name} is missing; install it, or run `make light`") from error
    key = write_report(run, record)
    print(f"{store.uri}/{key}")
    if not wants_it_open:
        return
    page = Path(store.uri, key)
    if "://" in store.uri:
        page = Path(tempfile.mkdtemp(prefix="job-report-"), f"{name}.html")
        store.get(key, page)
    if not webbrowser.open(page.as_uri()):
        raise MachineError(f"report: there is no browser here; open {page} yourself")
