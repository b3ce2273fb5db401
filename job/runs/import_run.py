"""Import of a run that stock Ultralytics trained: a folder of ``yolo train`` as a finished run.

Guarantees that the folder's files are copied as they are, that the run appears as finished with its final record, which
is written last, and that the same call goes on with an import that was cut off. Reads no weights.
"""

import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.errors import DataError, RunConflictError, UsageError
from job.recipes.arguments import DEFAULTS, check_arguments, requested
from job.recipes.recipe import Recipe, StartKind, load_recipe
from job.recipes.recognition import published_model, recognise
from job.runs.listing import RunListing
from job.runs.progress import metrics_of, read_rows
from job.runs.records import (
    Facts,
    FinalRecord,
    Imported,
    InitialWeights,
    Lineage,
    PinnedDataset,
    Request,
    RunRecord,
    now,
)
from job.runs.resume import exactness
from job.runs.run import BEST_WEIGHTS, Run
from job.runs.search import survey
from job.storage.checksums import sha256_of
from job.storage.object_store import Store
from job.text import MAX_BYTES, UnreadableYamlError, load_yaml
from job.training.files import BEST, LAST, RESULTS

log = logging.getLogger(__name__)

ARGS = "args.yaml"

NEEDED = ("epochs", "imgsz")
"""Arguments that a record cannot do without."""

UNKNOWN = "unknown"

WRITTEN = frozenset({".csv", ".yaml", ".png", ".jpg"})
"""Suffixes of what Ultralytics leaves beside the weights; a record of a run that lies there is not taken over."""


@dataclass(frozen=True, slots=True)
class UltralyticsRun:
    """A folder of ``yolo train``, read and checked."""

    folder: Path
    recipe: Recipe
    start: str
    """Model that it started from, as its arguments name it."""

    rows: list[dict[str, float]]
    course: list[dict[str, float]]
    sha256: Mapping[str, str]
    """Digests of the files of weights by name."""


def read_ultralytics_run(folder: Path) -> UltralyticsRun:
    """Read the arguments, rows and digests of a folder; raises `DataError` with every problem."""
    problems = []
    weights = {name: folder / "weights" / name for name in (BEST, LAST)}
    if not weights[BEST].is_file():
        problems.append(f"weights/{BEST}: is not there")
    rows: list[dict[str, float]] = []
    args: dict[str, Any] = {}
    try:
        rows = read_rows(_text(folder / RESULTS))
        course = [_metrics(row) for row in rows]
        if not rows:
            problems.append(f"{RESULTS}: has no row, so that no epoch was trained")
    except KeyError as error:
        problems.append(f"{RESULTS}: cannot be read, it has no column {error}")
    except (ValueError, TypeError, AttributeError) as error:
        problems.append(f"{RESULTS}: cannot be read, {error}")
    try:
        args = load_yaml(_text(folder / ARGS))
        if not isinstance(args, dict) or "epochs" not in args:
            problems.append(f"{ARGS}: has no training arguments")
        elif args.get("task", "detect") != "detect":
            problems.append(f"{ARGS}: is of the task {args['task']!r}, and detectors alone are imported")
    except (ValueError, UnreadableYamlError) as error:
        problems.append(f"{ARGS}: cannot be read, {error}")
    if problems:
        raise DataError(
            f"{folder}: is no folder of a training by Ultralytics; pass the one that has weights/", problems
        )
    recipe = _recipe_of(folder, args)
    digests = {name: sha256_of(path) for name, path in weights.items() if path.is_file()}
    return UltralyticsRun(folder.resolve(), recipe, str(args.get("model") or UNKNOWN), rows, course, digests)


def import_run(store: Store, found: UltralyticsRun, name: str, dataset: PinnedDataset) -> tuple[Run, bool]:
    """Store a run as finished under a name; return it, and whether it was there already.

    Raises `RunConflictError` if another run has the name.
    """
    run = Run(store, name)
    record = run.record()
    if record is None:
        if store.list(run.key("")):
            raise RunConflictError(f"run {name}: files that are no run lie there; pass another --run")
        run.create(_record(found, name, dataset))
        record = run.record()
    if record is None or record.imported is None or record.imported.sha256 != found.sha256[BEST]:
        raise RunConflictError(f"run {name}: is another run; pass another --run")
    if run.final() is not None:
        return run, True
    written = (each.name for each in found.folder.iterdir() if each.is_file() and each.suffix in WRITTEN)
    for path in (*(f"weights/{name}" for name in found.sha256), *sorted(written)):
        run.store.put(run.key(path), found.folder / path, overwrite=True)
    run.finish(_final(found, record).model_dump(mode="json"))
    RunListing(run).write_bundle()
    return run, False


