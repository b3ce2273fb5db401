"""Promises of the cache file: rows by prefix, unchanged or not at all."""

import sqlite3

import pytest

from job.storage.cache_file import CacheFile

ROWS = {
    "": "without a key",
    "a": "1",
    "a/b": "",
    "a/b\0c": "with NUL \0 inside",
    "a/é": 'quotes " and \\ and \n',
    "a/\N{CROCODILE}": "\N{CROCODILE}" * 1000,
    "ab": "x" * 3000,
    "a\U0010ffffb": "behind all others",
    "b": "2",
}


@pytest.fixture
def cache(tmp_path):
    """A cache of rows of all kinds."""
    cache = CacheFile(tmp_path / "cache", "1")
    cache.write(ROWS)
    return cache


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "ab", "b", "c"])
def test_rows_are_read_by_prefix(cache, prefix):
    """Each row whose key starts with the prefix is read as it was written, and no other."""
    assert cache.read(prefix) == {key: value for key, value in ROWS.items() if key.startswith(prefix)}


@pytest.mark.parametrize(
    "row",
    [
        ("CAST(x'ff' AS TEXT)", "'v'", "0"),
        ("CAST(x'61ff' AS TEXT)", "'v'", "0"),
        ("'k'", "CAST(x'22ff5c' AS TEXT)", "0"),
        ("x'00ff'", "x'00ff'", "0"),
        ("7", "8", "1e999"),
        ("'k'", "'v'", "'no number'"),
        ("'k'", "'v'", "x'00'"),
    ],
)
def test_a_damaged_row_is_left_out(cache, tmp_path, row):
    """A row whose key, value or seal is no text or number that was written costs itself, and no other row."""
    with sqlite3.connect(tmp_path / "cache") as database:
        database.execute(f"INSERT INTO cache VALUES ({', '.join(row)})")  # noqa: S608 -- the test's own
    assert cache.read() == ROWS
