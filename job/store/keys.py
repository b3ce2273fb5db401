"""Keys that stay inside: what may name an object, and the file that a key stands for below a folder."""

from pathlib import Path

from job.errors import UsageError


def check_key(key: str) -> str:
    """Return a key if it is one.

    Raises:
        UsageError: If it is absolute, has an empty part, ``.`` or ``..``, a backslash or a control character.
    """
    bad_part = any(part in {"", ".", ".."} for part in key.split("/"))
    if bad_part or "\\" in key or any(ord(letter) < 32 or ord(letter) == 127 for letter in key):  # noqa: PLR2004 -- control characters
        raise UsageError(f"key {key!r}: does not name an object; use parts separated by '/', without '.', '..' or '\\'")
    return key


def file_below(folder: Path, key: str) -> Path:
    """Return the file that a key names below a folder.

    Raises:
        UsageError: If the key is none, or a symbolic link on the way leads out of the folder.
    """
    path = folder.joinpath(*check_key(key).split("/"))
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"key {key!r}: leads out of {folder} by a symbolic link; remove the link")
    return path
