"""Artifacts: copies of the newest files in the run's folder, in Ultralytics' layout; never read to resume."""

from collections.abc import Callable
from pathlib import Path

from job.runs.run import BEST_WEIGHTS, Run
from job.storage.checksums import sha256_of
from job.training.files import BEST, LAST, STATE

PLACES = {BEST: BEST_WEIGHTS, LAST: f"weights/{LAST}"}
"""Subfolders of files that are not at the top."""


class ArtifactPublisher:
    """Copies changed files to the run's folder in the bucket."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._copied: dict[str, str] = {}

    def copy(self, folder: Path, hurried: Callable[[], bool] = lambda: False) -> None:
        """Copy the files of a folder, those of its folders excepted, as long as `hurried` is false."""
        for path in sorted(folder.iterdir()):
            if not path.is_file() or path.name == STATE or hurried():
                continue
            digest = sha256_of(path)
            if self._copied.get(path.name) != digest:
                self._run.store.put(self._run.key(PLACES.get(path.name, path.name)), path, overwrite=True)
                self._copied[path.name] = digest
