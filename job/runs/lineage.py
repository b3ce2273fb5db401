"""Lineage: which weights a run starts from, and their download.

Guarantees that the file that training gets is the one the run's record names. Knows nothing of its content.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from job.errors import (
    CorruptObjectError,
    ObjectNotFoundError,
    PreconditionError,
    RunConflictError,
    UsageError,
    WeightsError,
)
from job.recipes.recipe import Band, Profile, Recipe, Start, load_recipe
from job.recipes.recognition import published_model, trained_as
from job.runs import checkpoint
from job.runs.records import CheckpointId, InitialWeights, Manifest, RunRecord
from job.runs.request import Execution, TrainRequest
from job.runs.run import FAMILY, Run, family_of, is_run_name
from job.runs.search import survey
from job.storage.checksums import sha256_of
from job.storage.object_store import Store
from job.storage.open_store import open_store

log = logging.getLogger(__name__)


def find_start(store: Store, order: TrainRequest, run: str | None) -> InitialWeights:
    """Decide where the first weights come from.

    Args:
        store: The bucket.
        order: With its dataset. ``--weights`` and ``--model`` replace what the recipe says; runs of the other profile
            do not count.
        run: The run that starts; finished runs of its family count as own, or those of `FAMILY` if it has none.

    Raises:
        WeightsError: If there are none, with what to do.
        RunConflictError: If the run whose end it is has not ended.
        UsageError: If that run has trained as many epochs already.
    """
    architecture = order.model if order.model and order.model.endswith((".yaml", ".yml")) else None
    if order.weights is not None:
        return replace(_named(store, order.weights), architecture=architecture)
    start = Start.parse(order.model) if order.model else order.recipe.start
    if start.kind == "end":
        return _find_end(Run(store, str(start.name)), order.recipe.train["epochs"])
    if start.kind == "scratch":
        return InitialWeights("scratch", None, start.name)
    if start.kind == "pretrained":
        return InitialWeights("pretrained", f"weights/{start.name}", None)
    own = _best_own(store, order, start.name, dict.fromkeys((family_of(run) if run else FAMILY, FAMILY)))
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
    """Return the request for a run with another number of epochs, which starts from the end of the old one.

    Args:
        name: The old run.
        record: Of the old run; its values stay but for the epochs.
        num_epochs: The new total.
        new_run: The new run's name, if it was named.
        execution: How it is trained.
    """
    request = record.request
    recipe = Recipe(
        name=request["recipe"],
        source=request["recipe"],
        summary="",
        profile=request["profile"],
        start=Start("end", name),
        train=request["train"],
        expect={metric: Band(*ends) for metric, ends in record.expect.items()},
    )
    how = {field: getattr(execution, field) for field in Execution.model_fields}
    same = {field: request[field] for field in ("dataset", "profile", "new_classes", "quarantine")}
    return TrainRequest.parse(
        {**how, **same, "run": new_run, "recipe": recipe.with_arguments(recipe.train | {"epochs": num_epochs})}
    )


def fetch_start(store: Store, point: InitialWeights, folder: Path) -> tuple[Path | None, InitialWeights]:
    """Fetch the start weights and return the file with the digest filled in.

    Published weights that the bucket does not have are downloaded as Ultralytics does, and stored for next time.

    Raises:
        WeightsError: If they are gone, or are no longer the ones of the record.
    """
    if point.source is None:
        return None, point
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / Path(point.source).name
    if point.source.startswith("gs://"):
        parent, _, name = point.source.rpartition("/")
        _get(open_store(parent), name, target, point.source)
    elif Path(point.source).is_absolute():
        target = Path(point.source)
        if not target.is_file():
            raise WeightsError(f"{target}: no such file; pass other --weights")
    elif point.kind == "pretrained":
        _get_published(store, point.source, target)
    else:
        _get(store, point.source, target, point.source)
    digest = sha256_of(target)
    if point.sha256 is not None and digest != point.sha256:
        raise WeightsError(
            f"{point.source}: is not the file that the run started from, its SHA-256 is {digest[:12]} and was "
            f"{point.sha256[:12]}; put that file back, or start a new run"
        )
    if point.run is not None:
        final = Run(store, point.run).final()
        if final is not None and digest != final.weights["best.pt"].sha256:
            raise WeightsError(
                f"{point.source}: is not what run {point.run} ended with, its SHA-256 differs; pass other --weights"
            )
    return target, replace(point, sha256=digest)


def fetch_end(store: Store, point: InitialWeights, folder: Path) -> Manifest:
    """Fetch the checkpoint in which another run ended into an empty folder; that run is not written to.

    Raises:
        CorruptObjectError: If it is not whole, or not the one of the record.
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
    if _digest_of_state(manifest) != point.sha256:
        raise CorruptObjectError(f"{point.source}: is not the state that the run started from; start a new run")
    return manifest


def _find_end(run: Run, num_epochs: int) -> InitialWeights:
    committed, final = checkpoint.committed(run), run.final()
    if final is None:
        raise RunConflictError(
            f"run {run.name}: is not finished, so it has no end to extend; run the command that started it first"
        )
    if not committed:
        raise WeightsError(f"run {run.name}: has no checkpoint any more; start a new run with --weights {run.name}")
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
    digest = _digest_of_state(checkpoint.read_manifest(run, newest))
    return InitialWeights("end", run.key(f"checkpoints/{newest}"), None, run=run.name, sha256=digest)


