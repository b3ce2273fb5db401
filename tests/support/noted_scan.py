"""``python -m tests.support.noted_scan``: the process that scans while files are pulled, which notes what it does.

Lines go to the file that `NOTES` names. With `DIES_AFTER`, it is killed before it decodes one image more.
"""

import os
import signal
import sys
from pathlib import Path

from job.datasets import image, pull_scan, scan
from job.training.signals import NOTICES


def main():
    """Scan as the process does, and note its signals, and each image and label before it is checked."""
    with Path(os.environ["NOTES"]).open("a", buffering=1) as notes:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= NOTICES
        print(f"process {os.getpid()} {'ignores' if blocked else 'hears'} notices", file=notes)
        decode, check_label, left = image.decode, scan.check_label, int(os.environ.get("DIES_AFTER", "1000"))

        def noted_decode(data, name, num_channels, **options):
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            print(f"image {name} {num_channels}", file=notes)
            return decode(data, name, num_channels, **options)

        def noted_check(data, *rules, single_class):
            print(f"label {single_class}", file=notes)
            return check_label(data, *rules, single_class=single_class)

        image.decode, scan.check_label = noted_decode, noted_check
        pull_scan.num_cores = lambda: 1
        if "DIES_AFTER" in os.environ:
            pull_scan.SAVED_S = 0
        pull_scan.scan_received(iter(sys.stdin))


if __name__ == "__main__":
    main()
