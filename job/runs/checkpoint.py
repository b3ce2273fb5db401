"""Commit protocol: a checkpoint is durable once its manifest exists; its files are verified on restore.

Guarantees that a crash between any two writes leaves the previous checkpoint intact, that two attempts never write the
same key, and that a restored file has the digest it was committed with. A checkpoint that the bucket itself contradicts
is set aside by a record beside it, and no longer counts. Knows nothing of the files' content.
"""

import contextlib
import hashlib
import json
import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from job.errors import (
    CorruptObjectError,
    ObjectNotFoundError,
    PreconditionError,
    TransientStoreError,
    UnreadableRecordError,
    WeightsError,
)
from job.runs.records import CheckpointId, CheckpointMetadata, CommittedFile, Manifest, SetAside, now
from job.runs.run import Claim, Run
from job.storage.checksums import sha256_of
from job.storage.keys import is_key
from job.storage.object_store import StoredObject
from job.text import counted

log = logging.getLogger(__name__)

NUM_KEPT = 2
"""Committed checkpoints to keep; the newest may turn out to be damaged, so never fewer than two."""

CHECKPOINTS = "checkpoints/"
"""Folder of the checkpoints below a run's."""

MANIFEST, SET_ASIDE = "manifest.json", "set-aside.json"


def commit(
    run: Run, checkpoint: CheckpointId, paths: Sequence[Path], metadata: Mapping[str, object], previous: Manifest | None
) -> Manifest:
    """Make files a checkpoint: in the order of `paths`, then the manifest with `metadata`.

    Files that the checkpoint `previous` has already are not stored again. Raises `SupersededError` if a later attempt
    has claimed the run.
    """
    claim = Claim(run, checkpoint.attempt)
    claim.require_no_successor()
    stored = {file.sha256: (file.key, file.crc32c) for file in previous.files} if previous else {}
    files = []
    for path in paths:
        digest = sha256_of(path)
        if digest not in stored:
            key = _key(run, checkpoint, path.name)
            stored[digest] = key, run.store.put(key, path).crc32c
        key, crc32c = stored[digest]
        files.append(
            CommittedFile(name=path.name, key=key, size_bytes=path.stat().st_size, sha256=digest, crc32c=crc32c)
        )
    manifest = Manifest(
        run=run.name,
        epoch=checkpoint.epoch,
        batch=checkpoint.batch,
        attempt=checkpoint.attempt,
        committed_at=now(),
        about=CheckpointMetadata.model_validate(metadata),
        files=tuple(files),
    )
    claim.require_current()
    try:
        run.store.put(_key(run, checkpoint, MANIFEST), _sealed(manifest.model_dump(mode="json")))
    except PreconditionError:
        earlier = read_manifest(run, checkpoint)
        if earlier.files != manifest.files:
            raise
        return earlier  # an earlier try succeeded, and its response was lost
    return manifest


def committed(run: Run, listed: Iterable[StoredObject] | None = None) -> list[CheckpointId]:
    """Return the run's committed checkpoints, oldest first, without those that were set aside.

    `listed` has the run's objects, which are listed if left out.
    """
    return _whole(_objects(run, listed))


def set_aside(run: Run) -> dict[CheckpointId, list[str]]:
    """Return the damaged checkpoints, oldest first, with the problems of each."""
    found = sorted(checkpoint for checkpoint, names in _objects(run).items() if names >= {MANIFEST, SET_ASIDE})
    read = ((checkpoint, run.read(SetAside, f"checkpoints/{checkpoint}/{SET_ASIDE}")) for checkpoint in found)
    return {checkpoint: record.problems for checkpoint, record in read if record}  # else deleted by retention


def missing_end(run: Run, num_epochs: int) -> str:
    """Describe why a run's newest checkpoint is not its end after `num_epochs`; empty if it is."""
    newest = max(committed(run), default=None)
    if newest is not None and newest.position == (num_epochs, 0):
        return ""
    return f"it ended after epoch {num_epochs}, and the newest checkpoint is {newest.position if newest else 'none'}"


