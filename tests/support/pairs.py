"""Choosing among all combinations of some values so that each two values still meet."""

import itertools


def cover_pairs(*factors):
    """Return combinations in which each pair of values of two factors occurs; among equals the first ones.

    Args:
        factors: The values of each factor, those that cost less first.
    """
    left = {pair for combination in itertools.product(*factors) for pair in _pairs(combination)}
    chosen = []
    while left:
        best = max(itertools.product(*factors), key=lambda combination: len(left & _pairs(combination)))
        chosen.append(best)
        left -= _pairs(best)
    return chosen


def _pairs(combination):
    return set(itertools.combinations(enumerate(combination), 2))
