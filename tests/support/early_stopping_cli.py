"""The command line with a first epoch that stays the best, so that patience runs out."""

import sys

from job.cli.app import main
from tests.support.fault_point_cli import in_training


def peak_early():
    """Let the early stopper remember a first epoch of full marks."""
    from ultralytics.utils.torch_utils import EarlyStopping  # noqa: PLC0415 -- not before Ultralytics is confined

    stock = EarlyStopping.__call__

    def remembering(self, epoch, fitness):
        return stock(self, epoch, 1.0 if epoch == 1 else fitness)

    EarlyStopping.__call__ = remembering


if __name__ == "__main__":
    in_training(peak_early)
    sys.exit(main(sys.argv[1:]))
