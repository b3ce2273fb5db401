"""Which signals a process does not hear."""

import signal
from pathlib import Path

from job.training.signals import NOTICES


def hears_no_notice(number):
    """Tell whether every notice is blocked in a process, from proc(5)."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    mask = int(next(line.split()[1] for line in lines if line.startswith("SigBlk:")), 16)
    blocked = {signal.Signals(bit + 1) for bit in range(31) if mask >> bit & 1}
    return blocked == NOTICES
