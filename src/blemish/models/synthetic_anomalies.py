"""Synthetic blemishes: what a network learns to find before it has seen a real one.

Regions follow Perlin noise (Zavrtanik et al. 2021, DRAEM, section 3.3), ellipses, boxes and scratches. They are
filled with pieces of the good images themselves or of textures, pasted plainly, seamlessly or by their stronger
detail (Schlüter et al. 2022, Natural Synthetic Anomalies), or with tones, noise, blur and stains. Everything is measured
by the image's own contrast; regions by its size, fine detail by pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from blemish.data.datasets import find_images
from blemish.data.image import read_image, resize, select_channels
from blemish.errors import ImageError, RecipeError, UsageError
from blemish.models.anomaly_fillings import (
    blurred,
    foreign_place,
    foreign_texture,
    inpainted,
    neighbouring_piece,
    noise,
    stain,
    tone,
    warped_piece,
)
from blemish.models.anomaly_shapes import VISIBLE, AnomalyArea, Draws, regions, spread
from blemish.models.autoencoder import Corruption
from blemish.models.registry import CORRUPTIONS, register

FAINTEST = 1 / 1024
"""Least change in units of the range that counts, in images without any contrast."""
FINEST = 512
"""Shorter side in pixels that larger textures are brought to."""
TEXTURES = 200
"""Images of a folder of textures that are used, at most."""


def anomaly_mask(seen: Tensor, target: Tensor) -> Tensor:
    """Which pixels of ``seen`` were visibly changed from ``target``: (N, C, H, W) twice to (N, 1, H, W) of 0 and 1.

    The absolute difference in the channel where it is largest, averaged over 3×3 pixels, exceeds 0.15 of the
    :func:`spread` of ``target``; then gaps of up to four pixels are closed. So a common gain and offset of both
    images does not matter, and nothing counts beyond one pixel from the changes and the gaps between them. What is
    absent (NaN) is not changed.

    >>> target = torch.linspace(0, 1, 12).expand(1, 1, 12, 12)
    >>> seen = target.clone()
    >>> seen[..., 4:7, 4:7] += 0.3
    >>> anomaly_mask(seen, target).sum()
    tensor(21.)
    """
    difference = (seen - target).abs().nan_to_num().amax(1, keepdim=True)
    mean = F.avg_pool2d(difference, 3, 1, 1, count_include_pad=False)
    visible = (mean > (VISIBLE * spread(target)).nan_to_num().clamp(min=FAINTEST)).to(target.dtype)
    return -F.max_pool2d(-F.max_pool2d(visible, 5, 1, 2), 5, 1, 2)


Filling = Callable[[Tensor, Tensor, AnomalyArea, Draws], Tensor]
FILLINGS: tuple[Filling, ...] = (
    foreign_place,
    foreign_place,
    neighbouring_piece,
    warped_piece,
    tone,
    noise,
    blurred,
    stain,
    inpainted,
)
"""Each takes images (n, C, H, W), good ones to take pieces from, and the regions; pieces of afar come twice."""


def spoil(
    x: Tensor,
    *,
    clean: float = 0.3,
    most: int = 3,
    smallest: float = 0.02,
    largest: float = 0.25,
    textures: Sequence[Tensor] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Good images with blemishes from obvious to barely visible; what is absent (NaN) stays so.

    Half of the blemishes are opaque, the others cover 0.2 to all.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1]; its images lend each other pieces.
    clean: share of the images that stay as they are, in [0, 1].
    most: blemishes of one image, each number from 1 as likely.
    smallest, largest: diameter in units of the shorter side; see :func:`regions`.
    textures: (C, h, w) in [0, 1] each, of any size; where there are some, two fillings of eleven are pieces of them.
    generator: to draw from; torch's global one without it.

    >>> x = torch.rand(8, 1, 64, 64)
    >>> y = spoil(x, clean=0.0, generator=torch.Generator().manual_seed(0))
    >>> y.shape == x.shape, float((y != x).float().mean()) < 0.5
    (True, True)
    """
    draws, n = Draws(x, generator), len(x)
    counts = (1 + draws.integers(n, below=most)) * ~draws.chance(n, of=clean)
    good = x.nan_to_num()
    spoiled = good.clone()
    fillings = FILLINGS + (partial(foreign_texture, textures=textures),) * (2 if textures else 0)
    for already in range(most):
        k = (counts > already).nonzero()[:, 0]
        if len(k):
            spoiled[k] = _with_one_blemish(spoiled[k], good, fillings, smallest, largest, draws)
    return torch.where(x.isnan(), x, spoiled)


