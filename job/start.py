"""Which weights a run starts from, and how to get them: lineage.

Guarantees that the file that training gets is the one the run's record names. Knows nothing of what is in it.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from job import checkpoint
from job.checkpoint import CheckpointId, Manifest
from job.errors import CorruptObjectError, ObjectNotFoundError, RunConflictError, UsageError, WeightsError
from job.order import Order
from job.recipe import Profile, Start
from job.run import FAMILY, Run, family_of, list_runs
from job.store import Store, open_store


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where the first weights are; frozen in the run's record."""

    kind: str
    """``own``, ``pretrained``, ``scratch`` or ``end``, as in `Start`."""

    source: str | None
    """A key in the bucket, a ``gs://`` address or a local file; nothing for a start from scratch. For ``end`` the
    folder of a checkpoint.
    """

    architecture: str | None
    """A model file of Ultralytics; nothing if the weights say it."""

    run: str | None = None
    """The run that the weights come from."""

    sha256: str | None = None
    """Digest of the file once it was fetched; for ``end`` that of the checkpoint's state."""

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.architecture} from scratch"
        return f"{self.source} as {self.architecture}" if self.architecture else self.source


def find_start(store: Store, order: Order, run: str | None) -> StartPoint:
    """Decide where the first weights come from.

    Args:
        store: The bucket.
        order: ``--weights`` and ``--model`` replace what the recipe says; runs of the other profile do not count.
        run: The run that starts; finished runs of its family count as one's own, or those of `FAMILY` if it has none.

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
        return StartPoint("scratch", None, start.name)
    if start.kind == "pretrained":
        return StartPoint("pretrained", f"weights/{start.name}", None)
    for family in dict.fromkeys((family_of(run) if run else FAMILY, FAMILY)):
        newest = _newest_finished(store, family, start.name, order.recipe.profile)
        if newest is not None:
            return StartPoint("own", newest.key("weights/best.pt"), None, run=newest.name)
    of = f" of recipe {start.name}" if start.name else ""
    raise WeightsError(
        f"start weights: there is no finished run{of} in {store.uri}; run --recipe {start.name or 'base'} first, or "
        "pass --weights with a run, a file or a URI"
    )


def fetch_start(store: Store, point: StartPoint, folder: Path) -> tuple[Path | None, StartPoint]:
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
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if point.sha256 is not None and digest != point.sha256:
        raise WeightsError(
            f"{point.source}: is not the file that the run started from, its SHA-256 is {digest[:12]} and was "
            f"{point.sha256[:12]}; put that file back, or start a new run"
        )
    if point.run is not None:
        final = Run(store, point.run).final()
        if final is not None and digest != final["weights"]["best.pt"]["sha256"]:
            raise WeightsError(
                f"{point.source}: is not what run {point.run} ended with, its SHA-256 differs; pass other --weights"
            )
    return target, replace(point, sha256=digest)


def fetch_end(store: Store, point: StartPoint, folder: Path) -> Manifest:
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


def _find_end(run: Run, num_epochs: int) -> StartPoint:
    committed = checkpoint.committed(run)
    if run.final() is None:
        raise RunConflictError(
            f"run {run.name}: is not finished, so there is no end to go on from; give the command that started it first"
        )
    if not committed:
        raise WeightsError(f"run {run.name}: has no checkpoint any more; start a new run with --weights {run.name}")
    newest = committed[-1]
    if num_epochs <= newest.epoch:
        raise UsageError(
            f"--epochs: is the new total, and run {run.name} has trained {newest.epoch}; pass more than that, got "
            f"{num_epochs}"
        )
    digest = _digest_of_state(checkpoint.read_manifest(run, newest))
    return StartPoint("end", run.key(f"checkpoints/{newest}"), None, run=run.name, sha256=digest)


def _digest_of_state(manifest: Manifest) -> str | None:
    return next((file.sha256 for file in manifest.files if file.name == "state.pt"), None)


def _named(store: Store, weights: str) -> StartPoint:
    if weights.startswith("gs://"):
        return StartPoint("own", weights, None)
    if Path(weights).is_file():
        return StartPoint("own", str(Path(weights).resolve()), None)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", weights):
        run = Run(store, weights)
        if run.record() is None:
            raise WeightsError(f"--weights {weights}: is neither a file nor a run in {store.uri}; see `job runs list`")
        if run.final() is None:
            raise WeightsError(f"--weights {weights}: that run is not finished; finish it, or name its file yourself")
        return StartPoint("own", run.key("weights/best.pt"), None, run=weights)
    key = weights.removeprefix("./")
    try:
        store.stat(key)
    except (ObjectNotFoundError, UsageError) as error:
        raise WeightsError(
            f"--weights {weights}: is neither a file here nor an object in {store.uri}; pass a run, a file or a URI"
        ) from error
    return StartPoint("own", key, None)


def _newest_finished(store: Store, family: str, recipe: str | None, profile: Profile) -> Run | None:
    finished: list[tuple[str, Run]] = []
    for name in list_runs(store):
        run = Run(store, name)
        record = run.record() if family_of(name) == family else None
        final = run.final() if record else None
        if record and final and record.request["profile"] == profile and recipe in {None, record.request["recipe"]}:
            finished.append((final["finished_at"], run))
    return max(finished, key=lambda entry: entry[0])[1] if finished else None


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
        store.put(key, target, overwrite=True)
