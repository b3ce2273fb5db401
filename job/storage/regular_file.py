"""Regular files only: a named pipe would block for ever, and a device has no end.

Symbolic links are not followed by default, so that no foreign link leads a write out of its folder.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path, *, append: bool = False, follow_links: bool = False) -> BinaryIO:
    """Open a file unbuffered, to read it or to append to it, which creates it; `OSError` if it is not regular."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT if append else os.O_RDONLY
    flags |= os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)  # a pipe does not block
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(descriptor, "ab" if append else "rb", buffering=0)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