def read_manifest(run: Run, checkpoint: CheckpointId) -> Manifest:
    """Return a checkpoint's manifest.

    Raises:
        CorruptObjectError: If its bytes changed since the commit.
        UnreadableRecordError: If another version of the job wrote it.
    """
    key = _key(run, checkpoint, MANIFEST)
    data = run.store.read(key)
    try:
        loaded = json.loads(data)
        seal = loaded.pop("seal")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptObjectError(f"{key}: is not a manifest, {' '.join(str(error).split())}") from error
    if data != _sealed(loaded):
        raise CorruptObjectError(f"{key}: was changed after it was written, its seal {str(seal)[:12]} does not match")
    manifest = Manifest.read(key, data)
    escaping = [file.name for file in manifest.files if "/" in file.name or not is_key(file.name)]
    if manifest.id != checkpoint or manifest.run != run.name or escaping:
        raise CorruptObjectError(f"{key}: is not the manifest of this checkpoint")
    return manifest


def fetch(run: Run, checkpoint: CheckpointId, folder: Path) -> Manifest:
    """Fetch one checkpoint into an empty folder; the bucket is not changed.

    Raises `CorruptObjectError` if it is damaged, `ObjectNotFoundError` if a file of it is missing.
    """
    manifest = read_manifest(run, checkpoint)
    for file in manifest.files:
        _fetch(run, file, folder)
    return manifest


def restore(run: Run, folder: Path) -> Manifest | None:
    """Fetch the newest checkpoint into an empty folder; return its manifest, or None if the run has none yet.

    A checkpoint that the bucket's own description contradicts twice is set aside, and the one before it is fetched.

    Raises:
        TransientStoreError: If it cannot be fetched, and is intact in the bucket.
        CorruptObjectError: If there are checkpoints and none is intact.
    """
    while checkpoints := committed(run):
        newest = checkpoints[-1]
        try:
            return fetch(run, newest, folder)
        except UnreadableRecordError:  # intact, and readable by another version
            raise
        except (CorruptObjectError, ObjectNotFoundError) as error:
            problems = _damage(run, newest, folder) and _damage(run, newest, folder)
            for path in folder.iterdir():
                path.unlink()
            if problems:
                _set_aside(run, newest, problems)
            elif newest in committed(run):  # else another machine has deleted it, after newer ones
                raise TransientStoreError(
                    f"checkpoint {newest} of run {run.name}: could not be fetched, and is intact in the bucket; "
                    f"try again later ({error})"
                ) from error
    if damaged := set_aside(run):
        raise CorruptObjectError(
            f"run {run.name}: has no intact checkpoint, found {len(damaged)} set aside; start a new run",
            [problem for problems in damaged.values() for problem in problems],
        )
    return None


@contextlib.contextmanager
def refusal_explained(run: Run, manifest: Manifest) -> Iterator[None]:
    """Add the command that sets this checkpoint aside to the refusal of its state or weights.

    Its bytes are intact. The refusal may be a defect of this version, or the files may be malicious: a person decides
    whether to set it aside and resume from the one before.
    """
    try:
        yield
    except (CorruptObjectError, WeightsError) as error:
        older = [identity for identity in committed(run) if identity < manifest.id]
        advice = "there is none before it, start a new run"
        if manifest.run == run.name and older:
            target = shlex.quote(f"{run.store.uri}/{_key(run, manifest.id, SET_ASIDE)}")
            record = shlex.quote(json.dumps({"schema": 1, "problems": ["set aside by hand"]}))
            into = "| gcloud storage cp -" if run.store.uri.startswith("gs://") else ">"
            advice = f"to resume after {older[-1].position}, set it aside: `echo {record} {into} {target}`"
        raise type(error)(
            f"run {run.name}: checkpoint {manifest.id} is refused, {error.message}; {advice}", error.problems
        ) from error


def verify(run: Run, checkpoint: CheckpointId, folder: Path) -> list[str]:
    """Read every byte of a checkpoint, with a scratch folder, and return the problems."""
    try:
        manifest = read_manifest(run, checkpoint)
    except (CorruptObjectError, ObjectNotFoundError) as error:
        return [str(error)]
    problems = []
    for file in manifest.files:
        try:
            _fetch(run, file, folder)
        except (CorruptObjectError, ObjectNotFoundError) as error:
            problems.append(str(error))
        (folder / file.name).unlink(missing_ok=True)
    return problems


