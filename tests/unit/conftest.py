"""A terminal for what is drawn on one."""

import itertools
import sys

import pytest

from job.log import set_up_logging
from tests.support.terminal import TerminalText


@pytest.fixture
def on_terminal(monkeypatch):
    """A terminal of 80 columns in the place of stderr, on which a bar is drawn at each call."""
    shown = TerminalText()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr("tqdm.std.time", itertools.count().__next__)
    monkeypatch.delenv("LOG", raising=False)
    set_up_logging()
    return shown
