"""Traces of an earlier JPEG compression: coefficients of a decoded file that lie on multiples of its quantisation steps.

Tables that are learned from such images learn their steps. Source of the idea: Fan, de Queiroz, "Identification of
bitmap compression history: JPEG detection and quantizer estimation", IEEE Transactions on Image Processing 12, 2003.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.entropy import ZIGZAG
from blemish.jpeg.transform import blocks_dct, luma_of

ON_LATTICE = 0.65
"""The share of :func:`lattice_share` from which an image counts as a decoded JPEG; of lossless photographs it is 0.3 to 0.5."""

_FIRST, _LAST = 1, 10  # places in the zigzag of the AC coefficients that are looked at
_STEPS = np.arange(3, 61)  # finer ones drown in the rounding of pixels
_WITHIN = 0.2  # of a step
_FEWEST = 100  # values that have to lie beyond half a step


def lattice_share(pixels: NDArray[np.uint8]) -> float:
    """How much of an image lies on the lattice of a JPEG whose blocks begin at its first pixel.

    For each of the first nine AC coefficients of luma, the share of its values that lie within a fifth of a multiple of
    a step, at the step for which that is most; values below half a step, which are multiples of any, do not count. Values
    that are spread evenly have 0.4, those of a decoded JPEG nearly 1.

    Parameters
    ----------
    pixels: uint8 (H, W) or (H, W, 3).

    Returns
    -------
    The median over the coefficients; 0 for an image too small or too flat to tell.

    Raises
    ------
    UsageError
        Pixels of another type or shape.
    """
    height, width = (side // 8 * 8 for side in pixels.shape[:2])
    if not (height and width):
        return 0.0
    dct = blocks_dct(luma_of(np.ascontiguousarray(pixels[:height, :width]))).reshape(-1, 64)[:, ZIGZAG]
    shares = [_share_on_a_lattice(np.abs(dct[:, place])) for place in range(_FIRST, _LAST)]
    known = [share for share in shares if share is not None]
    return float(np.median(known)) if len(known) > len(shares) // 2 else 0.0


def _share_on_a_lattice(values: NDArray[np.float32]) -> float | None:
    """The share at the best step; None where too few values lie beyond half of any step."""
    found = None
    for step in _STEPS:
        scaled = values[2 * values >= step] / step
        if len(scaled) < _FEWEST:
            break
        share = float((np.abs(scaled - np.rint(scaled)) < _WITHIN).mean())
        found = share if found is None else max(found, share)
    return found
