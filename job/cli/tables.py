"""Text for a terminal of 80 columns."""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

NUM_COLUMNS = 80

NUM_LABEL = 12
"""Columns for the word that a paragraph begins with."""

MIN_CELL = 15
"""Columns for a cell of a grid, at least."""


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


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table whose first column says what the others hold, cells wrapped; of many columns, several tables."""
    label = max(len(row[0]) for row in rows) + 2
    per_table = max(1, (NUM_COLUMNS - label) // MIN_CELL)
    lines: list[str] = []
    for first in range(1, len(head), per_table):
        part = slice(first, first + per_table)
        width = (NUM_COLUMNS - label) // len(head[part])
        lines += [""] if lines else []
        for row in (head, *rows):
            cells = [textwrap.wrap(cell, width - 2) or [""] for cell in row[part]]
            for number, line in enumerate(zip_longest(*cells, fillvalue="")):
                beginning = row[0] if number == 0 else ""
                lines.append((f"{beginning:{label}}" + "".join(f"{cell:{width}}" for cell in line)).rstrip())
    return lines
