"""The command line, which notes each image that the check of a dataset decodes in the file that `DECODED` names."""

import os
from pathlib import Path

from job.__main__ import run as run_command_line
from job.datasets import image

DECODED = "TEST_DECODED"

if __name__ == "__main__":
    decode = image.decode

    def noted(data, name, *args, **options):
        """Note the name of an image, and decode it."""
        with Path(os.environ[DECODED]).open("a") as opened:
            opened.write(f"{name}\n")
        return decode(data, name, *args, **options)

    image.decode = noted
    run_command_line()
