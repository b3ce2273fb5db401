"""Listing of a dataset's folder as Ultralytics' ``glob`` sees it: nothing hidden, links followed.

Guarantees that a link which leads out of the folder is followed only with `follow_links`. Refused links, pipes, devices
and dangling links are reported.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from job.datasets.labels import Problem

UNREADABLE = "unreadable", "is no file that can be read; replace it"
"""Kind and message of a pipe, a device, or a dangling link."""

MAX_LINKS = 100
"""Limit of links to folders: links among links could name a folder without end."""


@dataclass(slots=True)
class FolderListing:
    """Files of a folder; names are relative to it and ``/``-separated."""

    names: list[str] = field(default_factory=list)
    """Sorted."""
    folders: set[str] = field(default_factory=set)
    refused: list[Problem] = field(default_factory=list)


def list_files(folder: Path, *, follow_links: bool = False) -> FolderListing:
    """List a folder, absolute and itself without links."""
    found, num_links = FolderListing(), 0
    left: list[tuple[str, tuple[str, ...]]] = [("", (str(folder),))]
    while left:
        below, above = left.pop()
        found.folders.add(below.rstrip("/") or ".")
        try:
            with os.scandir(folder / below) as scanned:
                entries = [entry for entry in scanned if not entry.name.startswith(".")]
        except OSError as error:
            message = f"cannot be listed, {error.strerror}; make it a folder that can be read"
            found.refused.append(Problem(below or ".", None, "unreadable", message))
            continue
        for entry in entries:
            name, is_folder, is_link = below + entry.name, entry.is_dir(), entry.is_symlink()
            real = os.path.realpath(entry.path) if is_folder or is_link else entry.path
            num_links += is_link and is_folder
            refusal = _refusal(folder, real, above, num_links, follow_links=follow_links) if is_link else None
            if refusal is not None:
                found.refused.append(Problem(name, None, *refusal))
            elif not is_folder and not entry.is_file():  # a pipe blocks its reader
                found.refused.append(Problem(name, None, *UNREADABLE))
            if not is_folder:
                found.names.append(name)
            elif refusal is None:
                left.append((f"{name}/", (*above, real)))
    found.names.sort()
    return found


def state_of(status: os.stat_result) -> str:
    """Return inode, times of change and size of a file: other bytes have another state, also if its time was set."""
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_size}"


def real_name(folder: Path, path: Path) -> str | None:
    """Return the name of a path, all links resolved, in a folder that is itself without links; None outside of it."""
    try:
        real = Path(os.path.realpath(path))
    except ValueError:  # a NUL character
        return None
    return real.relative_to(folder).as_posix() if real.is_relative_to(folder) else None


def _refusal(
    folder: Path, real: str, above: tuple[str, ...], num_links: int, *, follow_links: bool
) -> tuple[str, str] | None:
    """Return kind and message of a refused link; `None` if it is followed."""
    if not follow_links and real_name(folder, Path(real)) is None:
        message = f"is a link that leads out of the dataset, to {real}; put that there, or push it with --follow-links"
        return "outside", message
    if real in above:
        return "link", f"is a link to {real}, which it lies in itself; remove it"
    if num_links > MAX_LINKS:
        return "link", f"is one of more than {MAX_LINKS} links to folders; put the folders themselves there"
    return None
