"""Rate-distortion optimal quantisation of a plane's blocks.

For each block the levels z that minimise Σ_k w_k (c_k - q_k z_k)² + λ · bits(z), where the bits are those of
given Huffman code lengths: AC levels by dynamic programming over the places of the levels that are not zero
(run lengths, ZRL and EOB included), DC levels by the Viterbi algorithm along the scan.

Source of the idea: Ramchandran, Vetterli, "Rate-distortion optimal fast thresholding with complete JPEG/MPEG
decoder compatibility", IEEE Transactions on Image Processing 3(5), 1994; the levels as well: Crouse,
Ramchandran, "Joint thresholding and quantizer selection for transform image coding", ibid. 6(2), 1997.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.coefficients import MAX_COEFFICIENT
from blemish.jpeg.entropy import Blocks, Lengths, Scan, bit_size
from blemish.jpeg.numba_jit import compiled
from blemish.workers import cores

Floats: TypeAlias = NDArray[np.float32]

_SIZES = 11
"""Of AC levels in an 8-bit file, 0 to 10 bits (T.81, table F.2)."""

_BLOCKS_A_PIECE = 8192
"""Blocks that a thread takes at once, half a megapixel: for less, waking a thread costs more than it brings."""


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="trellis")


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the forked process has none of the threads


@compiled
def _ac(
    target: Floats,
    weights: Floats,
    table: Floats,
    prices: NDArray[np.float64],
    end: float,
    limit: int,
    levels: Blocks,
) -> None:
    cheapest = np.empty(_SIZES)  # of a level of each size, whatever the run before it
    for size in range(_SIZES):
        cheapest[size] = prices[size].min()
    # Of the best choice that ends with the m-th level: the place of that, the choice's cost less that of zeros
    # up to there, the least such cost of all to the m-th, the level itself, and which came before it.
    place = np.empty(64, np.int64)
    cost = np.empty(64)
    least = np.empty(64)
    level = np.empty(64, np.int64)
    before = np.empty(64, np.int64)
    place[0], cost[0], least[0] = 0, 0.0, 0.0
    for block in range(target.shape[0]):
        count = 1
        zeros = 0.0  # distortion when places 1 to k - 1 are zero
        for k in range(1, 64):
            levels[block, k] = 0
            c, w, q = abs(float(target[block, k])), float(weights[block, k]), float(table[k])
            if 2 * c >= q:
                best, best_before, best_level = np.inf, 0, 0
                value = min(int(c / q + 0.5), limit)
                while value:
                    size = bit_size(value)
                    fixed = zeros + w * (c - q * value) ** 2
                    bound = best - fixed - cheapest[size]
                    for m in range(count - 1, -1, -1):
                        if least[m] >= bound:
                            break  # nor is any earlier one better
                        total = cost[m] + fixed + prices[size, k - place[m] - 1]
                        if total < best:
                            best, best_before, best_level = total, m, value
                            bound = best - fixed - cheapest[size]
                    # the level below is farther away: worth a try only where it takes a bit less,
                    # as 2^n - 1 does below 2^n
                    value = 0 if value & (value - 1) else value - 1
                zeros += w * c * c
                place[count], cost[count] = k, best - zeros
                least[count] = min(least[count - 1], cost[count])
                before[count] = best_before
                level[count] = best_level if target[block, k] > 0 else -best_level
                count += 1
            else:
                zeros += w * c * c
        best, last = np.inf, 0
        for m in range(count - 1, -1, -1):
            total = cost[m] + (end if place[m] < 63 else 0.0)
            if total < best:
                best, last = total, m
        while last:
            levels[block, place[last]] = level[last]
            last = before[last]


@compiled
def _dc(
    target: Floats,
    weights: Floats,
    q: float,
    lengths: Lengths,
    lam: float,
    limit: int,
    order: NDArray[np.int64],
    levels: Blocks,
) -> None:
    count = len(order)
    before = np.empty((count, 3), np.int8)
    cost, new = np.zeros(3), np.empty(3)
    centre = 0  # of the three levels of the block before
    for place in range(count):
        c, w = float(target[order[place]]), float(weights[order[place]])
        rounded = int(abs(c) / q + 0.5)
        here = min(max(rounded if c >= 0 else -rounded, 1 - limit), limit - 1)
        for i in range(3):
            value = here + i - 1
            error = c - q * value
            best, best_before = np.inf, 0
            for j in range(3):
                # every scan starts from 0
                difference = value - (centre + j - 1) if place else value
                size = bit_size(difference)
                total = cost[j] + lam * (lengths[size] + size)
                if total < best:
                    best, best_before = total, j
            new[i] = best + w * error * error
            before[place, i] = best_before
        least = min(new)  # kept small: no digits are lost on long scans
        for i in range(3):
            cost[i] = new[i] - least
        centre = here
        levels[order[place], 0] = here
    state = int(np.argmin(cost))
    for place in range(count - 1, -1, -1):
        levels[order[place], 0] += state - 1
        state = before[place, state]


def _bits_after_runs(lengths: Lengths) -> NDArray[np.float64]:
    """(11, 63): what a level costs by its size and by the run of zeros before it, ZRLs included."""
    run, size = np.arange(63), np.arange(_SIZES)[:, None]
    bits: NDArray[np.float64] = (run >> 4) * lengths[0xF0] + lengths[(run & 15) << 4 | size] + size
    return bits


def quantise_blocks(
    target: Floats,
    weights: Floats,
    table: NDArray[np.floating] | NDArray[np.integer],
    lengths: tuple[Lengths, Lengths],
    lam: float,
    order: Scan,
) -> Blocks:
    """The levels of one plane that cost least.

    AC levels are chosen among the rounded one, the one below it and zero; DC levels among the rounded one and
    its neighbours.

    Parameters
    ----------
    target: float32 (N, 64), the coefficients to be met, in zigzag order, blocks row by row.
    weights: float32 (N, 64), at least 0: the price of a squared error.
    table: (64,), the quantisation table in zigzag order, above 0.
    lengths: float64 (256,) bits of each DC and of each AC symbol.
    lam: λ, the price of a bit, at least 0; 0 gives plain rounding wherever the weight is above 0.
    order: the scan along which DC differences are coded.

    Returns
    -------
    int16 (N, 64), in zigzag order.

    Examples
    --------
    >>> from blemish.jpeg.entropy import scan
    >>> target = np.zeros((1, 64), np.float32)
    >>> target[0, :3] = 40, 9, 6
    >>> one = np.full(256, 1.0)
    >>> for lam in (0, 30, 100):
    ...     quantise_blocks(target, np.ones_like(target), np.full(64, 10), (one, one), lam, scan(1, 1))[0, :3].tolist()
    [4, 1, 1]
    [4, 1, 0]
    [3, 0, 0]
    """
    levels = np.empty(target.shape, np.int16)
    # one layout and type each, so that numba compiles once
    target, weights, q = (np.ascontiguousarray(values, np.float32) for values in (target, weights, table))
    lam = float(lam)
    pieces = [slice(at, at + _BLOCKS_A_PIECE) for at in range(0, len(target), _BLOCKS_A_PIECE)]

    prices = lam * _bits_after_runs(lengths[1])

    def ac(piece: slice) -> None:
        _ac(target[piece], weights[piece], q, prices, lam * lengths[1][0], MAX_COEFFICIENT, levels[piece])

    if len(pieces) > 1 and cores() > 1:
        list(_pool().map(ac, pieces))
    else:
        for piece in pieces:
            ac(piece)
    _dc(
        np.ascontiguousarray(target[:, 0]),
        np.ascontiguousarray(weights[:, 0]),
        float(q[0]),
        lengths[0],
        lam,
        MAX_COEFFICIENT,
        order.order,
        levels,
    )
    return levels
