"""Lineage: the choice of a run's start weights, their download, and the request that a run was made by.

Guarantees that training gets the file that the run's record names. Knows nothing of its content.
"""

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from job.errors import (
    CorruptObjectError,
    ObjectNotFoundError,
    PreconditionError,
    RunConflictError,
    UsageError,
    WeightsError,
)
from job.recipes.arguments import DEFAULTS
from job.recipes.recipe import Band, Profile, Recipe, Start, load_recipe
from job.recipes.recognition import published_model, trained_as
from job.runs import checkpoint
from job.runs.records import CheckpointId, InitialWeights, Manifest, RunRecord
from job.runs.request import Execution, TrainRequest
from job.runs.run import BEST_WEIGHTS, Run, default_families, family_of, is_run_name
from job.runs.search import survey
from job.storage.checksums import sha256_of
from job.storage.object_store import Store
from job.storage.open_store import open_store
from job.storage.paths import is_file
from job.text import dataset_and_version
from job.training.files import BEST

log = logging.getLogger(__name__)


def find_start(store: Store, request: TrainRequest, run: str | None) -> InitialWeights:
    """Return the first weights of a request whose dataset is known.

    ``--weights`` and ``--model`` replace the recipe's start. A recipe that starts from own weights gets the best of the
    finished runs of the same profile in the family of `run`, or else in `default_families`.

    Raises `WeightsError` if there are none, `RunConflictError` if a run is to be extended and has not ended,
    `UsageError` if that run has trained as many epochs already.
    """
    architecture = request.model if request.model and request.model.endswith((".yaml", ".yml")) else None
    if request.weights is not None:
        return replace(_named(store, request.weights), architecture=architecture)
    start = Start.parse(request.model) if request.model else request.recipe.start
    if start.kind == "end":
        return _find_end(Run(store, str(start.name)), request.recipe.train["epochs"])
    if start.kind == "scratch":
        return InitialWeights("scratch", None, start.name)
    if start.kind == "pretrained":
        return InitialWeights("pretrained", f"weights/{start.name}", None)
    families = [*([family_of(run)] if run else []), *default_families(request.dataset)]
    own = _best_own(store, request, start.name, families)
    if own is not None:
        return own
    of = f" of recipe {start.name}" if start.name else ""
    raise WeightsError(
        f"start weights: there is no finished run{of} in {store.uri}; run --recipe {start.name or 'base'} first, or "
        "pass --weights with a run, a file or a URI"
    )


def extended_request(
    name: str, record: RunRecord, num_epochs: int, new_run: str | None, execution: Execution
) -> TrainRequest:
    """Return the request that extends an old run to a new total of epochs, with all its other values."""
    request = _recorded(record, Start("end", name), execution)
    longer = request.recipe.with_arguments(request.recipe.train | {"epochs": num_epochs})
    return request.model_copy(update={"run": new_run, "recipe": longer})


def recorded_request(record: RunRecord, execution: Execution) -> TrainRequest:
    """Return the request of a run by its record, to be executed on this machine."""
    start, model, point = record.request["start"], record.request["model"], record.start.point
    if point.kind == "end":
        return _recorded(record, Start("end", point.run), execution)
    if model is None:
        with contextlib.suppress(ValueError):  # else the command line named weights
            return _recorded(record, Start.parse(start), execution)
    return _recorded(record, Start("own"), execution).model_copy(update={"weights": start, "model": model})


def _recorded(record: RunRecord, start: Start, execution: Execution) -> TrainRequest:
    """Return the request of a record, from start weights."""
    request = record.request
    recipe = Recipe(
        name=request["recipe"],
        source=request["recipe"],
        summary="",
        profile=request["profile"],
        start=start,
        train=DEFAULTS | request["train"],
        expect={metric: Band(*ends) for metric, ends in record.expect.items()},
    )
    how = {field: getattr(execution, field) for field in Execution.model_fields}
    same = {field: request[field] for field in ("dataset", "profile", "new_classes", "quarantine")}
    return TrainRequest.parse({**how, **same, "run": record.run, "recipe": recipe})


