"""Coefficients of a JPEG: quantised values, tables, size and sampling, which decide its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.errors import UsageError

Sampling: TypeAlias = Literal["4:4:4", "4:2:0"]

MAX_SIDE = 65_500
"""Pixels of the longest side that libjpeg writes and reads (its ``JPEG_MAX_DIMENSION``)."""

MAX_COEFFICIENT = 1023
"""Largest magnitude of a quantised coefficient in an 8-bit baseline file (ITU-T T.81, tables F.1 and F.2).

DC alone may also be -1024, since only the difference of two is coded.
"""


@dataclass(frozen=True)
class Plane:
    """One component of a JPEG.

    coefficients: int16 (rows, columns, 8, 8), quantised, by block and then by [vertical, horizontal]
    frequency; rows and columns are the blocks that hold pixels, without the padding of MCUs.
    table: uint16 (8, 8), 1 to 255, by [vertical, horizontal] frequency.
    """

    coefficients: NDArray[np.int16]
    table: NDArray[np.uint16]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plane):
            return NotImplemented
        same_table = np.array_equal(self.table, other.table)
        return same_table and np.array_equal(self.coefficients, other.coefficients)

    __hash__ = None  # type: ignore[assignment]  # arrays can change


@dataclass(frozen=True)
class Coefficients:
    """Quantised coefficients of an image: one plane (grey) or three (Y, Cb, Cr).

    ``sampling`` says whether chroma has half the rows and columns ("4:2:0"); of grey it is "4:4:4". Two are
    equal when all of their values are.

    Raises
    ------
    UsageError
        The planes do not fit the size and sampling, or hold values that no 8-bit baseline file can.
    """

    width: int
    height: int
    planes: tuple[Plane, ...]
    sampling: Sampling

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise UsageError(f"a JPEG of {self.width} × {self.height} pixels; each side has 1 to {MAX_SIDE}")
        if len(self.planes) not in (1, 3):
            raise UsageError(f"{len(self.planes)} planes; a JPEG has 1 (grey) or 3 (Y, Cb, Cr)")
        if self.sampling not in ("4:4:4", "4:2:0") or (len(self.planes) == 1 and self.sampling != "4:4:4"):
            raise UsageError(f"sampling '{self.sampling}'; there are 4:4:4 and, for colour, 4:2:0")
        shapes = block_counts(self.width, self.height, len(self.planes), self.sampling)
        for index, (plane, blocks) in enumerate(zip(self.planes, shapes, strict=True)):
            _check_plane(index, plane, blocks)


def block_counts(width: int, height: int, planes: int, sampling: Sampling) -> list[tuple[int, int]]:
    """(rows, columns) of the blocks of each plane: the blocks of 8 × 8 that its pixels need.

    >>> block_counts(33, 17, 3, "4:2:0")
    [(3, 5), (2, 3), (2, 3)]
    """
    half = 2 if sampling == "4:2:0" else 1
    luma = (-(-height // 8), -(-width // 8))
    chroma = (-(-height // (8 * half)), -(-width // (8 * half)))
    return [luma, chroma, chroma][:planes]


def _check_plane(index: int, plane: Plane, blocks: tuple[int, int]) -> None:
    coefficients, table = plane.coefficients, plane.table
    if coefficients.dtype != np.int16 or coefficients.shape != (*blocks, 8, 8):
        raise UsageError(
            f"plane {index} holds {coefficients.dtype} {coefficients.shape}, not int16 {(*blocks, 8, 8)}"
        )
    if table.dtype != np.uint16 or table.shape != (8, 8) or table.min() < 1 or table.max() > 255:
        raise UsageError(f"the table of plane {index} is not uint16 (8, 8) with values of 1 to 255")
    dc, ac = coefficients[:, :, 0, 0], coefficients.reshape(-1, 64)[:, 1:]
    if dc.min() < -MAX_COEFFICIENT - 1 or ac.min() < -MAX_COEFFICIENT or coefficients.max() > MAX_COEFFICIENT:
        raise UsageError(
            f"plane {index} holds coefficients beyond ±{MAX_COEFFICIENT}, which no 8-bit JPEG stores"
        )
