"""``job compare``: runs side by side, on the terminal or as an HTML page."""

from pathlib import Path

from pydantic import Field

from job.analysis.comparison import Comparison, compare
from job.analysis.paired import pair, read_measurements
from job.analysis.summary import read_summary
from job.cli.command import command
from job.cli.options import BucketOption, JsonOption
from job.cli.runs import require_run
from job.errors import MachineError, UsageError
from job.report.template import render_template
from job.text import NUM_COLUMNS, labelled, table

MIN_CELL = 13
"""Columns of a cell, at least."""

ADVICE = "name them: `job compare zebra zebra2`, or `make compare ARGS='zebra zebra2'`"


class CompareOptions(BucketOption, JsonOption):
    """Flags of ``job compare``."""

    positional = ("runs",)

    runs: tuple[str, ...] = Field((), description="The runs' names.")
    html: str | None = Field(None, description="A file to write the comparison to as an HTML page.")


@command(CompareOptions, "job compare zebra gnu --html compared.html --bucket gs://my-bucket")
def compare_runs(options: CompareOptions) -> None:
    """Print runs side by side.

    Shows recipe, data, result and cost, and whether the metrics may be compared. Runs that were measured on the same
    pictures, of the test split after `job evaluate`, are paired by picture: a difference whose 95 % interval holds 0 is
    not distinguishable.
    """
    names, html = options.runs, options.html
    if len(set(names)) < 2 or len(set(names)) < len(names):  # noqa: PLR2004 -- a comparison needs two
        raise UsageError(f"compare: needs two or more different runs, got {', '.join(names) or 'none'}; {ADVICE}")
    store = options.store()
    summaries = [read_summary(*require_run(store, name)) for name in names]
    measured = [read_measurements(store, summary) for summary in summaries]
    comparison = compare(summaries, pair(measured))
    if html is not None:
        try:
            Path(html).write_text(render_template("comparison.html.j2", comparison=comparison), encoding="utf-8")
        except OSError as error:
            raise MachineError(f"{html}: cannot be written, {error.strerror}; pass another --html") from error
    options.print(comparison.to_json(), format_comparison(comparison))


def format_comparison(comparison: Comparison) -> list[str]:
    """Return a comparison as lines for a terminal; several tables for many runs."""
    labels = [field.label for fields in comparison.recorded.values() for field in fields]
    available = NUM_COLUMNS - max(map(len, labels))
    per_table = max(1, available // (MIN_CELL + 2))
    lines: list[str] = []
    for first in range(0, len(comparison.runs), per_table):
        part = slice(first, first + per_table)
        runs = comparison.runs[part]
        rows: list[tuple[str, ...]] = [("", *runs)]
        for section, fields in comparison.recorded.items():
            rows.append((section.upper(), *[""] * len(runs)))
            rows += [(field.label, *field.values[part]) for field in fields]
        lines += [*table(rows, wrap=available // len(runs) - 2), ""]
    return [*lines, *labelled(*comparison.verdict)]
