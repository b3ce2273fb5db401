"""Text for a terminal of 80 columns."""

import textwrap
from collections.abc import Sequence

NUM_COLUMNS = 80

NUM_LABEL = 12
"""Columns for the word that a paragraph begins with."""


def labelled(label: str, text: str) -> list[str]:
    """Return a paragraph with a word before it; what is too long for a line, such as a path, is not broken."""
    return textwrap.wrap(
        text,
        NUM_COLUMNS,
        initial_indent=f"{label:{NUM_LABEL - 1}} ",
        subsequent_indent=" " * NUM_LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label]


def command_line(label: str, command: str) -> list[str]:
    """Return a command that can be copied from the terminal, with a word before it."""
    lines = textwrap.wrap(command, NUM_COLUMNS - NUM_LABEL - 2, break_long_words=False, break_on_hyphens=False)
    ended = [f"{line} \\" for line in lines[:-1]] + lines[-1:]
    return [f"{label:{NUM_LABEL - 1}} {ended[0]}", *(f"{'':{NUM_LABEL}}  {line}" for line in ended[1:])]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows with their cells below each other."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def duration(hours: float) -> str:
    """Return a time for people: ``40 s``, ``12 min`` or ``3 h 20 min``."""
    seconds = hours * 3600
    if seconds < 60:  # noqa: PLR2004 -- a minute
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"  # noqa: PLR2004 -- an hour


def between(low: str, high: str) -> str:
    """Return a range, or the one value if both ends are the same."""
    return low if low == high else f"{low} to {high}"
