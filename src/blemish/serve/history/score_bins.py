"""Bins of scores, sixteen to a doubling, by which scores of a whole week are counted without reading them.

Edges are exact floating-point numbers, so that a count by bins and the rows of one bin is exact, too.
"""

from __future__ import annotations

import math
import sys

PER_DOUBLING = 16
LOWEST = -20_000
"""Bin of scores at or below 0; below that of every other double."""


def score_bin(score: float) -> int:
    """Bin of a finite score; larger scores have no smaller bin.

    >>> score_bin(1.0), score_bin(1.99), score_bin(2.0), score_bin(0.0)
    (16, 31, 32, -20000)
    """
    if score <= 0:
        return LOWEST
    mantissa, exponent = math.frexp(score)
    return exponent * PER_DOUBLING + int((mantissa - 0.5) * 2 * PER_DOUBLING)


def lower_edge(number: int) -> float:
    """Least score of a bin; −∞ for the bin of scores at or below 0, ∞ above that of the largest double.

    >>> lower_edge(16), lower_edge(17)
    (1.0, 1.0625)
    """
    if number <= LOWEST:
        return -math.inf
    exponent, place = divmod(number, PER_DOUBLING)
    if exponent > sys.float_info.max_exp:
        return math.inf
    return max(math.ldexp(0.5 + place / (2 * PER_DOUBLING), exponent), math.ulp(0.0))