def _digest_of_state(manifest: Manifest) -> str | None:
    return next((file.sha256 for file in manifest.files if file.name == "state.pt"), None)


def _named(store: Store, weights: str) -> InitialWeights:
    if weights.startswith("gs://"):
        return InitialWeights("own", weights, None)
    if Path(weights).is_file():
        return InitialWeights("own", str(Path(weights).resolve()), None)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", weights):
        run = Run(store, weights)
        if run.record() is None:
            raise WeightsError(f"--weights {weights}: is neither a file nor a run in {store.uri}; see `job runs list`")
        if run.final() is None:
            raise WeightsError(f"--weights {weights}: that run is not finished; finish it, or name its file yourself")
        return InitialWeights("own", run.key("weights/best.pt"), None, run=weights)
    key = weights.removeprefix("./")
    try:
        store.stat(key)
    except (ObjectNotFoundError, UsageError) as error:
        raise WeightsError(
            f"--weights {weights}: is neither a file here nor an object in {store.uri}; pass a run, a file or a URI"
        ) from error
    return InitialWeights("own", key, None)


@dataclass(frozen=True, slots=True)
class _Finished:
    """A finished run whose weights another one may start from."""

    run: Run
    record: RunRecord
    recipes: frozenset[str]
    """What its recipe is called, and which one it is by what was trained."""

    f1: float
    finished_at: datetime

    def measured_alike(self, other: "_Finished") -> bool:
        return self.record.dataset.val == other.record.dataset.val


def _best_own(store: Store, order: TrainRequest, recipe: str | None, families: Iterable[str]) -> InitialWeights | None:
    """Return the best own weights: on the same data, of the size of recipe base, with the highest F1.

    Where there are none on the same data, the newest others are taken, since F1 on other data tells nothing.
    """
    families = tuple(families)
    finished = [
        _finished(found.run, found.record)
        for found in survey(store).runs
        if found.finished and family_of(found.run.name) in families
    ]
    fitting = [
        entry
        for entry in finished
        if entry is not None
        and entry.record.request["profile"] == order.recipe.profile
        and (recipe is None or recipe in entry.recipes)
    ]
    by_family = [[entry for entry in fitting if family_of(entry.run.name) == family] for family in families]
    for runs in by_family:
        if on_data := [entry for entry in runs if entry.record.dataset.name == order.dataset]:
            return _best_of(store, on_data, f"on {order.dataset}", order.recipe.profile)
    for runs in by_family:
        if runs:
            newest = max(runs, key=lambda entry: entry.finished_at)
            why = f"run {newest.run.name}, the newest of {len(runs)} finished, none of them on {order.dataset}"
            return _own_point(newest, why)
    return None


def _finished(run: Run, record: RunRecord) -> _Finished | None:
    """Read everything that a choice among finished runs needs; nothing, with a warning, if a record is damaged."""
    try:
        final = run.final()
    except CorruptObjectError as error:
        log.warning("%s; passed over as start weights", error)
        return None
    if final is None:
        return None
    recipes = frozenset({record.request["recipe"], trained_as(record.request)})
    return _Finished(run, record, recipes, final.comparison.after["f1"], datetime.fromisoformat(final.finished_at))


def _best_of(store: Store, runs: Sequence[_Finished], where: str, profile: Profile) -> InitialWeights:
    newest = max(runs, key=lambda entry: entry.finished_at)
    usual = published_model(str(load_recipe("base", profile).start))
    of_size = [entry for entry in runs if _model_of(store, entry.record) in {usual, None}] or runs
    alike = [entry for entry in of_size if entry.measured_alike(newest)] or of_size
    best = max(alike, key=lambda entry: (entry.f1, entry.finished_at))
    others = len(runs) - len(of_size)
    passed_over = f", without {others} of another model than {usual}" if others else ""
    return _own_point(
        best, f"run {best.run.name}, F1 {best.f1:.1%}, the best of {len(alike)} finished {where}{passed_over}"
    )


def _own_point(entry: _Finished, why: str) -> InitialWeights:
    key = entry.run.key("weights/best.pt")
    return InitialWeights("own", key, None, run=entry.run.name, why=f"{why}; --weights names another")


def _model_of(store: Store, record: RunRecord) -> str | None:
    """Return the model, such as ``yolo11s``, that a run's line of weights began with, if that is known."""
    seen: set[str] = set()
    found: RunRecord | None = record
    while found is not None and found.run not in seen:
        seen.add(found.run)
        try:
            model, earlier = _origin_of(found)
            if model:
                return model
            found = Run(store, earlier).record() if earlier and is_run_name(earlier) else None
        except CorruptObjectError as error:
            log.warning("%s; the model of run %s is not known", error, record.run)
            return None
    return None


def _origin_of(record: RunRecord) -> tuple[str | None, str | None]:
    """Return the published model that a run started from, or the run whose weights it started from, as recorded."""
    point = record.start.point
    source = point.architecture or point.source or ""
    named = re.match(r"runs/([^/]+)/", source)
    return published_model(source), point.run or (named[1] if named else None)


def _get(store: Store, key: str, target: Path, subject: str) -> None:
    try:
        store.get(key, target)
    except ObjectNotFoundError as error:
        raise WeightsError(f"{subject}: no such object in {store.uri}; pass other --weights") from error


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
