"""The commit protocol: a checkpoint exists once its manifest does, and what it lists is verified.

Guarantees that a crash between any two writes leaves the previous checkpoint intact, that two attempts never write the
same key, and that a restored file has the digest it was committed with. A checkpoint that the bucket itself contradicts
is set aside by a record beside it, and no longer counts. Knows nothing of the files' content.
"""

import contextlib
import hashlib
import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from job.errors import (
    CorruptObjectError,
    ObjectNotFoundError,
    PreconditionError,
    TransientStoreError,
    UnreadableRecordError,
    WeightsError,
)
from job.runs.records import CheckpointFile, CheckpointId, CheckpointMetadata, Manifest, SetAside, now
from job.runs.run import Claim, Run
from job.storage.checksums import sha256_of
from job.storage.object_store import StoredObject

log = logging.getLogger(__name__)

NUM_KEPT = 2
"""Committed checkpoints to keep; the newest may turn out to be damaged, so never fewer than two."""


MANIFEST, SET_ASIDE = "manifest.json", "set-aside.json"
"""What makes a checkpoint, and what unmakes one that turned out to be damaged."""


def commit(
    run: Run, checkpoint: CheckpointId, paths: Sequence[Path], metadata: Mapping[str, object], previous: Manifest | None
) -> Manifest:
    """Make files a checkpoint: in the order that they are given, the manifest last.

    Args:
        run: The run.
        checkpoint: Position and attempt; the key of every file contains it.
        paths: The files.
        metadata: Kept in the manifest, for people and reports.
        previous: A checkpoint whose unchanged files need not be stored again.

    Raises:
        SupersededError: If a later attempt has claimed the run.
        StoreError: If the store refuses.
    """
    claim = Claim(run, checkpoint.attempt)
    claim.require_current()
    stored = {file.sha256: (file.key, file.crc32c) for file in previous.files} if previous else {}
    files = []
    for path in paths:
        digest = sha256_of(path)
        if digest not in stored:
            key = _key(run, checkpoint, path.name)
            stored[digest] = key, run.store.put(key, path).crc32c
        key, crc32c = stored[digest]
        files.append(
            CheckpointFile(name=path.name, key=key, size_bytes=path.stat().st_size, sha256=digest, crc32c=crc32c)
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
        return earlier  # an earlier try came through, and its answer was lost
    return manifest


def committed(run: Run) -> list[CheckpointId]:
    """Return the run's checkpoints, oldest first, but those that were set aside."""
    return _committed(run, run.store.list(run.key("checkpoints/")))


def set_aside(run: Run) -> dict[CheckpointId, list[str]]:
    """Return the damaged checkpoints, oldest first, with the problems of each."""
    listing = run.store.list(run.key("checkpoints/"))
    found = sorted(_having(run, listing, MANIFEST) & _having(run, listing, SET_ASIDE))
    keys = {checkpoint: _key(run, checkpoint, SET_ASIDE) for checkpoint in found}
    return {checkpoint: SetAside.read(key, run.store.read(key)).problems for checkpoint, key in keys.items()}


def missing_end(run: Run, num_epochs: int) -> str:
    """Describe why a run's newest checkpoint is not its end after `num_epochs`; empty if it is."""
    newest = max(committed(run), default=None)
    if newest is not None and newest.position == (num_epochs, 0):
        return ""
    return f"it ended after epoch {num_epochs}, and the newest checkpoint is {newest.description if newest else 'none'}"


def read_manifest(run: Run, checkpoint: CheckpointId) -> Manifest:
    """Return a checkpoint's manifest.

    Raises:
        CorruptObjectError: If its bytes are not those that were written.
        UnreadableRecordError: If another version of the job wrote it.
    """
    key = _key(run, checkpoint, MANIFEST)
    data = run.store.read(key)
    try:
        loaded = json.loads(data)
        seal = loaded.pop("seal")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptObjectError(f"{key}: is not a manifest, {' '.join(str(error).split())}") from error
    if data != _sealed(loaded):
        raise CorruptObjectError(f"{key}: was changed after it was written, its seal {str(seal)[:12]} does not match")
    manifest = Manifest.read(key, data)
    escaping = [file.name for file in manifest.files if Path(file.name).name != file.name or file.name in {".", ".."}]
    if manifest.id != checkpoint or manifest.run != run.name or escaping:
        raise CorruptObjectError(f"{key}: is not the manifest of this checkpoint")
    return manifest


def fetch(run: Run, checkpoint: CheckpointId, folder: Path) -> Manifest:
    """Fetch one checkpoint into an empty folder; nothing in the bucket is changed.

    Raises:
        CorruptObjectError: If it is not whole.
        ObjectNotFoundError: If a part of it is gone.
    """
    manifest = read_manifest(run, checkpoint)
    for file in manifest.files:
        _fetch(run, file, folder)
    return manifest


def restore(run: Run, folder: Path) -> Manifest | None:
    """Fetch the newest checkpoint into an empty folder.

    One that cannot be fetched as it was committed is looked at again. Where the bucket's own description contradicts
    the manifest both times, the checkpoint is set aside, which is reported, and the one before it is fetched.

    Returns:
        Its manifest, or nothing if the run has no checkpoint yet.

    Raises:
        TransientStoreError: If it cannot be fetched whole, and lies in the bucket as it was committed.
        CorruptObjectError: If there are checkpoints and none is whole.
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
            elif newest in committed(run):  # else another machine has newer ones, and has deleted it
                raise TransientStoreError(
                    f"checkpoint {newest} of run {run.name}: could not be fetched, and is intact in the bucket; "
                    f"try again later ({error})"
                ) from error
    if damaged := set_aside(run):
        raise CorruptObjectError(
            f"run {run.name}: none of its {len(damaged)} checkpoints is intact; start a new run",
            [problem for problems in damaged.values() for problem in problems],
        )
    return None


@contextlib.contextmanager
def gone_on_from(run: Run, manifest: Manifest) -> Iterator[None]:
    """Add to a refusal of this checkpoint the command that sets it aside, so that the one before is resumed.

    Its bytes are those that were committed. The refusal of state or weights may be a defect of this version, or the
    files may be malicious: a person decides to set it aside.

    Raises:
        CorruptObjectError: If its state is refused.
        WeightsError: If its weights are.
    """
    try:
        yield
    except (CorruptObjectError, WeightsError) as error:
        message = f"run {run.name}: checkpoint {manifest.id} is refused, {error.message}"
        older = [identity for identity in committed(run) if identity < manifest.id]
        if manifest.run != run.name or not older:
            message += "; there is none before it, start a new run"
        else:
            message += (
                f"; to resume after {older[-1].description}, set it aside: `{_command_to_set_aside(run, manifest.id)}`"
            )
        raise type(error)(message, error.problems) from error


def _command_to_set_aside(run: Run, checkpoint: CheckpointId) -> str:
    """Return the command for a shell that does what `_set_aside` does."""
    target = shlex.quote(f"{run.store.uri}/{_key(run, checkpoint, SET_ASIDE)}")
    record = shlex.quote(json.dumps({"schema": 1, "problems": ["set aside by hand"]}))
    into = "| gcloud storage cp -" if run.store.uri.startswith("gs://") else ">"
    return f"echo {record} {into} {target}"


def verify(run: Run, checkpoint: CheckpointId, folder: Path) -> list[str]:
    """Read every byte of a checkpoint again, with a folder for scratch, and return the problems."""
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


def retain(run: Run, keep: int = NUM_KEPT) -> None:
    """Delete what is older than the newest checkpoints, manifests first, sparing files that a kept one uses."""
    listing = run.store.list(run.key("checkpoints/"))
    kept = _committed(run, listing)[-max(keep, NUM_KEPT) :]
    old = [stored.key for stored in listing if kept and _is_older(stored, kept[0])]
    if not old:
        return
    used = {file.key for checkpoint in kept for file in read_manifest(run, checkpoint).files}
    for key in sorted(set(old) - used, key=lambda key: (not key.endswith(f"/{MANIFEST}"), key)):
        run.store.delete(key)


def _is_older(stored: StoredObject, oldest_kept: CheckpointId) -> bool:
    parsed = CheckpointId.parse(stored.key.split("/")[-2])
    return parsed is not None and parsed < oldest_kept


def _committed(run: Run, listing: list[StoredObject]) -> list[CheckpointId]:
    return sorted(_having(run, listing, MANIFEST) - _having(run, listing, SET_ASIDE))


def _having(run: Run, listing: list[StoredObject], name: str) -> set[CheckpointId]:
    """Return the checkpoints in whose folder there is an object of a name."""
    start, end = run.key("checkpoints/"), f"/{name}"
    names = (stored.key.removeprefix(start).removesuffix(end) for stored in listing if stored.key.endswith(end))
    return {checkpoint for name in names if (checkpoint := CheckpointId.parse(name))}


def _damage(run: Run, checkpoint: CheckpointId, scratch: Path) -> list[str]:
    """Return each contradiction between the bucket and a checkpoint's manifest."""
    try:
        manifest = read_manifest(run, checkpoint)
    except CorruptObjectError as error:  # it contradicts itself
        return [str(error)]
    except ObjectNotFoundError:
        return []
    listing = {stored.key: stored for stored in run.store.list(run.key("checkpoints/"), checksums=True)}
    found = (_contradiction(run, file, listing.get(file.key), scratch) for file in manifest.files)
    return [problem for problem in found if problem]


def _contradiction(run: Run, file: CheckpointFile, there: StoredObject | None, scratch: Path) -> str | None:
    """Describe the contradiction between the bucket and a manifest's entry for a file.

    Its description decides. Bytes do where a folder's do not match their own checksum, and where an older version of
    the job recorded no checksum that the description could be compared with.
    """
    if there is None:
        return f"{file.key}: is gone"
    if there.size_bytes != file.size_bytes or file.crc32c not in {None, there.crc32c}:
        return (
            f"{file.key}: its bytes are not those that were committed, {there.size_bytes} bytes with CRC-32C "
            f"{there.crc32c}, and were {file.size_bytes} with {file.crc32c}"
        )
    try:
        run.store.get(file.key, scratch / file.name)
    except CorruptObjectError as error:
        return str(error)
    except ObjectNotFoundError:
        return None
    differs = file.crc32c is None and sha256_of(scratch / file.name) != file.sha256
    return f"{file.key}: its bytes are not those that were committed, SHA-256 differs" if differs else None


def _set_aside(run: Run, checkpoint: CheckpointId, problems: list[str]) -> None:
    log.warning(
        "checkpoint %s is skipped, and set aside by %s: %s",
        *(checkpoint, _key(run, checkpoint, SET_ASIDE), "; ".join(problems)),
    )
    record = SetAside(at=now(), problems=problems)
    with contextlib.suppress(PreconditionError):  # another machine saw it too
        run.store.put(_key(run, checkpoint, SET_ASIDE), record.to_json())


def _sealed(content: Mapping[str, object]) -> bytes:
    """Return a manifest as JSON with a digest over itself."""
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "seal": seal}, indent=1) + "\n").encode()


def _key(run: Run, checkpoint: CheckpointId, name: str) -> str:
    return run.key(f"checkpoints/{checkpoint}/{name}")


def _fetch(run: Run, file: CheckpointFile, folder: Path) -> None:
    """Fetch a file; retry once if its bytes are not those that were committed."""
    try:
        _fetch_once(run, file, folder)
    except (CorruptObjectError, ObjectNotFoundError):
        _fetch_once(run, file, folder)


def _fetch_once(run: Run, file: CheckpointFile, folder: Path) -> None:
    target = folder / file.name
    run.store.get(file.key, target)
    if target.stat().st_size != file.size_bytes or sha256_of(target) != file.sha256:
        target.unlink()
        raise CorruptObjectError(f"{file.key}: its bytes are not those that were committed, SHA-256 differs")
