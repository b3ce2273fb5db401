"""The import rule: rooms import from lower ones only, and each library belongs to its room."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOB = ROOT / "job"

FLOORS = (
    {"cli"},
    {"audit", "export"},
    {"prediction"},
    {"session"},
    {"tracking"},
    {"report"},
    {"cloud", "analysis"},
    {"datasets", "runs"},
    {"storage", "training", "recipes"},
    {"log", "errors", "goodput", "text", "background"},
)
"""Rooms, and the modules beside them, from the highest floor to the ground; each imports from lower floors only."""

OUTSIDE = {
    "cv2": {
        *("datasets", "prediction.drawing"),
        *("training.augmentation", "training.dataset", "training.decoding", "training.tiled_detection"),
    },
    "PIL": {"datasets", "report.examples", "session.demo", "tracking.client", "training.decoding"},
    "dhash": {"datasets.near_duplicates"},
    "fire": {"cli"},
    "google": {"cloud.batch", "cloud.google_api", "storage"},
    "google_crc32c": {"storage"},
    "grpc": {"cloud.batch"},
    "jinja2": {"report"},
    "matplotlib": {"report.charts", "training"},
    "numpy": {"analysis", "audit", "datasets", "export", "prediction", "session.demo", "training"},
    "obstore": {"storage"},
    "pydantic": {
        *("analysis", "cli", "cloud", "datasets", "export", "prediction", "recipes", "runs", "session", "text"),
        *("training.evaluation_record", "training.position"),
    },
    "requests": {"cloud.google_api", "storage"},
    "simplejpeg": {"training.decoding"},
    "torch": {"training"},
    "torchvision": {"training.eager", "training.tiled_detection"},
    "tqdm": {"log"},
    "typing_extensions": {"runs.records", "storage.base"},
    "ultralytics": {"training"},
    "wandb": {"tracking"},
    "yaml": {"cli", "cloud.machine_types", "datasets", "text"},
}
"""Which modules, or all modules of which subpackages, may import a library that does not come with Python."""

HEAVY = {"google", "jinja2", "matplotlib", "torch", "ultralytics", "wandb"}
"""Libraries that `job --help` does not import, nor a training before its checks."""


def test_every_room_has_a_floor():
    """The floors name each room and module of `job`, and none that is gone; only the process stands above them,
    and at most five modules are in no room.
    """
    assert {unit(name) for name, _ in modules()} - {"__main__"} == set().union(*FLOORS)
    assert len(FLOORS[-1]) <= 5


def test_rooms_import_from_lower_floors_only():
    """No import, inside a function or for types alone, leads up or to another room of the same floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms} | {"__main__": -1}
    ground = len(FLOORS) - 1
    found = {
        (unit(importer), unit(target.removeprefix("job."))) for importer, target in edges() if unit(target) == "job"
    }
    between = {(importer, target) for importer, target in found if importer != target and target in floor}
    assert {(importer, target) for importer, target in between if floor[importer] >= floor[target] < ground} == set()


def test_no_module_imports_itself_in_a_circle():
    """Modules can be put in an order in which each imports earlier ones only, imports inside of functions included."""
    names = {f"job.{name}" for name, _ in modules()} | {"job"}
    graph = {}
    for importer, target in edges():
        module = target if target in names else target.rpartition(".")[0]
        graph.setdefault(f"job.{importer}", set()).add(
            module if module in names and module != f"job.{importer}" else "job"
        )
    list(graphlib.TopologicalSorter(graph).static_order())


def test_libraries_are_imported_where_the_table_allows():
    """No module imports a library that the table keeps for others, or that the table does not know."""
    found = {(importer, unit(target)) for importer, target in edges()}
    foreign = {(importer, library) for importer, library in found if library not in {"job", *sys.stdlib_module_names}}
    assert {(importer, library) for importer, library in foreign if not may_import(importer, library)} == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("from job import storage, errors", {"job.storage", "job.errors"}),
        ("def later():\n    from job.storage.gcs import GcsStore", {"job.storage.gcs.GcsStore"}),
    ],
)
def test_the_walk_sees_every_form_of_import(source, expected):
    """An import is found in each way to write it, also inside a function."""
    assert set(imports(source)) == expected


@pytest.mark.parametrize("words", [["-m", "job", "--help"], ["-c", "import job.cli.train, job.session.train"]])
def test_nothing_heavy_is_imported_before_it_is_needed(words):
    """The program's help is shown, and a training checks its request, without a library that takes long to load."""
    command = [sys.executable, "-X", "importtime", *words]
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
    """Whether the table names a module, or the subpackage that it is in, for a library."""
    return any(f"{importer}.".startswith(f"{owner}.") for owner in OUTSIDE.get(library, ()))


def imports(source: str) -> Iterator[str]:
    """Yield the full dotted name of everything that a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)  # never relative: ruff sees to that
