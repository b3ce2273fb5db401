"""The clock that the storm sets changes time and date, and no duration."""

import os
import subprocess
import sys

from tests.support.cli_process import ROOT, surroundings
from tests.support.clock.sitecustomize import CLOCK

PROGRAM = """
import pickle, time
from datetime import UTC, datetime
import sitecustomize

def read():
    return time.time(), time.time_ns() / 1e9, datetime.now(UTC).timestamp(), datetime.now().timestamp()

before, steady = read(), time.monotonic()
sitecustomize.set_clock(-3600)
assert all(-3600.5 < after - since < -3500 for since, after in zip(before, read())), (before, read())
assert 0 <= time.monotonic() - steady < 100
true = datetime.fromisoformat("2026-11-25T10:00:00+00:00")
assert isinstance(true.__class__.__base__.fromisoformat("2026-11-25T10:00:00+00:00"), datetime)
assert pickle.loads(pickle.dumps(datetime.now(UTC))) < datetime.now(UTC)
"""


def test_every_reading_of_the_wall_clock_leaps_and_durations_do_not(tmp_path):
    """Set back by an hour, time and date are wrong by that, wherever they are read; the monotonic clock is not."""
    path = os.pathsep.join([str(ROOT / "tests/support/clock"), str(ROOT)])
    environment = surroundings({CLOCK: tmp_path / "clock", "PYTHONPATH": path})
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
