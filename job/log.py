"""Logging to stderr, as text, or as JSON lines for Cloud Logging where ``LOG=json``; progress bar; escaped stdout.

Guarantees that no name of a file, class or run, which may be hostile, controls the terminal, and that on a terminal no
message is behind a progress bar, or longer than a line but for a long path or a quoted command. Counts a wide letter as
one column.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from job.errors import OutputClosedError, OutputError
from job.text import NUM_COLUMNS, fitted

FORM = "LOG"
"""The variable that asks for JSON lines by ``json``; the image sets it."""

NUM_COLUMNS_NEEDED = 20
"""Columns that a terminal is taken to have at least."""

NUM_ROWS = 24
"""Rows of a terminal; one that a container is given may say that it has none, where no bar would be drawn."""

CLEARED = "\r\x1b[K"
"""Moves to the beginning of a terminal's line and clears it, of a progress bar of this process or another."""

SHARE = "{desc} |{bar}| {percentage:3.0f} %{postfix}"

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and newline, text direction marks, and surrogates."""


def escaped(text: str) -> str:
    """Return text with control characters spelt out."""
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return text with control characters, line ends and tabs spelt out."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


class EscapedStream(io.TextIOBase):
    """Standard output without control characters.

    `write` and `flush` raise `OutputError` if it cannot be written, `OutputClosedError` if its reader has gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Write text, escaped."""
        encoding = self._stream.encoding or "utf-8"
        shown = escaped(text).encode(encoding, "backslashreplace").decode(encoding)
        with self._explained():
            self._stream.write(shown)
            if "\n" in text:  # in a pipe too, lines stand in order among the messages of standard error
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._explained():
            self._stream.flush()

    def close(self) -> None:
        """Leave the stream alone, which others close; Python reports an error of closing a collected object."""

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self._stream.fileno())  # or Python would flush the rest at exit, and fail again
            os.close(devnull)
            if isinstance(error, BrokenPipeError):
                raise OutputClosedError from error
            raise OutputError(f"stdout: cannot be written, {error.strerror}; write it elsewhere") from error


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = escaped(record.getMessage())
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


class _Terminal(_Text):
    """Text in lines of a terminal, in place of a progress bar, which is drawn anew below it."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return CLEARED + "\n".join(part for line in lines for part in fitted(line, num_columns()))


class _Json(logging.Formatter):
    """Fields of Cloud Logging's structured logs."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "severity": record.levelname,
            "message": record.getMessage(),
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(entry | extra, default=str)


def is_for_machines() -> bool:
    """Whether the environment asks for JSON lines."""
    return os.environ.get(FORM) == "json"


def num_columns() -> int:
    """Return the columns of the terminal, 80 at most and where there is none."""
    try:
        found = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return max(NUM_COLUMNS_NEEDED, min(found or NUM_COLUMNS, NUM_COLUMNS))


def set_up_logging() -> None:
    """Send the job's messages from INFO on to stderr, those of libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if is_for_machines() else _Terminal() if sys.stderr.isatty() else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("job").setLevel(logging.INFO)
    for noisy in ("urllib3", "google", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _bar(label: str, total: float | None, **options: Any) -> Any:  # noqa: ANN401 -- one of tqdm's
    from tqdm import tqdm  # noqa: PLC0415 -- `job --help` does without tqdm

    return tqdm(
        desc=escaped(label),
        total=total,
        disable=is_for_machines() or not sys.stderr.isatty(),
        leave=False,
        ncols=num_columns() - 1,
        nrows=NUM_ROWS,
        miniters=0,
        **options,
    )


class Progress(contextlib.AbstractContextManager["Progress"]):
    """A progress bar; a no-op where stderr is no terminal, or for machines. Counts alone without a total."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._bar = _bar(label, total, unit=unit, unit_scale=unit == "B")

    def __exit__(self, *_: object) -> None:
        self.close()

    def to(self, done: int, total: int | None = None) -> None:
        """Show progress, and the total once it is known."""
        self._bar.total = total or self._bar.total
        with contextlib.suppress(OSError):  # the terminal was closed
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Close the bar."""
        with contextlib.suppress(OSError):
            self._bar.close()


class LiveLine:
    """One line of a terminal: what goes on, the share that is done, and a note; drawn once it is shown first."""

    def __init__(self, total: float) -> None:
        self._total = total
        self._bar: Any = None

    def show(self, label: str, done: float, note: str = "") -> None:
        """Show what goes on, and how much of the total is done."""
        if self._bar is None:
            self._bar = _bar(label, self._total, bar_format=SHARE)
        if self._bar.disable:
            return
        self._bar.ncols = num_columns() - 1
        self._bar.set_description_str(escaped(label), refresh=False)
        self._bar.set_postfix_str(escaped(note), refresh=False)
        with contextlib.suppress(OSError):  # the terminal was closed
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None
