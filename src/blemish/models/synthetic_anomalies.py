"""Synthetic anomalies, on which a network is trained without real defects.

Their shapes follow Perlin noise (Zavrtanik et al. 2021, DRAEM, section 3.3), ellipses, boxes and scratches. They are
filled with crops of the good images or of textures, pasted plainly, seamlessly or with mixed detail (Schlüter et al.
2022, Natural Synthetic Anomalies), or with tones, noise, blur and stains. Changes are relative to the contrast of the
image, sizes to its shorter side; fine detail is in pixels.
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

from blemish.data.channels import select_channels
from blemish.data.datasets import find_images
from blemish.data.image import read_image, resize
from blemish.errors import ImageError, RecipeError, UsageError
from blemish.models.anomaly_fillings import (
    blurred,
    displaced,
    foreign_texture,
    inpainted,
    other_location,
    stain,
    structured_noise,
    tone_change,
    warped,
)
from blemish.models.anomaly_shapes import VISIBLE, AnomalyArea, Draws, sample_areas, spread
from blemish.models.contracts import Corruption
from blemish.models.registry import CORRUPTIONS, register

FAINTEST = 1 / 1024
"""Smallest change that counts in an image without contrast, in units of the data range."""
FINEST = 512
"""Shorter side in pixels to which larger textures are reduced."""
TEXTURES = 200
"""Largest number of images used from a folder of textures."""


def anomaly_mask(seen: Tensor, target: Tensor) -> Tensor:
    """Mask of the pixels of ``seen`` that visibly differ from ``target``: (N, C, H, W) twice to (N, 1, H, W) of 0 and 1.

    A pixel is marked if the absolute difference in the channel where it is largest, averaged over 3×3 pixels,
    exceeds 0.15 times the :func:`spread` of ``target``; then gaps of up to four pixels are closed. A common gain and
    offset of both images has no effect, and the mask extends at most one pixel beyond the changes and the gaps
    between them. Absent values (NaN) count as unchanged.

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
    other_location,
    other_location,
    displaced,
    warped,
    tone_change,
    structured_noise,
    blurred,
    stain,
    inpainted,
)
"""Fillings of images (n, C, H, W), given good images to crop from and the areas; other locations are twice as likely."""


def synthesise_anomalies(
    x: Tensor,
    *,
    clean: float = 0.3,
    most: int = 3,
    smallest: float = 0.02,
    largest: float = 0.25,
    textures: Sequence[Tensor] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Add synthetic anomalies to good images, from obvious to barely visible; absent values (NaN) stay absent.

    Half of the anomalies are opaque, the others have an opacity between 0.2 and 1.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1]; crops are taken from all images of the batch.
    clean: share of the images without anomalies, in [0, 1].
    most: largest number of anomalies in one image; every number from 1 is equally likely.
    smallest, largest: diameter in units of the shorter side; see :func:`sample_areas`.
    textures: (C, h, w) in [0, 1] each, of any size; if given, two fillings of eleven are crops of them.
    generator: source of the random numbers; torch's global generator by default.

    >>> x = torch.rand(8, 1, 64, 64)
    >>> y = synthesise_anomalies(x, clean=0.0, generator=torch.Generator().manual_seed(0))
    >>> y.shape == x.shape, float((y != x).float().mean()) < 0.5
    (True, True)
    """
    draws, n = Draws(x, generator), len(x)
    counts = (1 + draws.integers(n, below=most)) * ~draws.chance(n, of=clean)
    good = x.nan_to_num()
    corrupted = good.clone()
    fillings = FILLINGS + (partial(foreign_texture, textures=textures),) * (2 if textures else 0)
    for already in range(most):
        k = (counts > already).nonzero()[:, 0]
        if len(k):
            corrupted[k] = _add_anomaly(corrupted[k], good, fillings, smallest, largest, draws)
    return torch.where(x.isnan(), x, corrupted)


def _add_anomaly(
    x: Tensor, good: Tensor, fillings: Sequence[Filling], smallest: float, largest: float, draws: Draws
) -> Tensor:
    n = len(x)
    area = sample_areas(x, smallest, largest, draws.generator)
    filled = torch.empty_like(x)
    kind = draws.integers(n, below=len(fillings))
    for index, filling in enumerate(fillings):
        k = (kind == index).nonzero()[:, 0]
        if len(k):
            filled[k] = filling(x[k], good, area.select(k), draws)
    opacity = torch.where(draws.chance(n, 1, 1, 1), 1.0, draws.log_uniform(n, 1, 1, 1, low=0.2, high=1))
    return (x + opacity * area.mask * (filled - x)).clamp(0, 1)


@register(CORRUPTIONS, "synthetic-anomalies")
class SyntheticAnomalies(Corruption):
    """Corruption :func:`synthesise_anomalies` with fixed share, number and sizes; the label is :func:`anomaly_mask`.

    Parameters
    ----------
    clean, most, smallest, largest: as in :func:`synthesise_anomalies`.
    textures: folder of texture images to crop from, in addition to the good images. It is read when the first image
        is corrupted, never at inspection.

    Raises
    ------
    RecipeError
        If ``smallest`` exceeds ``largest``.
    """

    corrupts_held_out = True

    def __init__(
        self,
        *,
        clean: Annotated[float, Field(ge=0, le=1)] = 0.3,
        most: Annotated[int, Field(ge=1, le=1000)] = 3,
        smallest: Annotated[float, Field(gt=0, le=1)] = 0.02,
        largest: Annotated[float, Field(gt=0, le=1)] = 0.25,
        textures: str | None = None,
    ) -> None:
        super().__init__()
        if smallest > largest:
            raise RecipeError(
                f"corruption 'synthetic-anomalies': smallest {smallest:g} exceeds largest {largest:g}; make it less"
            )
        self.clean, self.most, self.smallest, self.largest = clean, most, smallest, largest
        self.textures = textures
        self._read_textures: list[Tensor] = []

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.synthesise(x, self.clean, generator)

    @torch.no_grad()
    def synthesise(self, x: Tensor, clean: float, generator: torch.Generator | None = None) -> Tensor:
        """Add synthetic anomalies like :meth:`forward`, with another share of clean images.

        Raises
        ------
        FileError, ImageError
            If the textures cannot be read.
        """
        if self.textures is not None and not self._read_textures:
            self._read_textures = read_textures(self.textures, x.shape[1])
        # Half precision would quantise the noise visibly.
        with torch.autocast(x.device.type, enabled=False):
            return synthesise_anomalies(
                x,
                clean=clean,
                most=self.most,
                smallest=self.smallest,
                largest=self.largest,
                textures=self._read_textures,
                generator=generator,
            )


def read_textures(folder: str, channels: int) -> list[Tensor]:
    """Read the images of ``folder`` as (C, h, w) in [0, 1]: an even selection of at most ``TEXTURES``, large ones reduced.

    For a number of channels other than 1 and 3, textures are grey and equal in all channels.

    Raises
    ------
    FileError, ImageError
        If there is no image, or one cannot be read or converted to grey or RGB.
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
