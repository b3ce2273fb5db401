"""A cache in a file: rows of text in SQLite, shared by threads and processes.

Guarantees that rows are read unchanged, and that an absent, damaged, locked or irregular file costs time only. No code
in a foreign database runs. Knows nothing of the values.
"""

import errno
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

TABLE = "CREATE TABLE cache (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal INTEGER NOT NULL) WITHOUT ROWID"

ROWS = """
SELECT CAST(key AS BLOB), CAST(value AS BLOB), seal FROM cache WHERE key >= CAST(? AS TEXT) AND key < CAST(? AS TEXT)
"""

SIDE_FILES = ("-journal", "-wal", "-shm")
"""Suffixes of the files that SQLite opens beside a database."""

MAX_ROW_BYTES = 64_000_000
"""Longest value, checked before memory is allocated for it."""

ERRORS = (sqlite3.Error, OSError, ValueError, TypeError)
"""Errors of SQLite, of the file system, and of rows with other types."""


class CacheFile:
    """Values by key, each sealed with a CRC-32 over schema, key and value.

    No connection outlives a call, so that a process may fork. If the folder is absent or cannot be written to, nothing
    is cached. Rows written under another schema are not read.
    """

    def __init__(self, path: Path, schema: str = "") -> None:
        self._path, self._schema = path, schema

    def read(self, prefix: str = "") -> dict[str, str]:
        """Return all rows whose seal fits, and whose key starts with a prefix."""
        with suppress(*ERRORS), self._connected("rw") as database:
            start = prefix.encode()
            rows = database.execute(ROWS, (start, start + b"\xff"))
            return {key.decode(): value.decode() for key, value, seal in rows if seal == self._seal(key, value)}
        return {}

    def write(self, rows: Mapping[str, str | None]) -> None:
        """Insert or replace rows in one transaction; `None` deletes the row of a key. Without rows, no file is made."""
        if not rows:
            return
        with suppress(*ERRORS), self._connected("rwc") as database:
            database.execute("BEGIN IMMEDIATE")
            if not _schema(database):
                database.execute(TABLE)
            for key, value in rows.items():
                if value is None:
                    database.execute("DELETE FROM cache WHERE key = ?", (key,))
                else:
                    row = key, value, self._seal(key.encode(), value.encode())
                    database.execute("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", row)

    def _seal(self, key: bytes, value: bytes) -> int:
        return zlib.crc32(b"\t".join((self._schema.encode(), key, value)))

    @contextmanager
    def _connected(self, mode: str) -> Iterator[sqlite3.Connection]:
        """Open the database for one transaction; empty a damaged one, so that the next call starts anew."""
        for suffix in ("", *SIDE_FILES):
            path = Path(f"{self._path}{suffix}")
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would block, and a link lead elsewhere
                    raise OSError(errno.EINVAL, "is no regular file", str(path))
        address = f"{self._path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as database, database:
                database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("PRAGMA synchronous = OFF")  # a loss of power costs time only
                if _schema(database) not in ([], [(TABLE,)]):  # views, triggers, or anything that could run code
                    raise sqlite3.DatabaseError("is not a cache")  # noqa: TRY301 -- as for any damaged one
                yield database
        except sqlite3.OperationalError:  # absent, locked, or not writable
            raise
        except sqlite3.DatabaseError:
            with suppress(OSError):
                os.truncate(self._path, 0)  # and not removed: `.pulled` marks its folder
            raise


def _schema(database: sqlite3.Connection) -> list[tuple[str]]:
    return database.execute("SELECT sql FROM sqlite_master").fetchall()
