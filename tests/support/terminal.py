"""A terminal with a command in its foreground."""

import contextlib
import io
import itertools
import os
import re
import select
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

from job.log import FORM, set_up_logging

LOOK_S = 0.05


class Terminal:
    """A pseudo-terminal; what the command writes is read all the time, as by a screen."""

    def __init__(self, words, env):
        self._screen, terminal = os.openpty()
        name = os.ttyname(terminal)
        # The leader of a new session gets the first terminal that it opens as its own.
        program = ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', name, *map(str, words)]
        self.process = subprocess.Popen(program, env=env, start_new_session=True)
        self._written = bytearray()
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(terminal,), daemon=True)
        self._reader.start()

    def press(self, keys):
        """Press keys, such as Ctrl-C, which the terminal turns into a signal to its foreground."""
        os.write(self._screen, keys)

    def close(self):
        """Close the window: everything in the session is hung up."""
        self._closing.set()
        self._reader.join()

    def text(self):
        """Return what was written so far."""
        return self._written.decode(errors="replace")

    def _read(self, terminal):
        while not self._closing.is_set():
            if select.select([self._screen], [], [], LOOK_S)[0]:
                self._written += os.read(self._screen, 65536)
        os.close(terminal)  # kept until here, or reading would fail before the command has opened it
        os.close(self._screen)


class TerminalText(io.StringIO):
    """A stream that takes itself for a terminal and keeps what is written."""

    def isatty(self):
        """Say that it is one."""
        return True


@contextlib.contextmanager
def terminal_shown():
    """Put a terminal of 80 columns in the place of stderr, on which a bar is drawn at each call; yield it.

    No fixture: before each test pytest puts a stderr of its own there.
    """
    shown = TerminalText()
    with (
        patch.object(sys, "stderr", shown),
        patch("tqdm.std.time", itertools.count().__next__),
        patch.dict(os.environ, {FORM: ""}),
    ):
        set_up_logging()
        yield shown


def screen(text):
    """Return the lines that a terminal shows after some text with carriage returns and erasures."""
    lines, column = [""], 0
    for part in re.split(r"(\r|\n|\x1b\[K)", text):
        if part == "\n":
            lines.append("")
        if part in {"\r", "\n"}:
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
            column += len(part)
    return lines


def processes_of(session):
    """Return the command lines of the processes of a session that are alive."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            if state != "Z" and int(its_session) == session:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found
