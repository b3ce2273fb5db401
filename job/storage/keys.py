"""Validation of keys: names that both a folder and a bucket can hold, and that cannot lead out of a folder."""

import os
import unicodedata
from pathlib import Path

from job.errors import UsageError

MAX_BYTES = 1024
"""Limit of Google Cloud Storage."""

REFUSED = frozenset({"Cc", "Cs"})
"""Control characters, and halves of characters; spaces of every width and joiners are legal."""


def is_key(name: str) -> bool:
    """Whether a name is relative, ``/``-separated, and without ``.``, ``..``, backslash or control character."""
    return (
        {"", ".", ".."}.isdisjoint(name.split("/"))
        and (name.isprintable() or not any(unicodedata.category(letter) in REFUSED for letter in name))
        and "\\" not in name
        and len(name.encode()) <= MAX_BYTES
    )


def require_key(key: str) -> str:
    """Return a key; raises `UsageError` if it is none."""
    if not is_key(key):
        raise UsageError(
            f"key {key!r}: does not name an object; use parts separated by '/', without '.', '..', backslash or "
            f"control character, {MAX_BYTES} bytes at most"
        )
    return key


def file_below(folder: Path, key: str) -> Path:
    """Return the path of a key below a folder; raises `UsageError` for no key, or if a part of it is a link."""
    path = str(folder)
    for part in require_key(key).split("/"):
        path += f"/{part}"
        if os.path.islink(path):  # noqa: PTH114 -- as text: thousands of files are named in a row
            raise UsageError(f"{path}: is a symbolic link, which is not followed; put the files themselves there")
    return folder / key
