"""Stubs of programs on the PATH of a script, which record their calls."""

import json
import os
import sys
from pathlib import Path
from typing import Any

RECORDING = """\
#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    stdin = sys.stdin.read() if {reads} else ""
    log.write(json.dumps({{"words": sys.argv[1:], "stdin": stdin, "environment": dict(os.environ)}}) + "\\n")
{body}
"""


class Programs:
    """A folder of programs that comes first on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> str:
        """The PATH on which the programs come before the real ones."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def add(self, name: str, body: str = "", *, reads: bool = False) -> None:
        """Put a program there.

        Args:
            name: What it stands in for.
            body: Python that decides what it prints and how it ends.
            reads: Whether it reads its standard input.
        """
        program = self.folder / name
        log = str(self.folder / f"{name}.log")
        program.write_text(RECORDING.format(python=sys.executable, log=log, reads=reads, body=body))
        program.chmod(0o755)

    def calls(self, name: str) -> list[dict[str, Any]]:
        """Return how a program was called: words, standard input and environment of each call."""
        log = self.folder / f"{name}.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def words(self, name: str) -> list[list[str]]:
        """Return the words of each call of a program."""
        return [call["words"] for call in self.calls(name)]
