"""``python -m job.tracking RUN BUCKET ATTEMPT FOLDER``: the process that `job.tracking.tracker` starts."""

import os
import sys
from pathlib import Path

from job.errors import JobError
from job.runs.run import Claim, Run
from job.storage.open_store import open_store
from job.tracking.follower import follow


def main() -> int:
    """Follow an attempt; a failure is one line on standard error."""
    name, bucket, attempt, folder = sys.argv[1:]
    try:
        claim = Claim(Run(open_store(bucket), name), int(attempt))
        follow(claim, Path(folder), map(str.strip, iter(sys.stdin.readline, "")))
    except JobError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the library's exit handlers would wait for a server that does not answer
