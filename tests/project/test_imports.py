"""Who may import whom. The two tables document the structure of the package; whoever adds an edge adds it here."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOB = ROOT / "job"

INSIDE = {
    "__main__": {"cli", "errors", "signals"},
    "account": {"bill", "checkpoint", "errors", "ledger", "run", "units"},
    "attempt": {"bill", "continuity", "curve", "errors", "ledger", "machine", "notice", "run", "training", "watchdog"},
    "background": {"errors"},
    "beside": {"recipe", "request", "run", "store"},
    "bill": {"ledger", "units"},
    "advice": {"course", "evidence", "option"},
    "cadence": set(),
    "campaign": {"advice", "errors", "estimate", "evidence", "option", "recipe", "run", "store"},
    "campaign_page": {"campaign", "evidence", "outcome", "page", "units"},
    "campaign_run": {"campaign", "campaign_page", "errors", "evidence", "prices", "run"},
    "checkpoint": {"errors", "run", "store"},
    "cli": {"cli_cloud", "cli_runs", "commands", "errors", "help", "invocation", "log", "signals"},
    "cli_cloud": {"commands", "invocation"},
    "cli_runs": {"commands", "invocation"},
    "cloud": {
        *("account", "bill", "checkpoint", "errors", "limited_yaml", "request", "run", "store", "training_arguments"),
        "units",
    },
    "commands": {
        *(
            "beside",
            "request",
            "account",
            "advice",
            "bill",
            "campaign",
            "campaign_page",
            "campaign_run",
            "checkpoint",
            "cloud",
            "comparison",
            "curve",
            "data",
            "demo",
            "doctor",
            "errors",
            "estimate",
            "evidence",
            "ledger",
            "log",
            "machine",
            "notice",
            "option",
            "order",
            "outcome",
            "page",
            "prices",
            "recipe",
            "recognition",
            "report",
            "run",
            "session",
            "start",
            "store",
            "tracking",
            "training",
            "training_arguments",
            "units",
            "verification",
        ),
    },
    "committer": {"background", "checkpoint", "errors", "run"},
    "comparison": {"evidence", "outcome"},
    "continuity": {"checkpoint", "errors", "run", "units"},
    "course": set(),
    "curve": {"run"},
    "data": {"errors", "ledger", "limited_yaml", "log", "machine", "store", "training_arguments"},
    "demo": {"data", "errors", "log", "order", "recipe", "session", "start", "store"},
    "doctor": {"errors", "recipe", "store", "tracking"},
    "errors": set(),
    "estimate": {"evidence", "ledger", "order", "recipe", "training"},
    "evidence": {"account", "bill", "errors", "outcome", "recognition", "request", "run", "store"},
    "help": {"training_arguments"},
    "host": {"cadence", "checkpoint", "committer", "errors", "ledger", "notice", "reporter", "training", "watchdog"},
    "invocation": set(),
    "ledger": {"background"},
    "limited_yaml": set(),
    "log": {"errors"},
    "machine": {"errors"},
    "metadata": set(),
    "mirror": {"run"},
    "notice": {"background", "errors", "metadata", "signals"},
    "option": {"evidence", "recipe"},
    "order": {"recipe", "recognition"},
    "outcome": {"recipe"},
    "page": set(),
    "prices": {"bill", "cloud", "errors", "metadata"},
    "pulse": {"background", "errors", "run"},
    "recipe": {"errors", "limited_yaml", "training_arguments"},
    "recognition": {"recipe", "training_arguments"},
    "renewal": {"run", "signals"},
    "report": {
        *(
            "beside",
            "account",
            "bill",
            "checkpoint",
            "continuity",
            "curve",
            "course",
            "data",
            "errors",
            "ledger",
            "outcome",
            "progress",
            "recipe",
            "recognition",
            "run",
            "store",
        ),
        "units",
    },
    "reporter": {"log", "outcome", "recipe", "run", "training", "units"},
    "progress": {"checkpoint", "errors", "run"},
    "request": {"errors", "run", "store"},
    "run": {"errors", "store"},
    "scratch": {"machine"},
    "session": {
        *(
            "beside",
            "request",
            "attempt",
            "bill",
            "cadence",
            "checkpoint",
            "committer",
            "continuity",
            "data",
            "doctor",
            "errors",
            "host",
            "ledger",
            "machine",
            "mirror",
            "notice",
            "order",
            "outcome",
            "prices",
            "pulse",
            "recipe",
            "renewal",
            "reporter",
            "run",
            "scratch",
            "start",
            "store",
            "together",
            "tracking",
            "training",
            "watchdog",
        ),
    },
    "signals": set(),
    "start": {"checkpoint", "data", "errors", "order", "recipe", "recognition", "run", "store", "training", "request"},
    "store": {"errors"},
    "together": {
        "data",
        "doctor",
        "host",
        "ledger",
        "machine",
        "notice",
        "order",
        "scratch",
        "store",
        "training",
        "watchdog",
    },
    "tracking": {"curve", "errors", "outcome", "progress", "report", "run", "signals", "store"},
    "training": {"errors", "ledger", "limited_yaml", "signals"},
    "training_arguments": set(),
    "units": set(),
    "watchdog": {"background", "errors"},
    "verification": {"checkpoint", "errors", "host", "run", "store", "tracking", "training"},
}
"""What each module or subpackage of `job` may import of the others. A subpackage is one row and may import itself."""

OUTSIDE = {
    "cv2": {"data"},
    "PIL": {"data", "demo", "report.pictures", "tracking.client"},
    "fire": {"cli", "invocation"},
    "google": {"cloud.batch", "cloud.logs", "store.gcs", "store.gcs_errors"},
    "google_crc32c": {"store"},
    "grpc": {"cloud.batch"},
    "jinja2": {"report.page"},
    "matplotlib": {"report.charts", "training"},
    "numpy": {"data", "demo", "training"},
    "obstore": {"store"},
    "requests": {"cloud.logs", "store.gcs_errors"},
    "torch": {"training"},
    "tqdm": {"log"},
    "ultralytics": {"training"},
    "wandb": {"tracking"},
    "yaml": {"cloud.machines", "commands", "data", "limited_yaml"},
}
"""Which modules, or all modules of which subpackages, may import a library that does not come with Python."""

HEAVY = {"google", "jinja2", "matplotlib", "torch", "ultralytics", "wandb"}
"""What `job --help` does not wait for."""


def test_every_module_has_a_row():
    """The table has a row for each module and subpackage of `job`, and none for one that is gone."""
    assert {unit(name) for name, _ in modules()} == INSIDE.keys()


def test_modules_import_what_the_table_allows():
    """No module imports another one of `job` that its row does not name."""
    found = {
        (unit(importer), unit(target.removeprefix("job."))) for importer, target in edges() if unit(target) == "job"
    }
    allowed = {(importer, target) for importer, row in INSIDE.items() for target in {importer, *row}}
    assert {(importer, target) for importer, target in found - allowed if target in INSIDE} == set()


def test_libraries_are_imported_where_the_table_allows():
    """No module imports a library that the table keeps for others, or that the table does not know."""
    found = {(importer, unit(target)) for importer, target in edges()}
    foreign = {(importer, library) for importer, library in found if library not in {"job", *sys.stdlib_module_names}}
    assert {(importer, library) for importer, library in foreign if not may_import(importer, library)} == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("from job import store, errors", {"job.storage", "job.errors"}),
        ("def later():\n    from job.storage.gcs import GcsStore", {"job.storage.gcs.GcsStore"}),
    ],
)
def test_the_walk_sees_every_form_of_import(source, expected):
    """An import is found in each way to write it, also inside a function."""
    assert set(imports(source)) == expected


def test_help_imports_nothing_heavy():
    """The program's help is shown without importing a library that takes long to load."""
    command = [sys.executable, "-X", "importtime", "-m", "job", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    trace = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    loaded = {unit(line.rpartition("|")[2].strip()) for line in trace}
    assert (done.returncode, "job" in loaded, loaded & HEAVY) == (0, True, set())


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name inside `job`, and the file, of each module; `job` itself is left out."""
    for path in sorted(JOB.rglob("*.py")):
        parts = path.relative_to(JOB).with_suffix("").parts
        if parts != ("__init__",):
            yield ".".join(part for part in parts if part != "__init__"), path


def edges() -> Iterator[tuple[str, str]]:
    """Yield each module of `job` with each name that it imports."""
    for importer, path in modules():
        yield from ((importer, target) for target in imports(path.read_text()))


def unit(name: str) -> str:
    """Return the first part of a dotted name."""
    return name.partition(".")[0]


def may_import(importer: str, library: str) -> bool:
    """Tell whether the table names a module, or the subpackage that it is in, for a library."""
    return any(f"{importer}.".startswith(f"{owner}.") for owner in OUTSIDE.get(library, ()))


def imports(source: str) -> Iterator[str]:
    """Yield the full dotted name of everything that a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # never relative: ruff sees to that
