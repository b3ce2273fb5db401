"""A folder for one attempt's files, which no other attempt on the machine uses.

Guarantees that nothing is left of an attempt that ended, and that what a killed one left is removed by the next.
"""

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from job.session import environment

LOCK = ".lock"
"""In the folder of an attempt; held while it lives."""

NAME = re.compile(r".+-[0-9a-f]{8}")
"""Of the folder of an attempt."""


@contextlib.contextmanager
def folder_of_its_own(workdir: Path, owner: str) -> Iterator[Path]:
    """Work in a folder under ``workdir`` that is named after its owner and gone afterwards."""
    runs = workdir / "runs"
    name = f"{owner}-{secrets.token_hex(4)}"
    with environment.explained(workdir):
        runs.mkdir(parents=True, exist_ok=True)
        for left in runs.glob("[!.]*"):
            if not (NAME.fullmatch(left.name) and (left / LOCK).is_file()):
                continue  # a folder of the user's own
            with environment.locked(left / LOCK) as free:
                if free:  # whoever made it was killed: the system takes the locks of a process that ends
                    shutil.rmtree(left, ignore_errors=True)
        unlocked = runs / f".{name}"
        unlocked.mkdir()
        with environment.locked(unlocked / LOCK):
            folder = unlocked.rename(runs / name)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
