"""The commit protocol: a checkpoint exists once its manifest does, and what it lists is verified.

Guarantees that a crash between any two writes leaves the previous checkpoint intact, that two attempts never write the
same key, and that a restored file has the digest it was committed with. Knows nothing of what is in the files.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.errors import CorruptObjectError, ObjectNotFoundError
from job.run import Run, now
from job.store import StoredObject

log = logging.getLogger(__name__)

NUM_KEPT = 2
"""Committed checkpoints to keep; the newest may turn out to be damaged, so never fewer than two."""


@dataclass(frozen=True, slots=True, order=True)
class CheckpointId:
    """Where in a run a checkpoint was taken, and by whom; ordered by age."""

    epoch: int
    """Complete epochs."""

    batch: int
    """Complete batches of the next epoch."""

    attempt: int

    def __str__(self) -> str:
        return f"{self.epoch:04d}-{self.batch:06d}.a{self.attempt:04d}"

    @property
    def words(self) -> str:
        """The place in a run, for people."""
        return f"epoch {self.epoch}" if not self.batch else f"batch {self.batch} of epoch {self.epoch + 1}"

    @classmethod
    def parse(cls, name: str) -> "CheckpointId | None":
        """Read a name as `str` writes it; nothing if it is none."""
        match = re.fullmatch(r"(\d{4,})-(\d{6,})\.a(\d{4,})", name)
        return cls(int(match[1]), int(match[2]), int(match[3])) if match else None


@dataclass(frozen=True, slots=True)
class File:
    """One file of a checkpoint and where its bytes lie, perhaps with an earlier checkpoint."""

    name: str
    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The object that makes a checkpoint."""

    run: str
    epoch: int
    batch: int
    attempt: int
    committed_at: str
    about: dict[str, Any]
    files: tuple[File, ...]
    schema: int = 1

    @property
    def id(self) -> CheckpointId:
        """The checkpoint's identity."""
        return CheckpointId(self.epoch, self.batch, self.attempt)

    @property
    def size_bytes(self) -> int:
        """Bytes in all files, shared ones included."""
        return sum(file.size_bytes for file in self.files)


def commit(
    run: Run, checkpoint: CheckpointId, paths: Sequence[Path], about: dict[str, Any], previous: Manifest | None
) -> Manifest:
    """Make files a checkpoint: in the order that they are given, the manifest last.

    Args:
        run: The run.
        checkpoint: Position and attempt; the key of every file contains it.
        paths: The files.
        about: Kept in the manifest, for people and reports.
        previous: A checkpoint whose unchanged files need not be stored again.

    Raises:
        SupersededError: If a later attempt has claimed the run.
        StoreError: If the store refuses.
    """
    run.require_current(checkpoint.attempt)
    stored = {file.sha256: file.key for file in previous.files} if previous else {}
    files = []
    for path in paths:
        digest = _sha256(path)
        if digest not in stored:
            stored[digest] = _key(run, checkpoint, path.name)
            run.store.put(stored[digest], path)
        files.append(File(path.name, stored[digest], path.stat().st_size, digest))
    manifest = Manifest(run.name, checkpoint.epoch, checkpoint.batch, checkpoint.attempt, now(), about, tuple(files))
    run.require_current(checkpoint.attempt)
    run.store.put(_key(run, checkpoint, "manifest.json"), _sealed(asdict(manifest)))
    return manifest


def committed(run: Run) -> list[CheckpointId]:
    """Return the run's checkpoints, oldest first."""
    return sorted(_of_manifests(run, run.store.list(run.key("checkpoints/"))))


def missing_end(run: Run, num_epochs: int) -> str:
    """Say how a run's newest checkpoint is not its end after so many epochs; nothing if it is."""
    newest = max(committed(run), default=None)
    if newest is not None and (newest.epoch, newest.batch) == (num_epochs, 0):
        return ""
    return f"it ended after epoch {num_epochs}, and the newest checkpoint is {newest.words if newest else 'none'}"


def read_manifest(run: Run, checkpoint: CheckpointId) -> Manifest:
    """Return a checkpoint's manifest.

    Raises:
        CorruptObjectError: If it cannot be understood.
    """
    key = _key(run, checkpoint, "manifest.json")
    data = run.store.read(key)
    try:
        loaded = json.loads(data)
        seal = loaded.pop("seal")
        loaded["files"] = tuple(File(**file) for file in loaded["files"])
        manifest = Manifest(**loaded)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptObjectError(f"{key}: is not a manifest, {' '.join(str(error).split())}") from error
    if data != _sealed(asdict(manifest)):
        raise CorruptObjectError(f"{key}: was changed after it was written, its seal {str(seal)[:12]} does not match")
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
    """Fetch the newest checkpoint that proves whole into an empty folder.

    A checkpoint that does not is reported, passed over for the one before it, and no longer counts as committed.

    Returns:
        Its manifest, or nothing if the run has no checkpoint yet.

    Raises:
        CorruptObjectError: If there are checkpoints and none is whole.
    """
    problems: list[str] = []
    damaged: list[CheckpointId] = []
    for checkpoint in reversed(committed(run)):
        try:
            manifest = fetch(run, checkpoint, folder)
        except (CorruptObjectError, ObjectNotFoundError) as error:
            log.warning("checkpoint %s is skipped: %s", checkpoint, error)
            problems.append(str(error))
            damaged.append(checkpoint)
            for path in folder.iterdir():
                path.unlink()
            continue
        for passed_over in damaged:  # or retention would count them, and keep them instead of whole ones
            run.store.delete(_key(run, passed_over, "manifest.json"))
        return manifest
    if problems:
        raise CorruptObjectError(
            f"run {run.name}: none of its {len(problems)} checkpoints is whole; start a new run", problems
        )
    return None


def verify(run: Run, checkpoint: CheckpointId, folder: Path) -> list[str]:
    """Read every byte of a checkpoint again, using a folder for scratch, and return what is wrong with it."""
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
    checkpoints = sorted(_of_manifests(run, listing))
    kept = checkpoints[-max(keep, NUM_KEPT) :]
    if len(kept) == len(checkpoints):
        return
    used = {file.key for checkpoint in kept for file in read_manifest(run, checkpoint).files}
    old = [stored.key for stored in listing if _is_older(stored, kept[0]) and stored.key not in used]
    for key in sorted(old, key=lambda key: not key.endswith("/manifest.json")):
        run.store.delete(key)


def _is_older(stored: StoredObject, oldest_kept: CheckpointId) -> bool:
    parsed = CheckpointId.parse(stored.key.split("/")[-2])
    return parsed is not None and parsed < oldest_kept


def _of_manifests(run: Run, listing: list[StoredObject]) -> list[CheckpointId]:
    start, end = run.key("checkpoints/"), "/manifest.json"
    names = (stored.key.removeprefix(start).removesuffix(end) for stored in listing if stored.key.endswith(end))
    return [checkpoint for name in names if (checkpoint := CheckpointId.parse(name))]


def _sealed(content: dict[str, Any]) -> bytes:
    """Return a manifest as JSON with a digest over itself."""
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "seal": seal}, indent=1) + "\n").encode()


def _key(run: Run, checkpoint: CheckpointId, name: str) -> str:
    return run.key(f"checkpoints/{checkpoint}/{name}")


def _fetch(run: Run, file: File, folder: Path) -> None:
    target = folder / file.name
    run.store.get(file.key, target)
    if target.stat().st_size != file.size_bytes or _sha256(target) != file.sha256:
        target.unlink()
        raise CorruptObjectError(f"{file.key}: its bytes are not those that were committed, SHA-256 differs")


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
