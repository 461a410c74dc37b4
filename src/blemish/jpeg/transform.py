"""Transform of pixels to quantised coefficients: colour, chroma halving, the DCT, rounding."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from blemish.errors import UsageError
from blemish.jpeg.coefficients import Sampling

Floats: TypeAlias = NDArray[np.float32]

# So many pixels or blocks are multiplied at once: few enough for BLAS to stay in one thread. Waking a second for
# products as slim as these brings little, and costs more than the work itself where the cores are busy.
_PIXELS_AT_ONCE = 1 << 13
_BLOCKS_AT_ONCE = 64

# JFIF 1.02, page 3: RGB to Y, Cb, Cr; one row an output, without the level shift.
RGB_TO_YCC: Floats = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ],
    np.float32,
)


def _dct_matrix() -> Floats:
    """The orthonormal 8-point DCT-II, (frequency, sample)."""
    frequency, sample = np.mgrid[:8, :8]
    matrix = np.cos((2 * sample + 1) * frequency * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    single: Floats = matrix.astype(np.float32)
    return single


DCT: Floats = _dct_matrix()

BASIS: Floats = np.kron(DCT, DCT)
"""(64, 64): the pixels, row by row, of a coefficient of 1, by [vertical, horizontal] frequency row by row."""


def planes_of(pixels: NDArray[np.uint8], sampling: Sampling) -> tuple[Floats, ...]:
    """The planes whose blocks are transformed: Y, or Y, Cb, Cr of JFIF, about 0 (-128 to 127.5), not rounded.

    Parameters
    ----------
    pixels: uint8 (H, W) for grey or (H, W, 3) for RGB.
    sampling: "4:2:0" halves both sides of chroma: means of 2 × 2 pixels, an odd last row or column repeated.
    Grey takes no notice of it.

    Returns
    -------
    tuple of float32 (H, W), chroma of "4:2:0" (ceil(H / 2), ceil(W / 2)).

    Raises
    ------
    UsageError
        Pixels of another type or shape, or none.

    Examples
    --------
    >>> y, cb, cr = planes_of(np.full((3, 5, 3), 128, np.uint8), "4:2:0")
    >>> y.shape, cb.shape, float(np.abs(y).max())
    ((3, 5), (2, 3), 0.0)
    """
    check_pixels(pixels)
    if pixels.ndim == 2:
        return (pixels.astype(np.float32) - np.float32(128),)
    y, cb, cr = _ycc(pixels)
    y -= np.float32(128)
    return (y, cb, cr) if sampling == "4:4:4" else (y, halved(cb), halved(cr))


def luma_of(pixels: NDArray[np.uint8]) -> Floats:
    """The first plane of :func:`planes_of`, (H, W)."""
    check_pixels(pixels)
    if pixels.ndim == 2:
        return planes_of(pixels, "4:4:4")[0]
    rgb = pixels.reshape(-1, 3)
    luma = np.empty(len(rgb), np.float32)
    for start in range(0, len(rgb), _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        np.matmul(rgb[part].astype(np.float32), RGB_TO_YCC[0], out=luma[part])
    luma -= np.float32(128)
    return luma.reshape(pixels.shape[:2])


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    """Refuse with a UsageError what is not uint8 (H, W) or (H, W, 3), or has no pixels."""
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UsageError(f"pixels of {pixels.dtype} {pixels.shape}; a JPEG takes uint8 (H, W) or (H, W, 3)")
    if not pixels.size:
        raise UsageError("an image without pixels cannot be a JPEG")


def blocks_dct(plane: Floats) -> Floats:
    """The DCT of each 8 × 8 block, scaled as JPEG's: orthonormal, so DC is 8 times the block's mean.

    Source: ITU-T T.81, A.3.3. The last row and column are repeated to whole blocks.

    Parameters
    ----------
    plane: float32 (h, w).

    Returns
    -------
    float32 (rows, columns, 8, 8), by [vertical, horizontal] frequency.

    Examples
    --------
    >>> dct = blocks_dct(np.full((9, 8), 5, np.float32))
    >>> dct.shape, dct[:, :, 0, 0].round(3).tolist()
    ((2, 1, 8, 8), [[40.0], [40.0]])
    """
    blocks = tiles(plane)
    rows, columns, _ = blocks.shape
    return multiplied(blocks.reshape(-1, 64), BASIS.T).reshape(rows, columns, 8, 8)


def multiplied(blocks: Floats, matrix: Floats, out: Floats | None = None) -> Floats:
    """(N, K) @ (K, 64) -> (N, 64)."""
    if out is None:
        out = np.empty((len(blocks), 64), np.float32)
    for first in range(0, len(blocks), _BLOCKS_AT_ONCE):
        piece = slice(first, first + _BLOCKS_AT_ONCE)
        np.matmul(blocks[piece], matrix, out=out[piece])
    return out


def tiles(plane: Floats) -> Floats:
    """(h, w) -> (rows, columns, 64): the pixels of each block, the last row and column repeated to whole blocks."""
    height, width = plane.shape
    if height % 8 or width % 8:
        plane = np.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge")
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    return plane.reshape(rows, 8, columns, 8).swapaxes(1, 2).reshape(rows, columns, 64)


def quantise(dct: Floats, table: NDArray[np.uint16]) -> NDArray[np.int16]:
    """Divide by the table and round to the nearest integer, halves away from 0: sign · floor(|c / q| + 0.5).

    Parameters
    ----------
    dct: float32 (..., 8, 8).
    table: (8, 8), at least 1.

    Examples
    --------
    >>> quantise(np.full((1, 8, 8), -5, np.float32), np.full((8, 8), 2, np.uint16))[0, 0, :2].tolist()
    [-3, -3]
    """
    scaled = dct * (np.float32(1) / table.astype(np.float32))
    scaled += np.copysign(np.float32(0.5), scaled)
    return scaled.astype(np.int16)  # truncates towards 0


def _ycc(pixels: NDArray[np.uint8]) -> Floats:
    """(H, W, 3) to (3, H, W)."""
    rgb = pixels.reshape(-1, 3)
    ycc = np.empty((3, len(rgb)), np.float32)
    for start in range(0, len(rgb), _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        np.matmul(RGB_TO_YCC, rgb[part].T.astype(np.float32), out=ycc[:, part])
    return ycc.reshape(3, *pixels.shape[:2])


def halved(plane: Floats) -> Floats:
    """(h, w) -> (ceil(h / 2), ceil(w / 2)): means of 2 × 2, an odd last row or column repeated."""
    rows = plane[0::2].copy()
    rows[: plane.shape[0] // 2] += plane[1::2]
    if plane.shape[0] % 2:
        rows[-1] *= 2
    means = rows[:, 0::2].copy()
    means[:, : plane.shape[1] // 2] += rows[:, 1::2]
    if plane.shape[1] % 2:
        means[:, -1] *= 2
    means *= np.float32(0.25)
    return means