def _with_one_blemish(
    x: Tensor, good: Tensor, fillings: Sequence[Filling], smallest: float, largest: float, draws: Draws
) -> Tensor:
    n = len(x)
    region = regions(x, smallest, largest, draws.generator)
    filled = torch.empty_like(x)
    kind = draws.integers(n, below=len(fillings))
    for index, filling in enumerate(fillings):
        k = (kind == index).nonzero()[:, 0]
        if len(k):
            filled[k] = filling(x[k], good, region.of(k), draws)
    opacity = torch.where(draws.chance(n, 1, 1, 1), 1.0, draws.log_uniform(n, 1, 1, 1, low=0.2, high=1))
    return (x + opacity * region.mask * (filled - x)).clamp(0, 1)


@register(CORRUPTIONS, "blemishes")
class SyntheticAnomalies(Corruption):
    """:func:`spoil` by one share, number and size; the label is :func:`anomaly_mask`.

    Parameters
    ----------
    clean, most, smallest, largest: as :func:`spoil` takes them.
    textures: folder of images that lend their textures, beside the good ones. It is read when the first image is
        spoiled, never at inspection.

    Raises
    ------
    RecipeError
        When ``smallest`` exceeds ``largest``.
    """

    spoils_held_out = True

    def __init__(
        self,
        *,
        clean: Annotated[float, Field(ge=0, le=1)] = 0.3,
        most: Annotated[int, Field(ge=1)] = 3,
        smallest: Annotated[float, Field(gt=0, le=1)] = 0.02,
        largest: Annotated[float, Field(gt=0, le=1)] = 0.25,
        textures: str | None = None,
    ) -> None:
        super().__init__()
        if smallest > largest:
            raise RecipeError(
                f"corruption 'blemishes': smallest {smallest:g} exceeds largest {largest:g}; make it less"
            )
        self.clean, self.most, self.smallest, self.largest = clean, most, smallest, largest
        self.textures = textures
        self._read: list[Tensor] = []

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.spoil(x, self.clean, generator)

    @torch.no_grad()
    def spoil(self, x: Tensor, clean: float, generator: torch.Generator | None = None) -> Tensor:
        """As :meth:`forward` does it, with another share of clean images.

        Raises
        ------
        FileError, ImageError
            When the textures cannot be read.
        """
        if self.textures is not None and not self._read:
            self._read = read_textures(self.textures, x.shape[1])
        # Half precision would band the noise.
        with torch.autocast(x.device.type, enabled=False):
            return spoil(
                x,
                clean=clean,
                most=self.most,
                smallest=self.smallest,
                largest=self.largest,
                textures=self._read,
                generator=generator,
            )


def read_textures(folder: str, channels: int) -> list[Tensor]:
    """Images of ``folder`` as (C, h, w) in [0, 1]; of very many some, evenly chosen, and large ones made smaller.

    For other numbers of channels than 1 and 3 they are grey, the same in each.

    Raises
    ------
    FileError, ImageError
        When there is no image, or one cannot be read or turned into grey or RGB.
    """
    items = find_images(folder)
    textures = []
    for index in np.unique(np.linspace(0, len(items) - 1, TEXTURES).round().astype(int)):
        pixels = read_image(items[index].path).floats()
        scale = min(1.0, FINEST / min(pixels.shape[1:]))
        height, width = (max(1, round(side * scale)) for side in pixels.shape[1:])
        try:
            pixels = select_channels(resize(pixels, (height, width)), 3 if channels == 3 else 1)
        except UsageError as error:
            raise ImageError(items[index].path, str(error), "remove it from the textures") from None
        textures.append(torch.from_numpy(pixels).expand(channels, -1, -1))
    return textures
