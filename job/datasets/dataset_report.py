"""Report of a check of a dataset, and its cache.

Guarantees that a cached report is that of the same files, by name, size and times, checked by the same rules, and that
an absent or damaged cache costs time and nothing else.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from job.datasets import scan
from job.datasets.dataset_statistics import DatasetStatistics
from job.datasets.files import list_files, state_of
from job.datasets.labels import Problem, describe_problems
from job.datasets.near_duplicates import NearDuplicates
from job.errors import DataError
from job.storage.cache_file import CacheFile
from job.text import counted

REPORT_CACHE = ".report.sqlite"
"""Name of the cache in the folder of a dataset."""

ROW_LENGTH = 10_000_000
"""Characters of a row: a row has a limit, and a report has 400 for each picture."""

_SCHEMA = f"1, {scan.SCHEMA}"
"""Reports cached under another schema are not used."""


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Images and instances of a split."""

    num_images: int
    num_labelled: int
    num_background: int
    """Images without a label file, or with an empty one."""
    num_without_label: int
    """Images without a label file; they count as background."""
    instances: tuple[int, ...]
    """By class."""


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """Result of a check."""

    names: tuple[str, ...]
    """Class names in the order of their numbers; empty if the data file has none."""
    splits: dict[str, SplitCounts]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    val: tuple[str, ...] = ()
    """Images and labels of the validation split."""
    test: tuple[str, ...] = ()
    """Images and labels of the test split."""
    files: frozenset[str] = frozenset()
    """Files that training reads: the data file, lists of images, images and labels."""
    statistics: DatasetStatistics | None = None
    """None if nothing is labelled."""
    near_duplicates: tuple[NearDuplicates, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    """Hashes of the images that can be decoded, by the digests of `DatasetScan`."""
    digests: dict[str, str] = field(default_factory=dict)
    """Digests of `DatasetScan` of the images that can be decoded, by path."""
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Heights and widths of the images that can be decoded, as Ultralytics takes them, pixels, by path."""
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Folders of images, or lists of them, by split."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the data file, those that Ultralytics gets."""

    def describe(self) -> dict[str, str]:
        """Return what bounds the recall of a training: one sentence each by label, splits first."""
        found = {
            split: f"{counted(counts.num_images, 'image')}, {counts.num_background} of them background, "
            f"{counted(sum(counts.instances), 'object')}"
            for split, counts in self.splits.items()
        }
        alike = {"alike": "; ".join(map(str, self.near_duplicates))} if self.near_duplicates else {}
        return found | (self.statistics.describe() if self.statistics else {}) | alike

    def raise_if_broken(self, subject: str, advice: str = "correct them") -> None:
        """Raise `DataError` if there are problems, with all their causes, in a message from subject to advice."""
        if self.problems:
            found = counted(len(self.problems), "problem")
            raise DataError(f"{subject}: {found} found; {advice}", describe_problems(self.problems))


_REPORT = TypeAdapter(DatasetReport)


class ReportCache:
    """The last report on a folder, if it had no problems; of a folder that has changed since, none is read."""

    def __init__(self, folder: Path, rules: str) -> None:
        """Look at every file of a folder; `rules` are all else that decides the report, as text."""
        self._cache = CacheFile(folder / REPORT_CACHE, _SCHEMA)
        self.state = _digest(folder, rules)
        """Changes with each file; empty if the folder has one that cannot be looked at."""

    def read(self) -> DatasetReport | None:
        """Return the report, if there is one."""
        rows = self._cache.read()
        text = "".join(rows[key] for key in sorted(rows) if key.startswith(f"{self.state} "))
        with suppress(ValidationError):
            return _REPORT.validate_json(text) if rows.get(self.state) == str(len(text)) else None
        return None

    def write(self, report: DatasetReport) -> None:
        """Replace the report."""
        if not self.state or report.problems:
            return
        with suppress(ValueError):  # the name of a class is no text
            text = _REPORT.dump_json(report).decode()
            starts = range(0, len(text), ROW_LENGTH)
            rows = {
                f"{self.state} {number:05}": text[start : start + ROW_LENGTH] for number, start in enumerate(starts)
            }
            self._cache.write({**dict.fromkeys(self._cache.read()), self.state: str(len(text)), **rows})


def _digest(folder: Path, rules: str) -> str:
    """Return the SHA-256 over rules, and names, sizes and times of all files; empty if one cannot be looked at."""
    folder = Path(os.path.realpath(folder))
    found = list_files(folder)
    digest = hashlib.sha256(os.fsencode("\0".join((rules, str(folder), *sorted(found.folders)))))
    with suppress(OSError):
        for name in found.names:
            if name.endswith(".cache"):  # Ultralytics writes it after the check
                continue
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 -- as text: thousands are named in a row
            digest.update(os.fsencode(f"\0{name}\0{state_of(status)}"))
        return "" if found.refused else digest.hexdigest()
    return ""
