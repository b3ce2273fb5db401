"""Warnings of the wrapped libraries: each distinct one is logged once and kept for the attempt's record.

Guarantees that no warning is lost except those of `QUIET`, which are known and intended.
"""

import contextlib
import json
import logging
import os
import re
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

from ultralytics.utils import LOGGER

log = logging.getLogger(__name__)

QUIET = {
    r"Detected call of `lr_scheduler\.step\(\)` before": "the order of the stock loop, which says nothing of it either",
    r"torch\.cuda\.amp\.GradScaler is enabled, but CUDA is not available": "what trains on a CPU has no scaler",
    r"Dataset images contain up to \d+ objects": "`Trainer` decides max_det by itself, and says so",
}
"""Patterns of warnings that are not passed on, each with the reason."""

FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Categories that Python shows to developers only."""

NUM_KEPT, LONGEST = 50, 500
"""Limits of the record: number of warnings, and characters of each."""

NOT_DETERMINISTIC = "determin"
"""Text of torch's warnings of nondeterministic kernels, which are kept beyond the limit."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class LibraryWarnings:
    """Collects Ultralytics' log records from WARNING on, and Python `warnings` of any library.

    A loader worker, which has a copy of this object, sends what it collects through a pipe.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
            weakref.finalize(self, os.close, end)

    @property
    def texts(self) -> list[str]:
        """Each distinct warning so far, in order of time."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while True:
                for line in os.read(self._pipe[0], 1 << 16).splitlines():
                    self._keep(*json.loads(line))
        return list(self._texts)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Collect the warnings of the block."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for category in FOR_DEVELOPERS:
                warnings.simplefilter("ignore", category)
            warnings.showwarning = lambda message, _category, filename, *_: self._pass_on(
                _library_of(filename), str(message), logging.WARNING
            )
            LOGGER.addFilter(self._on_record)
            try:
                yield
            finally:
                LOGGER.removeFilter(self._on_record)

    def _on_record(self, record: logging.LogRecord) -> bool:
        """Take a record from Ultralytics' logger; it goes no further."""
        if record.levelno >= logging.WARNING:
            self._pass_on("ultralytics", record.getMessage(), record.levelno)
        return False

    def _pass_on(self, library: str, text: str, level: int) -> None:
        text = " ".join(_COLOUR.sub("", text).split())[:LONGEST]
        if any(re.match(pattern, text) for pattern in QUIET):
            return
        self._keep(f"{library}: {text}", level)

    def _keep(self, text: str, level: int) -> None:
        is_proof = NOT_DETERMINISTIC in text
        if text in self._texts or len(self._texts) >= NUM_KEPT * (2 if is_proof else 1):
            return
        self._texts.append(text)
        if os.getpid() == self._process:
            log.log(level, "%s", text)
        else:
            with contextlib.suppress(BlockingIOError):  # the pipe is full
                os.write(self._pipe[1], json.dumps([text, level]).encode() + b"\n")


def _library_of(filename: str) -> str:
    """Return the package of a source file; a warning may name the caller's file instead."""
    before, installed, path = filename.rpartition("site-packages/")
    return Path(path).parts[0].removesuffix(".py") if installed and before else "python"
