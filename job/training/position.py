"""Position of a training between two batches; imports no torch, since records have it too."""

from typing import NamedTuple

from pydantic import NonNegativeInt


class Position(NamedTuple):
    """Complete epochs, and complete batches of the next one; ordered by progress."""

    epoch: NonNegativeInt
    batch: NonNegativeInt

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if not self.batch else f"batch {self.batch} of epoch {self.epoch + 1}"


BEGINNING = Position(0, 0)
