"""The process of the command line: ``job``, and ``python -m job``."""

import logging
import os
import sys
from typing import NoReturn

from job.cli import main
from job.errors import ExitCode


def run() -> NoReturn:
    """Run the command line, then end this process.

    One that trained together with others ends without Python's own finale. During that, a thread of Gloo that is about
    to let go of its last tensor asks for the interpreter, is refused, and aborts the process of a finished training
    (torch 2.10: ``ProcessGroupGloo::runLoop``). So does one that is to be started again: the finale waits for threads
    and loader processes, which may be what hung, and a machine that goes has no time for it.
    """
    together = os.environ.get("WORLD_SIZE", "1") != "1"  # `World.join` takes it away
    exit_code = main()
    if together or exit_code == ExitCode.TRY_AGAIN:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


if __name__ == "__main__":
    run()