def imported_before(store: Store, found: UltralyticsRun) -> str | None:
    """Return the name of the run as which the same weights were imported, finished or not."""
    for each in survey(store).runs:
        if each.record.imported is not None and each.record.imported.sha256 == found.sha256[BEST]:
            return each.run.name
    return None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES * 50:
            raise ValueError("it is too large")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(error.strerror) from error


def _metrics(row: dict[str, float]) -> dict[str, float]:
    metrics = metrics_of(row)
    if not all(map(math.isfinite, metrics.values())):
        raise ValueError("a metric is not finite")
    return metrics


def _recipe_of(folder: Path, args: Mapping[str, Any]) -> Recipe:
    """Return a recipe with the arguments that the job knows; others, of other versions of Ultralytics, are left out.

    Of a value that no training of the job takes, such as a batch size of -1, the default is recorded, with a warning.
    """
    given = {name: value for name, value in args.items() if name in DEFAULTS and value is not None}
    refused = {name: found[0] for name, value in given.items() if (found := check_arguments({name: value})[1])}
    if needed := [refused[name] for name in NEEDED if name in refused]:
        raise DataError(f"{folder}/{ARGS}: has values that no training takes; correct them", needed)
    for name, problem in refused.items():
        log.warning("%s/%s: %s; %r is recorded", folder, ARGS, problem, DEFAULTS[name])
    return load_recipe("base", "full").with_arguments(given | {name: DEFAULTS[name] for name in refused})


def _best(found: UltralyticsRun) -> int:
    """Return the last epoch, from 1, with the highest mAP50-95, by which Ultralytics chooses ``best.pt``."""
    return max(range(len(found.course)), key=lambda i: (found.course[i]["map50_95"], i)) + 1


def _record(found: UltralyticsRun, name: str, dataset: PinnedDataset) -> RunRecord:
    train, model = found.recipe.train, Path(found.start).name
    kind: StartKind = "own"
    if model.endswith((".yaml", ".yml")):
        kind = "scratch"
    elif published_model(model):
        kind = "pretrained"
    start = found.start if kind == "own" else model
    source = {"own": start, "pretrained": f"weights/{model}", "scratch": None}[kind]
    point = InitialWeights(kind, source, model if kind == "scratch" else None)
    request: Request = {
        "recipe": recognise("base", start, train, "full"),
        "profile": "full",
        "dataset": dataset.name,
        "start": start,
        "model": None,
        "new_classes": False,
        "quarantine": False,
        "train": requested(train),
    }
    facts = Facts(
        optimizer=str(train["optimizer"]),
        batch=train["batch"],
        num_threads=1,
        max_det=train["max_det"],
        device=UNKNOWN,
    )
    return RunRecord(
        run=name,
        created_at=now(),
        request=request,
        recipe_digest=found.recipe.digest,
        expect={},
        start=Lineage(point=point),
        dataset=dataset,
        facts=facts,
        environment={"versions": {}},
        wandb_id=secrets.token_hex(4),
        imported=Imported(folder=found.folder.name, sha256=found.sha256[BEST]),
    )


def _final(found: UltralyticsRun, record: RunRecord) -> FinalRecord:
    best, num_epochs = _best(found), len(found.rows)
    return FinalRecord.model_validate(
        {
            "finished_at": _ended_at(found),
            "attempt": 1,
            "reason": "complete" if num_epochs >= record.train["epochs"] else "stopped early",
            "num_epochs": num_epochs,
            "best_epoch": best,
            "train_s": max(0.0, found.rows[-1].get("time", 0.0)),
            "bits": exactness(record, ()),
            "comparison": {"before": None, "after": found.course[best - 1]},
            "course": [{"epoch": number, **metrics} for number, metrics in enumerate(found.course, start=1)],
            "weights": {name: {"sha256": digest} for name, digest in found.sha256.items()},
        }
    )


def _ended_at(found: UltralyticsRun) -> str:
    ended = (found.folder / BEST_WEIGHTS).stat().st_mtime
    return datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds")


def check_weights_name(name: str) -> str:
    """Return the name of a file of weights in the bucket; raises `UsageError` if published weights have it."""
    if not name.endswith(".pt") or "/" in name or published_model(name):
        raise UsageError(f"{name}: is no name for weights of your own; pass --name with another one that ends in .pt")
    return name
