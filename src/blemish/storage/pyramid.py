"""Resolution pyramids: an image of any size at halved resolutions, made window by window as Zarr arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from blemish.storage.records_log import unwritable
from blemish.storage.tiled_array import reading

Reduction = Literal["mean", "max"]
"""How four pixels become one."""

TILE = 512
"""Side of the chunks, and of the largest image at the end of a pyramid."""
_WINDOW = 2 * TILE
ZARR_2 = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
"""Arguments of Zarr for version 2 of its format, which more programs read."""


@dataclass(frozen=True)
class Raster:
    """An image (channels, height, width) that is read by windows; NaN where nothing is known."""

    channels: int
    height: int
    width: int
    read: Callable[[int, int, int, int], NDArray[np.float32]]
    """(top, left, height, width) to the pixels (channels, height, width) of that window."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


def level_sizes(size: tuple[int, int], smallest: int = TILE) -> list[tuple[int, int]]:
    """(height, width) of every level, halved and rounded up until both are at most ``smallest``.

    >>> level_sizes((2049, 300))
    [(2049, 300), (1025, 150), (513, 75), (257, 38)]
    """
    sizes = [size]
    while max(sizes[-1]) > smallest:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def halved(values: NDArray[np.float32], reduction: Reduction = "mean") -> NDArray[np.float32]:
    """Reduce an image (C, h, w) to half of its resolution, rounded up: (C, ⌈h/2⌉, ⌈w/2⌉).

    A pixel is the mean, or the largest, of those of its 2 × 2 that are present; NaN where none is.

    >>> halved(np.array([[[1, 3, 5], [np.nan, 2, 7]]], np.float32)).tolist()
    [[[2.0, 6.0]]]
    >>> halved(np.array([[[1, 3, 5], [np.nan, 2, 7]]], np.float32), "max").tolist()
    [[[3.0, 7.0]]]
    """
    channels, height, width = values.shape
    even = np.full((channels, height + height % 2, width + width % 2), np.nan, np.float32)
    even[:, :height, :width] = values
    parts = even.reshape(channels, even.shape[1] // 2, 2, even.shape[2] // 2, 2)
    if reduction == "max":
        return np.asarray(np.fmax.reduce(np.fmax.reduce(parts, 4), 2), np.float32)
    present = np.isfinite(parts)
    total = np.where(present, parts, 0).sum((2, 4), dtype=np.float64)
    count = present.sum((2, 4))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def windows(size: tuple[int, int], side: int) -> Iterator[tuple[int, int, int, int]]:
    """(top, left, height, width) of the windows of ``side`` that cover an area (height, width), row by row."""
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            yield top, left, min(side, size[0] - top), min(side, size[1] - left)


def build_pyramid(
    raster: Raster,
    folder: Path,
    *,
    reduction: Reduction = "mean",
    whole: bool = True,
    watch: Callable[[], None] = lambda: None,
) -> list[Raster]:
    """Write the levels of ``raster`` below ``folder`` as Zarr arrays ``0``, ``1``, … and give them, the largest first.

    Every level is made from the one before; memory depends on the number of channels, and not on the size. Arrays are of
    Zarr version 2, float32 (C, h, w), in chunks of one channel.

    Parameters
    ----------
    reduction: how four present pixels of a level become one of the next.
    whole: whether to write level 0 too; it is ``raster`` itself otherwise.
    watch: called before each window; what it raises ends the work.

    Raises
    ------
    FileError
        When an array cannot be written.
    """
    arrays = {
        number: _create(folder, number, raster.channels, size)
        for number, size in enumerate(level_sizes(raster.size))
        if number or whole
    }
    levels = [raster, *(_of_array(array, folder) for number, array in arrays.items() if number)]
    for number, level in enumerate(levels):
        is_last = number + 1 == len(levels)
        if is_last and (number or not whole):
            break
        for top, left, height, width in windows(level.size, _WINDOW):
            watch()
            values = level.read(top, left, height, width)
            if number == 0 and whole:
                _write(arrays[0], folder, top, left, values)
            if not is_last:
                _write(arrays[number + 1], folder, top // 2, left // 2, halved(values, reduction))
    return [_of_array(arrays[0], folder), *levels[1:]] if whole else levels


def open_levels(folder: Path, size: tuple[int, int]) -> list[Raster]:
    """The levels that :func:`build_pyramid` wrote of an image (height, width).

    Raises
    ------
    FileError
        When one cannot be read.
    """
    with reading(folder):
        count = len(level_sizes(size))
        arrays = [zarr.open_array(str(folder / str(number)), mode="r") for number in range(count)]
    return [_of_array(array, folder) for array in arrays]


def _create(folder: Path, number: int, channels: int, size: tuple[int, int]) -> Any:
    try:
        os.makedirs(folder, exist_ok=True)
        return zarr.open_array(
            str(folder / str(number)),
            mode="w",
            shape=(channels, *size),
            chunks=(1, min(TILE, size[0]), min(TILE, size[1])),
            dtype="float32",
            fill_value=np.nan,
            dimension_separator="/",
            **ZARR_2,
        )
    except OSError as error:
        raise unwritable(folder, error) from error


def _write(array: Any, folder: Path, top: int, left: int, values: NDArray[np.float32]) -> None:
    height, width = values.shape[1:]
    try:
        array[:, top : top + height, left : left + width] = values
    except OSError as error:
        raise unwritable(folder, error) from error


def _of_array(array: Any, folder: Path) -> Raster:
    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        with reading(folder):
            return np.asarray(array[:, top : top + height, left : left + width], np.float32)

    channels, height, width = array.shape
    return Raster(channels, height, width, read)
