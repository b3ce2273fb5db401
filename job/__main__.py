"""The process of the command line: ``job``, and ``python -m job``."""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from job.errors import ExitCode
from job.training import isolation
from job.training.signals import TRAINS, handled_signals


def run() -> NoReturn:
    """Run the command line, then end this process.

    A rank of a distributed training ends without Python's own finalization: there a thread of Gloo that releases its
    last tensor asks for the interpreter, is refused, and aborts the process of a finished training (torch 2.10:
    ``ProcessGroupGloo::runLoop``). So does a process that is to be started again: finalization waits for threads and
    loader processes, which may be the cause of a hang, and a preempted machine has no time for it. So does any other
    one that may have imported torch, whose finalization takes a sixth of the time of its imports.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file to be opened would take its place
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 -- as long as the process lives
    trains = sys.argv[1:2] in TRAINS
    if trains:
        for number in handled_signals():
            signal.signal(number, _leave)  # nothing is to be committed until `session.preemption` installs its handler
    from job.cli.app import main  # noqa: PLC0415 -- a notice may come meanwhile

    is_rank = isolation.is_rank()  # not any more after `ProcessGroup.join`
    try:
        exit_code = main()
    finally:  # a launcher exits as rank 0 does
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
    if trains or is_rank or exit_code == ExitCode.TRY_AGAIN:
        logging.shutdown()
        os._exit(exit_code)
    sys.exit(exit_code)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:  # the terminal is gone, and Python would end with 120 once it tries again
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leave(number: int, _frame: FrameType | None) -> None:
    message = f"{signal.Signals(number).name}: asked to stop, nothing is lost; the same command resumes\n"
    try:
        os.write(2, message.encode())
    finally:  # the terminal may be gone
        os._exit(ExitCode.TRY_AGAIN)


if __name__ == "__main__":
    run()
