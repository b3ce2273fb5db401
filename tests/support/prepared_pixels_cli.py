"""The command line on a disk of which nothing has to stay free."""

import sys

from job.cli.app import main
from job.session import context
from job.training import prepared_pixels

if __name__ == "__main__":
    prepared_pixels.RESERVED_BYTES = context.RESERVED_BYTES = 0
    sys.exit(main(sys.argv[1:]))