def fetch_start(store: Store, point: InitialWeights, folder: Path) -> tuple[Path | None, InitialWeights]:
    """Fetch the start weights; return the file, and the weights with its digest.

    Published weights that the bucket does not have are downloaded as Ultralytics does, and stored there. Raises
    `WeightsError` if they are gone, or differ from the record.
    """
    if point.source is None:
        return None, point
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / Path(point.source).name
    if Path(point.source).is_absolute():
        target = Path(point.source)
        if not target.is_file():
            raise WeightsError(f"{target}: no such file; pass other --weights")
    elif point.kind == "pretrained":
        _get_published(store, point.source, target)
    else:
        key = point.source
        if key.startswith("gs://"):
            parent, _, key = key.rpartition("/")
            store = open_store(parent)
        if point.run is not None:
            fetch_best(Run(store, point.run), target)
        else:
            try:
                store.get(key, target)
            except ObjectNotFoundError as error:
                raise WeightsError(f"{point.source}: no such object in {store.uri}; pass other --weights") from error
    digest = sha256_of(target)
    if point.sha256 is not None and digest != point.sha256:
        raise WeightsError(
            f"{point.source}: is not the file that the run started from, its SHA-256 is {digest[:12]} and was "
            f"{point.sha256[:12]}; put that file back, or start a new run"
        )
    return target, replace(point, sha256=digest)


def fetch_best(run: Run, target: Path) -> None:
    """Fetch a finished run's best weights, of a checkpoint where the copy differs; raises `WeightsError` if gone."""
    final, key = run.final(), run.key(BEST_WEIGHTS)
    wanted = final.weights[BEST].sha256 if final else None
    with contextlib.suppress(ObjectNotFoundError):
        run.store.get(key, target)
        if wanted in {None, sha256_of(target)}:
            return
    for identity in reversed(checkpoint.committed(run)):
        for file in checkpoint.read_manifest(run, identity).files:
            if file.sha256 == wanted:
                log.warning("%s: is missing, or is not what the run ended with; its checkpoint is taken", key)
                run.store.get(file.key, target)
                return
    raise WeightsError(f"{key}: is missing, or is not what run {run.name} ended with; restore it, or take another run")


def fetch_end(store: Store, point: InitialWeights, folder: Path) -> Manifest:
    """Fetch the checkpoint in which another run ended into an empty folder; that run is not written to.

    Raises:
        CorruptObjectError: If it is damaged, or differs from the record.
        WeightsError: If it is gone.
    """
    run, identity = Run(store, str(point.run)), CheckpointId.parse(str(point.source).rpartition("/")[2])
    if identity is None:
        raise CorruptObjectError(f"{point.source}: is not a checkpoint; restore the run's record")
    try:
        manifest = checkpoint.fetch(run, identity, folder)
    except ObjectNotFoundError as error:
        raise WeightsError(
            f"{point.source}: the end of run {run.name} is gone, {error}; start a new run from its weights"
        ) from error
    if manifest.digest_of_state != point.sha256:
        raise CorruptObjectError(f"{point.source}: is not the state that the run started from; start a new run")
    return manifest


def _find_end(run: Run, num_epochs: int) -> InitialWeights:
    committed, final = checkpoint.committed(run), run.final()
    if final is None:
        raise RunConflictError(
            f"run {run.name}: is not finished, so it has no end to extend; run the command that started it first"
        )
    if missing := checkpoint.missing_end(run, final.num_epochs):
        raise RunConflictError(
            f"run {run.name}: {missing}, so it has no end to extend; start a new run with --weights {run.name}"
        )
    newest = committed[-1]
    if num_epochs <= newest.epoch:
        raise UsageError(
            f"--epochs: is the new total, and run {run.name} has trained {newest.epoch}; pass more than that, got "
            f"{num_epochs}"
        )
    digest = checkpoint.read_manifest(run, newest).digest_of_state
    return InitialWeights("end", run.key(f"checkpoints/{newest}"), None, run=run.name, sha256=digest)


