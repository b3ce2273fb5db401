"""``job report``: write a run's report, and open it."""

import logging
import tempfile
import webbrowser
from pathlib import Path

from pydantic import Field

from job.cli.command import command
from job.cli.options import RunOptions
from job.cli.runs import require_run
from job.errors import MachineError

log = logging.getLogger(__name__)


class ReportOptions(RunOptions):
    """Flags of ``job report``."""

    open: bool = Field(default=False, description="Open it in the browser.")


@command(ReportOptions, "job report zebra --bucket gs://my-bucket --open")
def report(options: ReportOptions) -> None:
    """Write the report of a run, print its address, and open it with --open.

    It is one HTML file, beside the run's weights.
    """
    store = options.store()
    run, record = require_run(store, options.run)
    try:
        from job.report.publish import write_report
    except ImportError as error:
        raise MachineError(f"report: the package {error.name} is missing; install it, or run `make light`") from error
    key = write_report(run, record)
    print(f"{store.uri}/{key}")
    if not options.open:
        return
    page, is_here = Path(store.uri, key), "://" not in store.uri
    if not is_here:
        page = Path(tempfile.mkdtemp(prefix="job-report-"), f"{options.run}.html")
        store.get(key, page)
    if not webbrowser.open(page.as_uri()):
        log.info("report: no browser opens here%s", "" if is_here else f"; the page is {page}")
