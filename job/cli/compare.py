"""``job compare``: runs side by side, on the terminal or as a page."""

import json as json_format
from pathlib import Path

from job.analysis.comparison import Sheet, compare
from job.analysis.summary import read_summary
from job.cli.options import read_flag, require_store
from job.cli.runs import require_run
from job.cli.tables import grid, labelled
from job.errors import MachineError, UsageError
from job.report import elements


def compare_runs(names: tuple[str, ...], bucket: str | None, *, html: str | None, json: str) -> None:
    """Print runs side by side.

    Raises:
        UsageError: If fewer than two different runs are named.
        RunConflictError: If one is not there.
        MachineError: If the page cannot be written.
    """
    as_json = read_flag(json, "json")
    if len(set(names)) < 2 or len(set(names)) < len(names):  # noqa: PLR2004 -- one has nothing to be compared with
        raise UsageError(f"compare: needs two or more different runs, got {', '.join(names) or 'none'}")
    store = require_store(bucket)
    sheet = compare([read_summary(*require_run(store, name)) for name in names])
    if html is not None:
        try:
            Path(html).write_text(as_page(sheet), encoding="utf-8")
        except OSError as error:
            raise MachineError(f"{html}: cannot be written, {error.strerror}; pass another --html") from error
    if as_json:
        print(json_format.dumps(sheet.to_json(), indent=1))
    else:
        print("\n".join(told(sheet)))


def told(sheet: Sheet) -> list[str]:
    """Return a sheet as lines for a terminal; where all runs agree, once."""
    rows = []
    for section, lines in sheet.sections.items():
        rows.append((section.upper(), *[""] * len(sheet.runs)))
        rows += [(line.label, *line.values) for line in lines if any(line.values)]
    return [*grid(("", *sheet.runs), rows), "", *_verdict(sheet)]


def as_page(sheet: Sheet) -> str:
    """Return a sheet as a page; what differs is marked."""
    parts = [elements.paragraph(" ".join(line.split()), _kind(sheet)) for line in (" ".join(_verdict(sheet)),)]
    for section, lines in sheet.sections.items():
        shown = [line for line in lines if any(line.values)]
        marked = [number for number, line in enumerate(shown) if line.differs]
        rows = [(line.label, *line.values) for line in shown]
        parts += [elements.heading(section), elements.table(("", *sheet.runs), rows, marked)]
    return elements.page("Compared: " + ", ".join(sheet.runs), parts)


def _kind(sheet: Sheet) -> str:
    return "warning" if sheet.not_comparable else ""


def _verdict(sheet: Sheet) -> list[str]:
    if sheet.not_comparable is not None:
        return labelled("warning", f"metrics are not comparable: {sheet.not_comparable}")
    if sheet.best is None:
        return labelled("best", "none is finished")
    return labelled("best", f"{sheet.best} by F1; all were measured on the same validation set")
