"""A wall clock that can be set while processes run: Python imports this where its folder is on the path.

All processes that have `CLOCK` share one clock, which goes wrong by as many seconds as the file that it names says, and
right where there is no file. Clocks for durations are unchanged, as where a real clock is set.
"""

import copyreg
import datetime as dt
import os
import time

CLOCK = "TEST_CLOCK"

_true_time, _true_time_ns, _TrueDatetime = time.time, time.time_ns, dt.datetime


def wrong_by_s():
    """Return by how many seconds the clock is wrong."""
    try:
        with open(os.environ[CLOCK]) as opened:  # noqa: PTH123 -- pathlib loads much
            return int(opened.read())
    except (KeyError, FileNotFoundError):
        return 0


def set_clock(seconds):
    """Set the clock wrong by some seconds, for all processes at once."""
    path = os.environ[CLOCK]
    with open(f"{path}.new", "w") as opened:  # noqa: PTH123 -- pathlib would slow each start of Python
        opened.write(str(seconds))
    os.replace(f"{path}.new", path)  # noqa: PTH105 -- pathlib would slow each start of Python


class _Kind(type):
    """Takes what the true class makes for what it makes itself."""

    def __instancecheck__(cls, made):
        return isinstance(made, _TrueDatetime)

    def __subclasscheck__(cls, other):
        return issubclass(other, _TrueDatetime)


class _Datetime(_TrueDatetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def today(cls):
        return cls.now()


if CLOCK in os.environ:
    time.time = lambda: _true_time() + wrong_by_s()
    time.time_ns = lambda: _true_time_ns() + wrong_by_s() * 10**9
    dt.datetime = _Datetime
    copyreg.pickle(_TrueDatetime, lambda made: (_Datetime, made.__reduce_ex__(2)[1]))
