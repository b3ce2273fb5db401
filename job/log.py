"""What the job says while it works: short text for a person at a terminal, one JSON object a line for a machine.

Everything goes to stderr; stdout is for data. Guarantees that neither steers a terminal: names of files, classes and
runs are a stranger's, and may hold what moves the cursor, clears the screen or types for the person.
"""

import contextlib
import io
import json
import logging
import re
import sys
from typing import Any, Self, TextIO

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SEVERITY = {"WARNING": "WARNING", "ERROR": "ERROR", "CRITICAL": "CRITICAL", "DEBUG": "DEBUG"}


_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and newline, what turns the direction of text, and halves of characters."""


def escaped(text: str) -> str:
    """Return text in which what would steer a terminal, or cannot be written to one, is spelt out."""
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class EscapedStream(io.TextIOBase):
    """Standard output that steers no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, escaped."""
        self._stream.write(escaped(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person watches."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the file behind."""
        return self._stream.fileno()


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = escaped(record.getMessage())
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


class _Json(logging.Formatter):
    """Keys as Cloud Logging reads them."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": _SEVERITY.get(record.levelname, "INFO"),
            "message": record.getMessage(),
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(entry, default=str)


def set_up_logging(*, for_machines: bool) -> None:
    """Send the job's messages to stderr; those of libraries only from a warning on.

    Args:
        for_machines: Write JSON where no person watches.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if for_machines and not sys.stderr.isatty() else _Text())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("job").setLevel(logging.INFO)
    for noisy in ("urllib3", "google", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class Progress:
    """A bar for work of known length; nothing where no person watches."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        from tqdm import tqdm  # noqa: PLC0415 -- `job --help` needs none

        self._bar = tqdm(
            desc=escaped(label),
            total=total,
            unit=unit,
            unit_scale=unit == "B",
            disable=not sys.stderr.isatty(),
            leave=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def to(self, done: int, total: int | None = None) -> None:
        """Show how much is done, and how much there is if that was not known."""
        self._bar.total = total or self._bar.total
        with contextlib.suppress(OSError):  # the terminal was closed
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        with contextlib.suppress(OSError):
            self._bar.close()
