"""Signals that a process blocks."""

import signal
from pathlib import Path

from job.training.signals import NOTICES


def blocks_notices(number):
    """Whether a process blocks every signal that is a notice, from proc(5)."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    mask = int(next(line.split()[1] for line in lines if line.startswith("SigBlk:")), 16)
    blocked = {signal.Signals(bit + 1) for bit in range(31) if mask >> bit & 1}
    return blocked == NOTICES
