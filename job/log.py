"""Logging to stderr, as text on a terminal or as JSON lines for Cloud Logging; progress bar; escaped stdout.

Guarantees that no name of a file, class or run, which may be hostile, controls the terminal.
"""

import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

from job.errors import OutputClosedError, OutputError

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

    def write(self, text: str) -> int:
        """Write text, escaped."""
        encoding = self._stream.encoding or "utf-8"
        shown = escaped(text).encode(encoding, "backslashreplace").decode(encoding)
        with self._explained():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._explained():
            self._stream.flush()

    def close(self) -> None:
        """Leave the stream alone, which others close; Python closes this one when it is collected, and reports errors."""

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


def set_up_logging(*, for_machines: bool) -> None:
    """Send the job's messages from INFO on to stderr, those of libraries from WARNING on; for machines as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if for_machines and not sys.stderr.isatty() else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("job").setLevel(logging.INFO)
    for noisy in ("urllib3", "google", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class Progress(contextlib.AbstractContextManager["Progress"]):
    """A progress bar; a no-op where stderr is no terminal."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        from tqdm import tqdm  # noqa: PLC0415 -- `job --help` does without tqdm

        self._bar = tqdm(
            desc=escaped(label),
            total=total,
            unit=unit,
            unit_scale=unit == "B",
            disable=not sys.stderr.isatty(),
            leave=False,
        )

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
