"""Prices of errors: what an error of 1 in each coefficient of each block of an image costs under a tune."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.distortion import COLOUR, Floats, Sensitivity
from blemish.jpeg.entropy import Blocks
from blemish.jpeg.transform import multiplied
from blemish.jpeg.tuning import Tuning, fixed_chroma

_BLOCKS_AT_ONCE = 1 << 10
"""Few enough for their coefficients to stay in the processor's cache."""


def pieces(blocks: int) -> Iterator[slice]:
    """Slices that cover ``blocks`` in turn."""
    return (slice(first, first + _BLOCKS_AT_ONCE) for first in range(0, blocks, _BLOCKS_AT_ONCE))


@dataclass(frozen=True)
class Prices:
    """Factors of the prices of an error in one image, by measure.

    squared and structural stand as the relative changes of squared error and of 1 - MS-SSIM.
    """

    tuning: Tuning
    squared: float
    structural: float

    def of_luma(self, blocks: int, sensitivity: Sensitivity | None, shift: Floats | None) -> Floats:
        """(N, 64): the price of a squared error in each coefficient of luma.

        ``shift``, (N, 64), where luma would go to make up for chroma, is multiplied by the share of the price that
        asks for it: SSIMULACRA2's luma hardly holds any chroma.
        """
        tuning = self.tuning
        shared = np.full(64, self.squared * tuning.squared, np.float32)
        if sensitivity is None:
            return np.tile(shared, (blocks, 1))
        by_block, responses = sensitivity.by_block()
        scales = np.array([*tuning.luma_scales[: len(responses) - 1], tuning.luma_scales[-1]], np.float32)
        return _priced(
            by_block,
            shared,
            np.float32(self.structural * tuning.ms_ssim) * responses,
            np.zeros(64, np.float32),
            np.float32(self.structural * tuning.ssimulacra2) * scales[:, None] * responses,
            shift,
        )

    def of_chroma(
        self,
        index: int,
        blocks: int,
        sampling: Sampling,
        sensitivity: Sensitivity | None,
        shift: Floats | None,
    ) -> Floats:
        """The same of Cb (0) or Cr (1); ``shift`` is where it would go to make up for luma."""
        squared, *own = fixed_chroma(self.tuning, sampling)
        factor = 2 if sampling == "4:2:0" else 1
        scale = np.float32(COLOUR[index + 1, index + 1])
        by_block, responses = np.zeros((blocks, 0), np.float32), np.zeros((0, 64), np.float32)
        if sensitivity is not None and self.tuning.chroma_ms_ssim:
            by_block, responses = sensitivity.by_block(factor)
        return _priced(
            by_block,
            scale * np.float32(self.squared) * squared,
            scale * np.float32(self.structural * self.tuning.chroma_ms_ssim) * responses,
            scale * np.float32(self.squared) * own[index],
            np.zeros_like(responses),
            shift,
        )

    def of_lost(self, index: int, sensitivity: Sensitivity | None) -> float:
        """The price of a squared error of Cb (0) or Cr (1) that only full size could hold, of which luma makes up a part."""
        squared, *own = fixed_chroma(self.tuning, "4:4:4")
        made_up = self.tuning.compensation * COLOUR[0, index + 1] ** 2 / COLOUR[0, 0]
        shared = self.squared * float(squared[-1])
        if sensitivity is not None and self.tuning.chroma_ms_ssim:
            by_block, responses = sensitivity.by_block()
            shared += (
                self.structural * self.tuning.chroma_ms_ssim * float(by_block.mean(0) @ responses[:, -1])
            )
        scale = float(COLOUR[index + 1, index + 1])
        return shared * (scale - float(made_up)) + self.squared * float(own[index][-1]) * scale


def _priced(
    by_block: Floats,
    shared: Floats,
    shared_responses: Floats,
    own: Floats,
    own_responses: Floats,
    shift: Floats | None,
) -> Floats:
    """(N, 64) of ``shared`` and ``own`` prices; ``shift`` is multiplied by the share of the first."""
    weights = multiplied(by_block, shared_responses + own_responses)
    weights += shared + own
    if shift is None or not (own.any() or own_responses.any()):
        return weights
    for piece in pieces(len(weights)):
        part = by_block[piece] @ shared_responses
        part += shared
        shift[piece] *= part / weights[piece]
    return weights


def image_prices(
    dct: Floats,
    levels: Blocks,
    table: NDArray[np.float64],
    sensitivity: Sensitivity | None,
    tuning: Tuning,
) -> Prices:
    """Prices of an image, brought to a geometric mean of 1 over luma's AC coefficients that are not zero.

    λ then fits the tables of its quality for every image.

    Parameters
    ----------
    dct, levels: (N, 64) of luma, before and after quantisation by ``table``.
    sensitivity: around the quantised luma; None for squared error alone.
    """
    if sensitivity is None:
        return Prices(tuning, 1.0, 0.0)
    structural = 1.0
    if tuning.squared:
        structural = _squared_error(dct, levels, table) / max(sensitivity.loss, 1e-6)
    weights = Prices(tuning, 1.0, structural).of_luma(len(levels), sensitivity, None)
    total, count = 0.0, 0
    for piece in pieces(len(levels)):
        some = weights[piece, 1:][levels[piece, 1:] != 0]
        total += float(np.log(some).sum(dtype=np.float64))
        count += some.size
    mean = math.exp(total / max(count, 1))
    return Prices(tuning, 1 / mean, structural / mean)


def _squared_error(dct: Floats, levels: Blocks, table: NDArray[np.float64]) -> float:
    """Squared error of all coefficients together."""
    steps = table.astype(np.float32)
    total = 0.0
    for piece in pieces(len(levels)):
        error = dct[piece] - levels[piece] * steps
        error *= error
        total += float(error.sum(dtype=np.float64))
    return total