def _named(store: Store, weights: str) -> InitialWeights:
    if weights.startswith("gs://"):
        return InitialWeights("own", weights, None)
    if is_file(weights):
        return InitialWeights("own", str(Path(weights).resolve()), None)
    if is_run_name(weights):
        run = Run(store, weights)
        if run.record() is None:
            raise WeightsError(f"--weights {weights}: is neither a file nor a run in {store.uri}; see `job runs list`")
        if run.final() is None:
            raise WeightsError(f"--weights {weights}: that run is not finished; finish it, or name its file yourself")
        return InitialWeights("own", run.key(BEST_WEIGHTS), None, run=weights)
    key = weights.removeprefix("./")
    try:
        store.stat(key)
    except (ObjectNotFoundError, UsageError) as error:
        raise WeightsError(
            f"--weights {weights}: is neither a file here nor an object in {store.uri}; pass a run, a file or a URI"
        ) from error
    return InitialWeights("own", key, None)


class _Finished(NamedTuple):
    """A finished run whose weights another one may start from."""

    run: Run
    record: RunRecord
    f1: float
    finished_at: datetime


def _finished(store: Store, family: str) -> Iterator[_Finished]:
    """Yield the finished runs of a family; one whose final record is damaged is passed over with a warning."""
    for found in survey(store, [family]).runs:
        try:
            final = found.listing.final()
        except CorruptObjectError as error:
            log.warning("%s; passed over as start weights", error)
            continue
        if final is not None:
            finished_at = datetime.fromisoformat(final.finished_at)
            yield _Finished(found.run, found.record, final.comparison.after["f1"], finished_at)


def _best_own(
    store: Store, request: TrainRequest, recipe: str | None, families: Iterable[str]
) -> InitialWeights | None:
    """Return the weights with the best F1 on the same data, or else the newest: F1 on other data is not comparable."""
    profile, dataset = request.recipe.profile, request.dataset and dataset_and_version(request.dataset)[0]
    by_family = [
        [
            entry
            for entry in _finished(store, family)
            if entry.record.request["profile"] == profile
            and recipe in {None, entry.record.request["recipe"], trained_as(entry.record.request)}
        ]
        for family in families
    ]
    for runs in by_family:
        if on_data := [entry for entry in runs if entry.record.dataset.name == dataset]:
            return _best_of(store, on_data, f"on {dataset}", profile)
    for runs in filter(None, by_family):
        newest = max(runs, key=lambda entry: entry.finished_at)
        why = f"run {newest.run.name}, the newest of {len(runs)} finished, none of them on {dataset}"
        return _own_weights(newest, why)
    return None


def _best_of(store: Store, runs: Sequence[_Finished], where: str, profile: Profile) -> InitialWeights:
    newest = max(runs, key=lambda entry: entry.finished_at)
    usual = published_model(str(load_recipe("base", profile).start))
    of_size = [entry for entry in runs if _model_of(store, entry.record) in {usual, None}] or runs
    comparable = [entry for entry in of_size if entry.record.dataset.val == newest.record.dataset.val] or of_size
    best = max(comparable, key=lambda entry: (entry.f1, entry.finished_at))
    others = len(runs) - len(of_size)
    passed_over = f", without {others} of another model than {usual}" if others else ""
    return _own_weights(
        best, f"run {best.run.name}, F1 {best.f1:.1%}, the best of {len(comparable)} finished {where}{passed_over}"
    )


def _own_weights(entry: _Finished, why: str) -> InitialWeights:
    key = entry.run.key(BEST_WEIGHTS)
    return InitialWeights("own", key, None, run=entry.run.name, why=f"{why}; --weights names another")


def _model_of(store: Store, record: RunRecord) -> str | None:
    """Return the model, such as ``yolo11s``, at the root of a run's lineage, if it is known."""
    seen: set[str] = set()
    found: RunRecord | None = record
    while found is not None and found.run not in seen:
        seen.add(found.run)
        point = found.start.point
        source = point.architecture or point.source or ""
        if model := published_model(source):
            return model
        named = re.match(r"runs/([^/]+)/", source)
        earlier = point.run or (named[1] if named else "")
        try:
            found = Run(store, earlier).record() if is_run_name(earlier) else None
        except CorruptObjectError as error:
            log.warning("%s; the model of run %s is not known", error, record.run)
            return None
    return None


def _get_published(store: Store, key: str, target: Path) -> None:
    try:
        store.get(key, target)
    except ObjectNotFoundError:
        from job.training.download import download_published  # noqa: PLC0415 -- only the full install can

        download_published(target)
        try:
            store.put(key, target)
        except PreconditionError:  # another run stored it first, and all runs start from that one
            store.get(key, target)
