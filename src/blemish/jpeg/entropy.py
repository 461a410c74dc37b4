"""Cost of an image's coefficients: symbols, optimal Huffman code lengths, bits.

Baseline sequential coding of ITU-T T.81, annex F.1.2, with the code lengths of annex K.2: what a file holds
when its Huffman tables are made for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.coefficients import Coefficients, Sampling
from blemish.jpeg.numba_jit import compiled

Blocks: TypeAlias = NDArray[np.int16]  # (N, 64), quantised, in zigzag order
Counts: TypeAlias = NDArray[np.int64]  # (256,), by symbol
Lengths: TypeAlias = NDArray[np.float64]  # (256,), bits by symbol

LONGEST = 16
"""Bits of the longest Huffman code (T.81, K.2)."""


def _zigzag() -> NDArray[np.intp]:
    places = [(row, column) for row in range(8) for column in range(8)]
    # diagonal by diagonal; even ones upwards, odd ones downwards
    places.sort(key=lambda place: (sum(place), place[0] if sum(place) % 2 else place[1]))
    return np.array([8 * row + column for row, column in places], np.intp)


ZIGZAG = _zigzag()
"""(64,): the row-major place of the k-th coefficient of the zigzag (T.81, figure A.6)."""

UNZIGZAG = np.argsort(ZIGZAG)


@dataclass(frozen=True)
class Scan:
    """The order in which one component's blocks are coded.

    order: (N,) int64, the row-major indices of the blocks. padding: blocks that only complete MCUs; writers
    give them the DC of the block before and no AC, so they cost two symbols each.
    """

    order: NDArray[np.int64]
    padding: int


@dataclass(frozen=True)
class Statistics:
    """Counts of the DC and AC symbols of one pair of Huffman tables."""

    dc: Counts
    ac: Counts

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.dc + other.dc, self.ac + other.ac)

    @property
    def bits(self) -> int:
        """Bits of all symbols under optimal code lengths, with the magnitudes that follow them."""
        dc = self.dc @ (code_lengths(self.dc) + np.arange(256))
        ac = self.ac @ (code_lengths(self.ac) + np.arange(256) % 16)
        return int(dc + ac)


def zigzag(blocks: NDArray[np.int16]) -> Blocks:
    """(..., 8, 8) by [vertical, horizontal] frequency -> (N, 64) in zigzag order."""
    ordered: Blocks = blocks.reshape(-1, 64)[:, ZIGZAG]
    return ordered


def scan(rows: int, columns: int, factor: int = 1) -> Scan:
    """The scan of a component of (rows, columns) blocks, of which an MCU holds (factor, factor).

    Source: T.81, A.2.3: MCUs row by row, within one the blocks row by row.

    >>> scan(2, 3, 2).order.tolist(), scan(2, 3, 2).padding
    ([0, 1, 3, 4, 2, 5], 2)
    """
    tall, wide = -(-rows // factor) * factor, -(-columns // factor) * factor
    row, column = np.mgrid[:tall, :wide]
    index = np.where((row < rows) & (column < columns), row * columns + column, -1)
    mcus = index.reshape(tall // factor, factor, wide // factor, factor).swapaxes(1, 2).ravel()
    return Scan(mcus[mcus >= 0].astype(np.int64), int((mcus < 0).sum()))


def scans(shapes: Sequence[tuple[int, int]], sampling: Sampling) -> tuple[Scan, ...]:
    """The scan of each component, whose (rows, columns) of blocks are given."""
    factors = (2 if sampling == "4:2:0" else 1, 1, 1)
    return tuple(scan(*shape, factor) for shape, factor in zip(shapes, factors, strict=False))


@compiled
def bit_size(value: int) -> int:
    """Number of bits that follow a symbol to code a value or a DC difference (T.81, F.1.2.1)."""
    size, rest = 0, abs(value)
    while rest:
        size, rest = size + 1, rest >> 1
    return size


@compiled
def _count(blocks: Blocks, order: NDArray[np.int64], dc: Counts, ac: Counts) -> None:
    previous = 0
    for index in order:
        value = int(blocks[index, 0])
        dc[bit_size(value - previous)] += 1
        previous = value
        run = 0
        for k in range(1, 64):
            level = int(blocks[index, k])
            if level == 0:
                run += 1
                continue
            ac[0xF0] += run >> 4
            ac[(run & 15) << 4 | bit_size(level)] += 1
            run = 0
        if run:
            ac[0] += 1


def plane_statistics(blocks: Blocks, order: Scan) -> Statistics:
    """The symbols of one component.

    Parameters
    ----------
    blocks: int16 (N, 64), in zigzag order within a block, blocks row by row.
    order: their scan.
    """
    found = Statistics(np.zeros(256, np.int64), np.zeros(256, np.int64))
    _count(blocks, order.order, found.dc, found.ac)
    found.dc[0] += order.padding
    found.ac[0] += order.padding
    return found


def statistics(coefficients: Coefficients) -> tuple[Statistics, ...]:
    """The symbols of an image by Huffman table: luma and, where there is colour, both chroma planes together."""
    shapes = [plane.coefficients.shape[:2] for plane in coefficients.planes]
    found = [
        plane_statistics(zigzag(plane.coefficients), order)
        for plane, order in zip(coefficients.planes, scans(shapes, coefficients.sampling), strict=True)
    ]
    return (found[0],) if len(found) == 1 else (found[0], found[1] + found[2])


def image_bits(coefficients: Coefficients) -> int:
    """Bits of an image's entropy-coded data under optimal Huffman tables, without headers and stuffed bytes.

    Examples
    --------
    >>> from blemish.jpeg.coefficients import Plane
    >>> plane = Plane(np.zeros((1, 1, 8, 8), np.int16), np.ones((8, 8), np.uint16))
    >>> image_bits(Coefficients(8, 8, (plane,), "4:4:4"))  # DC of size 0 and end of block, a bit each
    2
    """
    return sum(found.bits for found in statistics(coefficients))


@compiled
def _cost_blocks(
    blocks: Blocks,
    order: NDArray[np.int64],
    dc: NDArray[np.int64],
    ac: NDArray[np.int64],
    bits: NDArray[np.float64],
) -> None:
    previous = 0
    for index in order:
        value = int(blocks[index, 0])
        size = bit_size(value - previous)
        cost = dc[size] + size
        previous = value
        run = 0
        for k in range(1, 64):
            level = int(blocks[index, k])
            if level == 0:
                run += 1
                continue
            size = bit_size(level)
            cost += (run >> 4) * ac[0xF0] + ac[(run & 15) << 4 | size] + size
            run = 0
        if run:
            cost += ac[0]
        bits[index] = cost


def bits_per_block(coefficients: Coefficients) -> NDArray[np.float64]:
    """The bits of ``image_bits`` by the luma block in whose place they are spent.

    The bits of a chroma block are shared by the luma blocks that it covers; those of blocks that only complete
    MCUs by all blocks of their component.

    Returns
    -------
    (rows, columns) of the luma blocks; the sum is ``image_bits``.

    Examples
    --------
    >>> from blemish.jpeg.coefficients import Plane
    >>> levels = np.zeros((1, 2, 8, 8), np.int16)
    >>> levels[0, 1, 0, 1] = 5
    >>> plane = Plane(levels, np.ones((8, 8), np.uint16))
    >>> bits_per_block(Coefficients(16, 8, (plane,), "4:4:4")).tolist()  # the 5 takes a code and 3 bits
    [[2.0, 7.0]]
    """
    rows, columns = coefficients.planes[0].coefficients.shape[:2]
    total = np.zeros((rows, columns))
    tables = statistics(coefficients)
    shapes = [plane.coefficients.shape[:2] for plane in coefficients.planes]
    for index, (plane, order) in enumerate(
        zip(coefficients.planes, scans(shapes, coefficients.sampling), strict=True)
    ):
        counts = tables[min(index, 1)]
        dc, ac = code_lengths(counts.dc), code_lengths(counts.ac)
        bits = np.zeros(len(order.order))
        _cost_blocks(zigzag(plane.coefficients), order.order, dc, ac, bits)
        bits += order.padding * (dc[0] + ac[0]) / bits.size
        total += _shared(bits.reshape(shapes[index]), rows, columns)
    return total


def _shared(bits: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """(rows, columns) of luma blocks, each with its share of the block of another component that covers it."""
    if bits.shape == (rows, columns):
        return bits
    row, column = np.arange(rows) // 2, np.arange(columns) // 2
    covered = np.outer(np.bincount(row), np.bincount(column))
    return (bits / covered)[np.ix_(row, column)]


def code_lengths(counts: Counts) -> NDArray[np.int64]:
    """Optimal Huffman code lengths of at most 16 bits, of which none is all ones.

    Source: T.81, K.2: a symbol of its own takes the all-ones code; codes that are too long are shortened by
    figure K.3.

    Parameters
    ----------
    counts: (256,), how often each symbol occurs.

    Returns
    -------
    int64 (256,), 0 for symbols that do not occur.

    Examples
    --------
    >>> counts = np.zeros(256, np.int64)
    >>> counts[[0, 1, 2, 3]] = 8, 4, 2, 1
    >>> code_lengths(counts)[:4].tolist()
    [1, 2, 3, 4]
    """
    lengths = np.zeros(256, np.int64)
    used = np.flatnonzero(counts)
    if not used.size:
        return lengths
    # (count, tie, leaves' number); the reserved symbol comes first among equals, so that its code is the longest
    heap = [(int(counts[symbol]), -int(symbol) - 1, [int(symbol)]) for symbol in used]
    heap.append((1, -300, [256]))
    heapq.heapify(heap)
    depth = dict.fromkeys([*used.tolist(), 256], 0)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        leaves = first[2] + second[2]
        for leaf in leaves:
            depth[leaf] += 1
        heapq.heappush(heap, (first[0] + second[0], max(first[1], second[1]), leaves))
    per_length = np.bincount(list(depth.values()), minlength=LONGEST + 2)
    for length in range(len(per_length) - 1, LONGEST, -1):
        while per_length[length]:
            shorter = length - 2
            while not per_length[shorter]:
                shorter -= 1
            per_length[length] -= 2
            per_length[length - 1] += 1
            per_length[shorter + 1] += 2
            per_length[shorter] -= 1
    per_length[np.flatnonzero(per_length)[-1]] -= 1  # the reserved symbol's
    by_count = used[np.argsort(-counts[used], kind="stable")]
    lengths[by_count] = np.repeat(np.arange(len(per_length)), per_length)
    return lengths


def symbol_costs(counts: Counts) -> Lengths:
    """``code_lengths`` as float64 (256,), symbols that do not occur at the longest code's length."""
    lengths = code_lengths(counts)
    return np.where(lengths, lengths, LONGEST).astype(np.float64)
