"""Rows that the benches print: each figure with its spread, its count, and what would make it meaningless."""

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return median, minimum, maximum and count."""
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high}, n = {len(values)})"


def print_row(what: str, values: Sequence[float], meaningless_if: str, *, digits: int = 3) -> None:
    """Print a figure at once."""
    print(f"{what}: {spread(values, digits)}\n  meaningless if {meaningless_if}", flush=True)


def ratios(found: Sequence[float], to: Sequence[float]) -> list[float]:
    """Return the ratios of pairs."""
    return [one / other for one, other in zip(found, to, strict=True)]