def retain(run: Run) -> None:
    """Delete the checkpoints before the newest `NUM_KEPT`, manifests first, sparing files that a kept one uses."""
    objects = _objects(run)
    kept = _whole(objects)[-NUM_KEPT:]
    old = [checkpoint for checkpoint in objects if kept and checkpoint < kept[0]]
    if not old:
        return
    used = {file.key for checkpoint in kept for file in read_manifest(run, checkpoint).files}
    keys = {_key(run, checkpoint, name) for checkpoint in old for name in objects[checkpoint]}
    for key in sorted(keys - used, key=lambda key: (not key.endswith(f"/{MANIFEST}"), key)):
        run.store.delete(key)


def _objects(run: Run, listed: Iterable[StoredObject] | None = None) -> dict[CheckpointId, set[str]]:
    """Return the names of the objects of each checkpoint, committed or not."""
    start = run.key(CHECKPOINTS)
    objects: dict[CheckpointId, set[str]] = {}
    for stored in run.store.list(start) if listed is None else listed:
        folder, _, name = stored.key.removeprefix(start).partition("/")
        if (checkpoint := CheckpointId.parse(folder)) is not None:
            objects.setdefault(checkpoint, set()).add(name)
    return objects


def _whole(objects: Mapping[CheckpointId, set[str]]) -> list[CheckpointId]:
    return sorted(found for found, names in objects.items() if MANIFEST in names and SET_ASIDE not in names)


def _damage(run: Run, checkpoint: CheckpointId, scratch: Path) -> list[str]:
    """Return each contradiction between the bucket and a checkpoint's manifest."""
    try:
        manifest = read_manifest(run, checkpoint)
    except CorruptObjectError as error:  # its seal or content is wrong
        return [str(error)]
    except ObjectNotFoundError:
        return []
    listing = {stored.key: stored for stored in run.store.list(run.key(CHECKPOINTS), checksums=True)}
    found = (_contradiction(run, file, listing.get(file.key), scratch) for file in manifest.files)
    return [problem for problem in found if problem]


def _contradiction(run: Run, file: CommittedFile, there: StoredObject | None, scratch: Path) -> str | None:
    """Describe the contradiction between the bucket and a manifest's entry for a file."""
    if there is None:
        return f"{file.key}: is gone"
    if there.size_bytes != file.size_bytes or file.crc32c not in {None, there.crc32c}:
        return (
            f"{file.key}: its bytes are not those that were committed, {counted(there.size_bytes, 'byte')} with "
            f"CRC-32C {there.crc32c}, and were {file.size_bytes} with {file.crc32c}"
        )
    try:
        run.store.get(file.key, scratch / file.name)  # a folder's bytes may contradict their own checksum
    except CorruptObjectError as error:
        return str(error)
    except ObjectNotFoundError:
        return None
    differs = file.crc32c is None and sha256_of(scratch / file.name) != file.sha256
    return f"{file.key}: its bytes are not those that were committed, SHA-256 differs" if differs else None


def _set_aside(run: Run, checkpoint: CheckpointId, problems: list[str]) -> None:
    key = _key(run, checkpoint, SET_ASIDE)
    log.warning("checkpoint %s is skipped, and set aside by %s: %s", checkpoint, key, "; ".join(problems))
    with contextlib.suppress(PreconditionError):  # another machine has set it aside already
        run.store.put(key, SetAside(at=now(), problems=problems).to_json())


def _sealed(content: Mapping[str, object]) -> bytes:
    """Return a manifest as JSON with a digest over itself."""
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "seal": seal}, indent=1) + "\n").encode()


def _key(run: Run, checkpoint: CheckpointId, name: str) -> str:
    return run.key(f"checkpoints/{checkpoint}/{name}")


def _fetch(run: Run, file: CommittedFile, folder: Path) -> None:
    """Fetch a file; retry once if its bytes differ from the commit."""
    try:
        _fetch_once(run, file, folder)
    except (CorruptObjectError, ObjectNotFoundError):
        _fetch_once(run, file, folder)


def _fetch_once(run: Run, file: CommittedFile, folder: Path) -> None:
    target = folder / file.name
    run.store.get(file.key, target)
    if target.stat().st_size != file.size_bytes or sha256_of(target) != file.sha256:
        target.unlink()
        raise CorruptObjectError(f"{file.key}: its bytes are not those that were committed, SHA-256 differs")
