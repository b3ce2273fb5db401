"""The command line of `fault_point_cli` on a GPU of limited memory: ``POINTS words ...``.

`LIMIT` names the bytes that torch may have, and `PEAK` a file for those that a whole training had at most.
"""

import os
import runpy
from pathlib import Path

from tests.support.fault_point_cli import after, in_training

LIMIT, PEAK = "TEST_GPU_BYTES", "TEST_GPU_PEAK"


def arm():
    """Limit the memory, and write down its peak once a training has ended."""
    import torch  # noqa: PLC0415 -- not before Ultralytics is confined

    from job.training.loop import Training  # noqa: PLC0415 -- as the line above

    if LIMIT in os.environ:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(int(os.environ[LIMIT]) / total)
    if PEAK in os.environ:
        after(Training, "run", lambda: Path(os.environ[PEAK]).write_text(str(torch.cuda.max_memory_reserved())))


if __name__ == "__main__":
    in_training(arm)
    runpy.run_module("tests.support.fault_point_cli", run_name="__main__")
