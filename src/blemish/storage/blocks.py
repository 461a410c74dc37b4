"""Blocks: the squares of one grid that an area of any size is worked through in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    """One block of an area: its place among the blocks, and its rows and columns in the area."""

    row: int
    column: int
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def within(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Its rows and columns counted from the first ones of a window around it."""
        return (
            slice(self.rows.start - rows.start, self.rows.stop - rows.start),
            slice(self.columns.start - columns.start, self.columns.stop - columns.start),
        )

    def reduced(self, factor: int) -> Block:
        """The same block of an area of which each ``factor`` × ``factor`` pixels are one."""
        rows, columns = (slice(at.start // factor, -(-at.stop // factor)) for at in (self.rows, self.columns))
        return self._replace(rows=rows, columns=columns)


def blocks(size: tuple[int, int], side: int) -> Iterator[Block]:
    """The blocks of ``side`` × ``side`` that cover an area (height, width), row by row; the last are smaller.

    Examples
    --------
    >>> [(block.rows.stop, block.columns.stop) for block in blocks((5, 7), 4)]
    [(4, 4), (4, 7), (5, 4), (5, 7)]
    """
    height, width = size
    for row, top in enumerate(range(0, height, side)):
        for column, left in enumerate(range(0, width, side)):
            yield Block(
                row, column, slice(top, min(top + side, height)), slice(left, min(left + side, width))
            )


def block_at(size: tuple[int, int], side: int, top: int, left: int) -> Block:
    """The block of :func:`blocks` that holds the pixel (top, left).

    >>> block_at((5, 7), 4, 4, 1)
    Block(row=1, column=0, rows=slice(4, 5, None), columns=slice(0, 4, None))
    """
    row, column = top // side, left // side
    rows, columns = (
        slice(place * side, min((place + 1) * side, length))
        for place, length in zip((row, column), size, strict=True)
    )
    return Block(row, column, rows, columns)
