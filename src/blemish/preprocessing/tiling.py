"""Cutting an image of any size into overlapping tiles, and blending results of tiles without a seam."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.errors import TooSmallError


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Starts of tiles that cover [0, length), the last one flush with the end.

    Raises
    ------
    ValueError
        ``length`` is below ``tile``, or ``stride`` is not in 1..tile, which would leave gaps.

    Examples
    --------
    >>> tile_starts(10, tile=4, stride=3)
    [0, 3, 6]
    >>> tile_starts(11, tile=4, stride=3)
    [0, 3, 6, 7]
    """
    if length < tile:
        raise ValueError(f"a length of {length} holds no tile of {tile}")
    if not 1 <= stride <= tile:
        raise ValueError(f"the stride must lie in 1..{tile}, not {stride}")
    return [*range(0, length - tile, stride), length - tile]


def smallest_side(tile: int) -> int:
    """The shortest side, in pixels, that can be filled up to a tile by reflection."""
    return max(1, tile // 2)


@dataclass(frozen=True)
class TilePlan:
    """Positions of the tiles of one image; lengths in pixels, as (height, width).

    An image smaller than a tile is filled up by reflection, as much before as after it.

    Raises
    ------
    UsageError
        A side is below ``smallest_side`` of the tile.
    ValueError
        A stride is not in 1..tile.

    Examples
    --------
    >>> plan = TilePlan((5, 7), tile=(4, 4), stride=(2, 2))
    >>> plan.boxes
    [(0, 0), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]
    >>> image = np.random.default_rng(0).random((3, 5, 7), np.float32)
    >>> blender = Blender(plan, channels=3)
    >>> for indices, tiles in plan.tiles(image, batch=4):
    ...     blender.add(indices, tiles)
    >>> bool(np.allclose(blender.result(), image, atol=1e-6))
    True
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        if any(side < smallest_side(tile) for side, tile in zip(self.size, self.tile, strict=True)):
            least = max(smallest_side(tile) for tile in self.tile)
            raise TooSmallError(self.size, least, f"for tiles of {self.tile[1]} × {self.tile[0]}")
        _ = self.starts

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) of the image after ``pad``."""
        return max(self.size[0], self.tile[0]), max(self.size[1], self.tile[1])

    @property
    def offset(self) -> tuple[int, int]:
        """(row, column) of the image's first pixel after ``pad``."""
        height, width = self.padded_size
        return (height - self.size[0]) // 2, (width - self.size[1]) // 2

    @cached_property
    def starts(self) -> tuple[list[int], list[int]]:
        """The first rows and the first columns of the tiles."""
        (height, width), (tile_h, tile_w), (stride_h, stride_w) = self.padded_size, self.tile, self.stride
        return tile_starts(height, tile_h, stride_h), tile_starts(width, tile_w, stride_w)

    @cached_property
    def boxes(self) -> list[tuple[int, int]]:
        """(row, column) of each tile's first pixel in the padded image, row by row."""
        rows, columns = self.starts
        return [(row, column) for row in rows for column in columns]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.starts[0]) * len(self.starts[1])

    def around(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The rows and columns of the image that the tiles touching ``rows`` × ``columns`` span.

        A plan of that window alone, with the same tile and stride, has exactly the plan's own tiles on
        ``rows`` × ``columns``, so a :class:`Blender` over the window gives there what one over the whole image
        gives: an image of any size can be blended block by block.

        Examples
        --------
        >>> TilePlan((100, 90), tile=(8, 8), stride=(5, 5)).around(slice(20, 40), slice(80, 90))
        (slice(15, 43, None), slice(75, 90, None))
        """
        row_starts, column_starts = self.starts
        return (
            _span(row_starts, self.tile[0], self.size[0], rows),
            _span(column_starts, self.tile[1], self.size[1], columns),
        )

    def pad(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Fill pixels (C, H, W) up by reflection to (C, *padded_size); larger ones come back as they are."""
        if pixels.shape[1:] != self.size:
            raise ValueError(
                f"the plan is for pixels (C, {self.size[0]}, {self.size[1]}), not {pixels.shape}"
            )
        if self.padded_size == self.size:
            return pixels
        widths = [
            (before, padded - side - before)
            for before, padded, side in zip(self.offset, self.padded_size, self.size, strict=True)
        ]
        return np.pad(pixels, [(0, 0), *widths], mode="reflect")

    def cut(self, padded: NDArray[Any], index: int) -> NDArray[Any]:
        """Tile number ``index``, (C, th, tw), as a view of the padded image."""
        row, column = self.boxes[index]
        return padded[:, row : row + self.tile[0], column : column + self.tile[1]]

    def tiles(self, pixels: NDArray[Any], *, batch: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The tiles of pixels (C, H, W), at most ``batch`` at a time: their indices and (n, C, th, tw)."""
        padded = self.pad(pixels)
        for first in range(0, len(self), batch):
            indices = slice(first, min(first + batch, len(self)))
            yield indices, np.stack([self.cut(padded, index) for index in range(indices.start, indices.stop)])


def _span(starts: list[int], tile: int, length: int, wanted: slice) -> slice:
    """Span from the first to past the last pixel of the tiles that touch ``wanted``, within [0, length)."""
    first = starts[bisect_right(starts, wanted.start - tile)]
    last = starts[bisect_left(starts, wanted.stop) - 1]
    return slice(first, min(last + tile, length))


class Blender:
    """Blends the tiles of a plan into one image, as a weighted mean without seams.

    A tile's weight is the product of two raised cosines, sin²(π (i + ½) / n), positive everywhere and
    smallest at the tile's border, where a model sees least. The weights of all tiles over a pixel are made to
    sum to one, so tiles that agree give their common value. Memory is that of one image in float64, however
    many tiles overlap.
    """

    def __init__(self, plan: TilePlan, channels: int) -> None:
        self.plan = plan
        # The tiles lie on a grid, so the total weight is a product too: normalising each axis is enough.
        self._rows, self._columns = (
            _axis_weights(starts, tile, length)
            for starts, tile, length in zip(plan.starts, plan.tile, plan.padded_size, strict=True)
        )
        self._sum = np.zeros((channels, *plan.padded_size))  # (C, H, W)
        self._added = np.zeros(len(plan), bool)

    def add(self, indices: slice, values: NDArray[np.floating[Any]]) -> None:
        """Add the values of the tiles ``indices`` of the plan, (n, C, th, tw); each tile once."""
        numbers = range(*indices.indices(len(self.plan)))
        expected = (len(numbers), self._sum.shape[0], *self.plan.tile)
        if values.shape != expected:
            raise ValueError(f"values must have the shape {expected}, not {values.shape}")
        if self._added[indices].any():
            raise ValueError("a tile is added twice")
        self._added[indices] = True
        tile_h, tile_w = self.plan.tile
        for number, value in zip(numbers, values, strict=True):
            row, column = self.plan.boxes[number]
            weights = np.outer(self._rows[row], self._columns[column])  # (th, tw)
            self._sum[:, row : row + tile_h, column : column + tile_w] += weights * value

    def result(self) -> NDArray[np.float32]:
        """The blend at the image's own size, float32 (C, H, W).

        Raises
        ------
        ValueError
            A tile is still missing.
        """
        if not self._added.all():
            raise ValueError(f"{np.count_nonzero(~self._added)} of {len(self.plan)} tiles were not added")
        (row, column), (height, width) = self.plan.offset, self.plan.size
        return self._sum[:, row : row + height, column : column + width].astype(np.float32)


def _axis_weights(starts: list[int], tile: int, length: int) -> dict[int, NDArray[np.float64]]:
    """For each start along one axis, its tile's weights (tile,); those on a pixel sum to one."""
    window = np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += window
    return {start: window / total[start : start + tile] for start in starts}
