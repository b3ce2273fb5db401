"""Paths that users write: no test and no tilde among them raises an error.

A test is false where the file system refuses a path, as one too long.
"""

import os
from pathlib import Path

is_file, is_folder = os.path.isfile, os.path.isdir


def expanded(path: str | Path) -> Path:
    """Replace ``~`` by the home, as no shell does in ``--bucket=~/b``; a ``~name`` of no user stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- `Path.expanduser` raises an error for no user's name
